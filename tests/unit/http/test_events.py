"""The stream of changes: the bus by itself, and the WebSocket over a real server."""

import json
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from controlplane.auth import guards
from controlplane.auth.headers import Headers
from controlplane.auth.identity import Identity
from controlplane.events.bus import Bus, Subscription
from protocol.auth import IdentityKind
from protocol.events import Event, Snapshot, WorkspaceChanged, WorkspaceDeleted, event_decoder
from protocol.workspaces import Workspace
from tests.fakes.surface import TOKEN, Surface
from tests.fakes.workspaces import workspace
from tests.waiting import until

AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


# --- the bus


def nothing() -> Sequence[Workspace]:
    return []


async def first(subscription: Subscription, count: int) -> list[Event]:
    """The next frames of a subscription."""
    found: list[Event] = []
    with anyio.fail_after(2):
        async for frame in subscription.frames():
            found.append(event_decoder.decode(frame))
            if len(found) == count:
                break
    return found


async def test_it_begins_with_a_snapshot_and_goes_on_with_changes() -> None:
    bus = Bus()
    bus.workspace_changed(workspace("alpha"))
    with bus.subscribe(lambda: [workspace("alpha")]) as subscription:
        bus.workspace_changed(workspace("beta"))
        bus.workspace_deleted("beta")
        # The snapshot is of the moment that it is asked for, so what came before it is in it.
        bus_seq = 3
        found = await first(subscription, 1)
        assert found == [Snapshot(epoch=bus.epoch, seq=bus_seq, workspaces=[workspace("alpha")])]


async def test_a_client_goes_on_where_it_stopped() -> None:
    bus = Bus()
    for name in ("a", "b", "c"):
        bus.workspace_changed(workspace(name))
    with bus.subscribe(nothing, epoch=bus.epoch, after=1) as subscription:
        bus.workspace_deleted("a")
        assert await first(subscription, 3) == [
            WorkspaceChanged(seq=2, workspace=workspace("b")),
            WorkspaceChanged(seq=3, workspace=workspace("c")),
            WorkspaceDeleted(seq=4, name="a"),
        ]


async def test_one_may_hear_of_one_workspace_alone() -> None:
    bus = Bus()
    with bus.subscribe(lambda: [workspace("a"), workspace("b")], only="a") as subscription:
        frames = subscription.frames()
        snapshot = event_decoder.decode(await anext(frames))
        assert isinstance(snapshot, Snapshot) and [each.name for each in snapshot.workspaces] == ["a"]
        heard: list[Event] = []

        async def listen() -> None:
            heard.extend([event_decoder.decode(await anext(frames)) for _ in range(2)])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            for name in ("b", "a", "b", "b"):
                await anyio.wait_all_tasks_blocked()
                bus.workspace_changed(workspace(name))
            bus.workspace_deleted("b")
            bus.workspace_deleted("a")
    assert heard == [WorkspaceChanged(seq=2, workspace=workspace("a")), WorkspaceDeleted(seq=6, name="a")]


async def test_who_hears_of_one_alone_is_not_too_slow_for_the_others() -> None:
    bus = Bus(kept=4)
    with bus.subscribe(nothing, only="a") as subscription:
        frames = subscription.frames()
        await anext(frames)
        async with anyio.create_task_group() as tasks:
            heard: list[Event] = []

            async def listen() -> None:
                heard.append(event_decoder.decode(await anext(frames)))

            tasks.start_soon(listen)
            await anyio.wait_all_tasks_blocked()
            for _ in range(20):
                bus.workspace_changed(workspace("b"))
            bus.workspace_changed(workspace("a"))
    assert not subscription.lost and heard == [WorkspaceChanged(seq=21, workspace=workspace("a"))]


async def test_who_comes_back_misses_nothing_of_the_one() -> None:
    bus = Bus()
    bus.workspace_changed(workspace("a"))
    bus.workspace_changed(workspace("a"))
    with bus.subscribe(nothing, epoch=bus.epoch, after=1, only="a") as subscription:
        bus.workspace_changed(workspace("b"))
        assert await first(subscription, 1) == [WorkspaceChanged(seq=2, workspace=workspace("a"))]


