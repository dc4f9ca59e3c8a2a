"""The wake door of a workspace, and its spool."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from protocol.worker import TakeWakes, WakeSpooled
from worker.ports import Notice
from worker.wake.door import Wakes
from worker.wake.spool import Spool

pytestmark = pytest.mark.anyio


class Door:
    """A door that is open. ``told`` is what the control plane would hear."""

    def __init__(self, folder: Path, kept: int = 1000) -> None:
        self.wakes = Wakes(Spool(folder, kept=kept), "alpha", port=0)
        self.told: list[Notice] = []
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> "Door":
        self._running = asyncio.create_task(self.wakes.run(self.told.append))
        await self.wakes.looked()
        while self.wakes.port is None:  # noqa: ASYNC110 — a door tells nobody that it is open
            await asyncio.sleep(0.005)
        return self

    async def close(self) -> None:
        assert self._running is not None
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running

    async def knock(self, content: str | bytes, method: str = "POST", path: str = "/hooks/wake", **headers: str):  # type: ignore[no-untyped-def]
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(trust_env=False) as client:
            url = f"http://127.0.0.1:{self.wakes.port}{path}"
            return await client.request(method, url, content=content, headers=named)

    def texts(self) -> list[str]:
        return [notice.text for notice in self.wakes.seen() if isinstance(notice, WakeSpooled)]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    opened = await Door(tmp_path / "wakes", kept=3).open()
    yield opened
    await opened.close()


async def test_while_the_spool_cannot_be_read_wakes_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "wakes").write_text("no folder")
    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    wakes = Wakes(Spool(tmp_path / "wakes"), "alpha", port=address[1], listening=listening)
    with pytest.raises(OSError, match="wakes"):
        await wakes.run(lambda notice: None)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=30)
    (tmp_path / "wakes").unlink()
    running = asyncio.create_task(wakes.run(lambda notice: None))
    async with asyncio.timeout(30):
        while wakes.port is None:  # noqa: ASYNC110 — a door tells nobody that it is open
            await asyncio.sleep(0.005)
    assert wakes.port == address[1]
    socket.create_connection(address, timeout=30).close()
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_any_token_or_none_will_do(door: Door) -> None:
    first = await door.knock('{"text":"Done: $(it) \'works\'","mode":"now"}', Authorization="Bearer whatever")
    second = await door.knock('{"text":"two","mode":"next-heartbeat"}')
    assert first.status_code == second.status_code == 200
    assert first.json()["id"].startswith("alpha.w-")
    assert second.json()["mode"] == "next-heartbeat"
    assert door.texts() == ["Done: $(it) 'works'", "two"]
    assert len(door.told) == 2


async def test_what_was_taken_survives_and_is_told_in_order(door: Door, tmp_path: Path) -> None:
    ids = [(await door.knock(json.dumps({"text": str(n)}))).json()["id"] for n in range(3)]
    await door.close()
    (tmp_path / "wakes" / "000000000009.draft").write_bytes(b"half")
    (tmp_path / "wakes" / "000000000010.json").write_bytes(b"damaged")
    again = await Door(tmp_path / "wakes").open()
    assert again.texts() == ["0", "1", "2"]
    await again.knock('{"text":"3"}')
    assert again.texts() == ["0", "1", "2", "3"]
    await again.wakes.handlers()[TakeWakes](TakeWakes(ids=[id_.removeprefix("alpha.") for id_ in ids[:2]]))
    assert again.texts() == ["2", "3"]
    await again.close()
    last = await Door(tmp_path / "wakes").open()
    assert last.texts() == ["2", "3"]
    await last.close()


async def test_it_ends_while_somebody_is_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.wake.door.SECONDS", 600.0)
    door = await Door(tmp_path / "wakes").open()
    assert door.wakes.port is not None and door._running is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", door.wakes.port)
    writer.write(b"POST /hooks/wake HTTP/1.1\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
    await reader.readuntil(b"100 Continue")
    door._running.cancel()
    assert (await asyncio.wait({door._running}, timeout=20))[0]
    async with asyncio.timeout(20):
        await reader.read()
    writer.close()


async def test_asked_twice_it_is_one_wake(door: Door) -> None:
    ids = {(await door.knock('{"text":"x"}', Idempotency_Key="mine")).json()["id"] for _ in range(3)}
    assert len(ids) == 1
    assert door.texts() == ["x"]


@pytest.mark.parametrize(
    ("content", "status", "error"),
    [
        ("{}", 400, "text required"),
        ('{"text":" "}', 400, "text required"),
        ("[" * 10_000, 400, "The body is no JSON"),
        (json.dumps({"text": "x" * (65 << 10)}), 413, "The text has more than"),
        ("x" * (300 << 10), 413, "The body has more than"),
    ],
)
async def test_what_is_wrong_is_said(door: Door, content: str, status: int, error: str) -> None:
    answer = await door.knock(content)
    assert answer.status_code == status
    assert answer.json()["error"].startswith(error)
    assert not door.texts()


async def test_only_wakes_are_taken_and_not_from_web_pages(door: Door) -> None:
    assert (await door.knock(b"", "GET")).status_code == 405
    assert (await door.knock('{"text":"x"}', path="/")).status_code == 404
    assert (await door.knock('{"text":"x"}', Origin="http://evil.example")).status_code == 403
    assert not door.texts()


async def test_a_full_spool_refuses(door: Door) -> None:
    for number in range(3):
        await door.knock(json.dumps({"text": str(number)}))
    refused = await door.knock('{"text":"3"}')
    assert refused.status_code == 429 and refused.headers["retry-after"]
