"""The WebSockets: a snapshot, then changes; and the messages of what a client subscribed to."""

import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from controlplane.sessions import watching
from protocol.sessions import (
    NewMessages,
    SessionChanged,
    SessionDeleted,
    SessionsFrame,
    SessionsSnapshot,
    frame_decoder,
)
from tests.fakes.surface import TOKEN, Surface
from tests.fakes.worker import FakeWorker, message
from tests.fakes.workspaces import workspace
from tests.unit.sessions.conftest import followed, until

AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


class Live:
    """A served control plane that follows a fake worker."""

    def __init__(self, surface: Surface, port: int) -> None:
        self.surface = surface
        self.port = port
        self.worker = FakeWorker()

    def connect(self, path: str = "/sessions") -> connect:
        url = f"ws://127.0.0.1:{self.port}{path}"
        return connect(url, additional_headers=AUTHORISED, proxy=None, max_size=None)


@pytest.fixture
async def live(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Live]:
    surface = Surface(tmp_path)
    async with surface.served() as port:
        made = Live(surface, port)
        async with followed(surface.session_follower, "alpha", made.worker):
            yield made


async def received(ws: ClientConnection) -> SessionsFrame:
    with anyio.fail_after(20):
        return frame_decoder.decode(await ws.recv())


async def next_of(ws: ClientConnection, kind: type[Any]) -> Any:
    """The next frame of a kind; others are passed over."""
    while not isinstance(frame := await received(ws), kind):
        pass
    return frame


async def closed(ws: ClientConnection) -> int:
    with anyio.fail_after(20), pytest.raises(ConnectionClosed) as caught:
        while True:
            await ws.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


async def subscribe(ws: ClientConnection, session_id: str, **more: Any) -> None:
    wanted = {"type": "subscribe", "workspace": "alpha", "agent": "claude", "sessionId": session_id, **more}
    await ws.send(json.dumps(wanted))


async def test_a_snapshot_then_changes(live: Live) -> None:
    live.worker.write("one", message(0, "first"))
    await until(lambda: live.surface.session_changes.seq >= 2, "it is known")
    async with live.connect() as ws:
        snapshot = await received(ws)
        assert isinstance(snapshot, SessionsSnapshot)
        assert [each.session_id for each in snapshot.items] == ["one"]
        live.worker.write("two", message(0, "second"), title="Second")
        while (await next_of(ws, SessionChanged)).session.title != "Second":
            pass
        live.worker.remove("two")
        assert (await next_of(ws, SessionDeleted)).session_id == "two"
    async with live.connect(f"/sessions?epoch={snapshot.epoch}&after={snapshot.seq}") as ws:
        first = await received(ws)
        assert isinstance(first, SessionDeleted)


async def test_messages_of_what_was_subscribed_to(live: Live) -> None:
    live.worker.write("one", message(0, "old"), message(1, "older"))
    live.worker.write("two", message(0, "other"))
    await until(lambda: live.surface.session_changes.seq >= 4, "they are read")
    async with live.connect() as ws:
        await subscribe(ws, "one", after=0)
        told = await next_of(ws, NewMessages)
        assert [each.ordinal for each in told.items] == [1]
        live.worker.write("two", message(1, "nobody asked"))
        live.worker.write("one", message(1, "grown"), message(2, "new"))
        told = await next_of(ws, NewMessages)
        assert (told.session_id, [each.ordinal for each in told.items]) == ("one", [1, 2])
        assert told.items[0].blocks[0].text == "grown"
        live.worker.rewrite("one", message(0, "anew"))
        told = await next_of(ws, NewMessages)
        assert (told.reset, [each.id for each in told.items]) == (True, ["m0"])


async def test_of_one_workspace(live: Live) -> None:
    other = FakeWorker()
    live.surface.workspaces.put(workspace("beta"))
    async with followed(live.surface.session_follower, "beta", other), live.connect("/sessions/beta") as ws:
        assert isinstance(await received(ws), SessionsSnapshot)
        live.worker.write("one", message(0, "not here"))
        other.write("two", message(0, "here"))
        assert (await next_of(ws, SessionChanged)).session.workspace == "beta"


async def test_a_workspace_that_there_is_none_of(live: Live) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with live.connect("/sessions/nobody?epoch=x&after=1"):
            pass
    assert refused.value.response.status_code == 404
    assert b"There is no workspace 'nobody'" in (refused.value.response.body or b"")
    async with connect(f"ws://127.0.0.1:{live.port}/sessions/nobody", proxy=None) as ws:
        await ws.send(json.dumps({"type": "auth", "token": TOKEN}))
        assert await closed(ws) == 4404
    async with connect(f"ws://127.0.0.1:{live.port}/sessions/nobody", proxy=None) as ws:
        await ws.send(json.dumps({"type": "auth", "token": "guessed"}))
        assert await closed(ws) == 4001


@pytest.mark.parametrize("frame", ["{", '{"type":"subscribe"}', '{"type":"other"}', b"\xff"])
async def test_who_breaks_the_rules_is_told(live: Live, frame: str | bytes) -> None:
    async with live.connect() as ws:
        await ws.send(frame)
        assert await closed(ws) == 1008


async def test_too_many_subscriptions(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "SUBSCRIPTIONS", 2)
    async with live.connect() as ws:
        for number in range(3):
            await subscribe(ws, f"s{number}")
        assert await closed(ws) == 1008


async def test_the_end_of_the_control_plane(live: Live) -> None:
    async with live.connect() as ws:
        assert isinstance(await received(ws), SessionsSnapshot)
        live.surface.session_changes.close()
        assert await closed(ws) == 1001
    await until(lambda: live.surface.session_changes.followers == 0, "it is let go")


async def test_a_client_that_reads_nothing_slows_nobody(live: Live) -> None:
    plain = socket.create_connection(("127.0.0.1", live.port))
    try:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.sendall(
            b"GET /sessions HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
        )
        async with live.connect() as ws:
            await until(lambda: live.surface.session_changes.followers == 2, "both follow")
            await subscribe(ws, "one", after=-1)
            for number in range(60):
                live.worker.write("one", message(number, "x" * 20_000))
            seen: set[int] = set()
            while len(seen) < 60:
                seen |= {each.ordinal for each in (await next_of(ws, NewMessages)).items}
    finally:
        plain.close()