@pytest.mark.parametrize(
    ("epoch", "after", "resumes"),
    [
        (True, 10, True),
        (True, 7, True),
        (True, 6, True),
        (True, 5, False),
        (True, 0, False),
        (True, 11, False),
        (True, -3, False),
        (True, None, False),
        (False, 10, False),
    ],
)
async def test_a_snapshot_comes_where_the_ring_has_not_what_follows(
    epoch: bool, after: int | None, resumes: bool
) -> None:
    bus = Bus(kept=4)
    for _ in range(10):
        bus.workspace_changed(workspace("a"))
    with bus.subscribe(nothing, epoch=bus.epoch if epoch else "other", after=after) as subscription:
        if after == 10:
            bus.workspace_deleted("a")
        [found] = await first(subscription, 1)
        assert isinstance(found, Snapshot) is not resumes


async def test_a_slow_follower_is_dropped_and_the_others_are_not() -> None:
    bus = Bus(kept=4)
    with bus.subscribe(nothing) as slow, bus.subscribe(nothing) as quick:
        await first(slow, 1)
        got: list[Event] = await first(quick, 1)
        frames = quick.frames()
        quick._snapshot = None
        for number in range(20):
            bus.workspace_deleted(str(number))
            got.append(event_decoder.decode(await anext(frames)))
        assert (slow.lost, slow.ended.is_set()) == (True, True)
        assert (quick.lost, quick.ended.is_set()) == (False, False)
        assert len(got) == 21
    assert bus.subscribers == 0


async def test_a_closed_bus_ends_whoever_comes() -> None:
    bus = Bus()
    with bus.subscribe(nothing) as before:
        bus.close()
        assert before.ended.is_set()
        assert not before.lost
    with bus.subscribe(nothing) as after:
        assert after.ended.is_set()


# --- the WebSocket


def url(port: int, query: str = "") -> str:
    return f"ws://127.0.0.1:{port}/events{query}"


async def received(ws: ClientConnection) -> Any:
    with anyio.fail_after(3):
        return event_decoder.decode(await ws.recv())


async def closed(ws: ClientConnection) -> int:
    """The code that the server closes with."""
    with anyio.fail_after(8), pytest.raises(ConnectionClosed) as caught:
        while True:
            await ws.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code


async def test_events_over_the_wire(surface: Surface) -> None:
    async with surface.served() as port:
        surface.workspaces.put(workspace("alpha"))
        async with connect(url(port), additional_headers=AUTHORISED, proxy=None) as ws:
            assert ws.response is not None
            assert len(ws.response.headers["x-request-id"]) == 16
            snapshot = await received(ws)
            assert snapshot == Snapshot(epoch=surface.bus.epoch, seq=1, workspaces=[workspace("alpha")])
            surface.workspaces.put(workspace("beta"))
            assert await received(ws) == WorkspaceChanged(seq=2, workspace=workspace("beta"))
            assert surface.bus.subscribers == 1
        surface.bus.workspace_deleted("beta")
        again = url(port, f"?epoch={snapshot.epoch}&after=1")
        async with connect(again, additional_headers=AUTHORISED, proxy=None) as ws:
            assert (await received(ws)).seq == 2
            assert await received(ws) == WorkspaceDeleted(seq=3, name="beta")
        await until(lambda: surface.bus.subscribers == 0, "both clients are gone")


@pytest.mark.parametrize("query", ["?after=x", "?after=-1", "?epoch=&after=", "?epoch=a&epoch=b", "?after=" + "9" * 40])
async def test_a_place_that_makes_no_sense_begins_anew(surface: Surface, query: str) -> None:
    async with surface.served() as port, connect(url(port, query), additional_headers=AUTHORISED, proxy=None) as ws:
        assert isinstance(await received(ws), Snapshot)


