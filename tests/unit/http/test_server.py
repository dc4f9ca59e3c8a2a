"""A real server: how it ends, and what its HTTP parser hands us from odd clients."""

import logging
import socket
import time
from collections.abc import AsyncIterator

import anyio
import anyio.to_thread
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from controlplane.errors import StartupError
from controlplane.rpc import BODY_LIMIT
from controlplane.system.server import listen
from protocol.workspaces import Workspace
from tests.fakes.surface import TOKEN, Surface
from tests.fakes.workspaces import workspace
from tests.unit.http.test_rpc import error
from tests.waiting import until

AUTHORISED = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


class Slow:
    """A service whose list takes until it is told."""

    def __init__(self, surface: Surface) -> None:
        self.asked = anyio.Event()
        self.go = anyio.Event()
        surface.workspaces.list = self.list  # type: ignore[method-assign]

    async def list(self) -> list[Workspace]:
        self.asked.set()
        await self.go.wait()
        return [workspace("alpha")]


async def post(port: int, procedure: str = "workspaces/list") -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.post(f"http://127.0.0.1:{port}/rpc/{procedure}", content=b"{}", headers=AUTHORISED)


async def test_the_end_closes_websockets_and_finishes_requests(surface: Surface) -> None:
    slow = Slow(surface)
    answers: list[httpx.Response] = []
    async with anyio.create_task_group() as group, surface.served() as port:

        async def ask() -> None:
            answers.append(await post(port))

        async with connect(f"ws://127.0.0.1:{port}/events", additional_headers=AUTHORISED, proxy=None) as ws:
            await ws.recv()
            group.start_soon(ask)
            await slow.asked.wait()
            assert (await post(port, "agent/kill")).json() == {"json": {"ok": True}}
            with anyio.fail_after(2), pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001
        await anyio.sleep(0.3)
        with pytest.raises(httpx.ConnectError):
            await post(port)
        slow.go.set()
    [answer] = answers
    assert answer.json()["json"][0]["name"] == "alpha"


async def test_the_end_has_a_bound_and_says_so(surface: Surface) -> None:
    slow = Slow(surface)
    answers: list[httpx.Response] = []
    began = 0.0
    async with anyio.create_task_group() as group, surface.served(grace=0.3) as port:

        async def ask() -> None:
            answers.append(await post(port))

        group.start_soon(ask)
        await slow.asked.wait()
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert error(answers[0]).code == "SERVICE_UNAVAILABLE"
    assert surface.requests.running == 0


async def test_a_client_that_leaves_does_not_end_what_it_asked_for(surface: Surface) -> None:
    slow = Slow(surface)
    async with surface.served() as port:
        with anyio.move_on_after(0.2):
            await post(port)
        assert slow.asked.is_set()
        await anyio.sleep(0.1)
        assert surface.requests.running == 1
        slow.go.set()
        await until(lambda: surface.requests.running == 0, "it is finished")


async def test_a_client_that_leaves_in_mid_body_is_no_crash(surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    def leave(port: int, path: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(HEAD.replace("POST /rpc/workspaces/list", path.decode()).encode())
            plain.sendall(b"Host: localhost\r\nContent-Length: 1000\r\n\r\n{")

    with caplog.at_level(logging.INFO, "controlplane"):
        async with surface.served() as port:
            for path in (b"POST /rpc/workspaces/list", b"PUT /uploads/abcdefgh12345678"):
                await anyio.to_thread.run_sync(leave, port, path)
            await until(lambda: len(caplog.records) == 2, "both are logged")
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert [record.__dict__["fields"]["status"] for record in caplog.records] == [499, 499]


async def test_nothing_is_held_back_on_a_connection_that_was_used_before(surface: Surface) -> None:
    async with surface.served() as port, httpx.AsyncClient(trust_env=False) as client:
        took = []
        for _ in range(9):
            began = time.monotonic()
            await client.get(f"http://127.0.0.1:{port}/health")
            took.append(time.monotonic() - began)
    assert sorted(took)[4] < 0.03, "Nagle's algorithm makes it 40 ms"


async def test_a_busy_port_is_a_sentence() -> None:
    taken = listen("127.0.0.1", 0)
    try:
        with pytest.raises(StartupError, match="PERRY_PORT"):
            listen("127.0.0.1", taken.getsockname()[1])
    finally:
        taken.close()
    with pytest.raises(StartupError, match="cannot be listened on"):
        listen("192.0.2.1", 0)


def exchange(port: int, request: bytes) -> bytes:
    """The first line of what the server says to these bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
        plain.sendall(request)
        return plain.recv(65536).split(b"\r\n")[0]


HEAD = f"POST /rpc/workspaces/list HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {TOKEN}\r\n"
LENGTH = "Content-Length: 2\r\n"


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Host: localhost\r\n" + LENGTH, 200),
        ("hOsT: localhost\r\n" + LENGTH, 200),
        ("Host: localhost\r\nHOST: localhost\r\n" + LENGTH, 400),
        ("Host: localhost\r\nhost: evil.example\r\n" + LENGTH, 400),
        (LENGTH, 400),
        ("Host: evil.example\r\n" + LENGTH, 403),
        (f"Host: localhost\r\nauthorization: Bearer {TOKEN}\r\n" + LENGTH, 400),
        ("Host: localhost\r\nORIGIN: http://evil.example\r\n" + LENGTH, 403),
        ("Host: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n", 400),
        ("Host: localhost\r\nHost : evil.example\r\n" + LENGTH, 400),
        ("Host: localhost\r\nX: y\r\n Host: evil.example\r\n" + LENGTH, 200),
    ],
)
async def test_odd_heads(surface: Surface, lines: str, status: int) -> None:
    async with surface.served() as port:
        first = await anyio.to_thread.run_sync(exchange, port, (HEAD + lines + "\r\n{}").encode())
    assert int(first.split()[1]) == status, first


async def test_a_chunked_body_has_the_same_bound(surface: Surface) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(BODY_LIMIT // 65536 + 8):
            yield b" " * 65536

    async with surface.served() as port, httpx.AsyncClient(trust_env=False) as client:
        address = f"http://127.0.0.1:{port}/rpc/workspaces/list"
        answer = await client.post(address, content=endless(), headers=AUTHORISED)
    assert error(answer).code == "PAYLOAD_TOO_LARGE"