async def test_the_first_frame_may_carry_the_token(surface: Surface) -> None:
    async with surface.served() as port, connect(url(port), proxy=None) as ws:
        await ws.send(json.dumps({"type": "auth", "token": TOKEN}))
        assert isinstance(await received(ws), Snapshot)


@pytest.mark.parametrize(
    "frame",
    [
        json.dumps({"type": "auth", "token": TOKEN + "x"}),
        json.dumps({"type": "auth", "token": ""}),
        json.dumps({"type": "auth"}),
        json.dumps({"type": "other", "token": TOKEN}),
        "{",
        "",
        b"\xff\xfe",
    ],
)
async def test_a_wrong_first_frame_closes_with_4001(surface: Surface, frame: str | bytes) -> None:
    async with surface.served() as port, connect(url(port), proxy=None) as ws:
        await ws.send(frame)
        assert await closed(ws) == 4001
        assert surface.bus.subscribers == 0


async def test_no_first_frame_closes_with_4001(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "FIRST_FRAME_SECONDS", 0.05)
    async with surface.served() as port, connect(url(port), proxy=None) as ws:
        assert await closed(ws) == 4001


async def test_a_wrong_header_closes_with_4001_at_once(surface: Surface) -> None:
    wrong = {"Authorization": f"Bearer {TOKEN}x"}
    async with surface.served() as port:
        began = time.monotonic()
        async with connect(url(port), additional_headers=wrong, proxy=None) as ws:
            assert await closed(ws) == 4001
        assert time.monotonic() - began < 2


class Guest:
    """A listener that knows its callers, and they are no owners."""

    def identify(self, headers: Headers) -> Identity:
        return Identity(kind=IdentityKind.NODE, login="guest@")


async def test_somebody_who_may_not_is_told_so_before_the_upgrade(surface: Surface) -> None:
    surface.app = surface.listener(Guest())
    async with surface.served() as port:
        with pytest.raises(InvalidStatus) as caught:
            await connect(url(port), proxy=None)
        assert caught.value.response.status_code == 403
        assert b"recognised as guest@" in (caught.value.response.body or b"")
        assert surface.bus.subscribers == 0


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ({"Origin": "http://evil.example"}, "/events", 403),
        ({"Origin": "null"}, "/events", 403),
        ({"Sec-Fetch-Site": "cross-site"}, "/events", 403),
        ({}, "/nowhere", 404),
        ({}, "/rpc/workspaces/list", 404),
    ],
)
async def test_a_websocket_is_refused_before_its_upgrade(
    surface: Surface, headers: dict[str, str], path: str, status: int
) -> None:
    async with surface.served() as port:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(f"ws://127.0.0.1:{port}{path}", additional_headers=AUTHORISED | headers, proxy=None):
                pass
        assert caught.value.response.status_code == status
        assert caught.value.response.body is not None
        assert json.loads(caught.value.response.body)["json"]["status"] == status


async def test_a_client_that_reads_nothing_is_dropped_and_blocks_nobody(tmp_path: Path, anyio_backend: str) -> None:
    surface = Surface(tmp_path, kept=16)
    big = workspace("big", memory=1)
    lines = ["ssh-ed25519 " + "A" * 20_000]
    async with surface.served() as port:
        plain = socket.create_connection(("127.0.0.1", port))
        try:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            plain.sendall(
                b"GET /events HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n"
            )
            async with connect(url(port), additional_headers=AUTHORISED, proxy=None) as ws:
                assert isinstance(await received(ws), Snapshot)
                await until(lambda: surface.bus.subscribers == 2, "both follow")
                event = msgspec.structs.replace(big, ssh_host_keys=lines)
                for number in range(1500):
                    surface.bus.workspace_changed(event)
                    assert (await received(ws)).seq == number + 1
                    if surface.bus.subscribers == 1:
                        break
                await until(lambda: surface.bus.subscribers == 1, "the slow one is dropped")
                surface.bus.workspace_deleted("big")
                assert isinstance(await received(ws), WorkspaceDeleted)
        finally:
            plain.close()
