"""Gateways that only the tailnet reaches: what Perry's node there is asked, and what follows from its answers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpcore
import msgspec
import pytest

from controlplane.db import Database
from controlplane.settings.hooks import GatewaySettings, HookSettings
from controlplane.wake.dialer import Dialer
from controlplane.wake.passage import NotThere, Passage
from controlplane.wake.service import WakeService
from controlplane.wake.target import may_go_directly, target_of
from protocol.wake import TestWake, WakeRef, WakeState, WakeWay
from tests.fakes.wake_gateway import Gateway
from tests.fakes.way_out import CONTRACT, WayOut
from tests.unit.wake.conftest import outgoing, running, settings, state
from tests.waiting import until

EXCHANGES: list[dict[str, Any]] = CONTRACT["exchanges"]
NOBODY = next(each for each in EXCHANGES if each["place"] == "nobody:18789")
GUARDED = next(each for each in EXCHANGES if each["place"] == "guarded:18789")


def gateway_at(place: str) -> GatewaySettings:
    return GatewaySettings(name="home", url=f"http://{place}", token_file="token")


def dialer(folder: Path, place: str, *, own: tuple[str, ...] = (), means: str = "127.0.0.1") -> Dialer:
    target = target_of(gateway_at(place), on_tailnet=True, domain="perry.internal")

    async def resolve(host: str, port: int) -> list[str]:
        return [means]

    passage = Passage(folder / "out" / "forward.sock", folder / "places.json", lambda: [target.place])
    return Dialer(target, own_port=1, own_addresses=lambda: own, passage=passage, resolve=resolve)


async def connect(dialer: Dialer) -> httpcore.AsyncNetworkStream:
    target = dialer._target
    return await dialer.connect_tcp(target.host, target.port)


@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda each: f"{each['place']}-{each['status']}")
async def test_what_the_node_says_is_what_is_said(exchange: dict[str, Any], tmp_path: Path) -> None:
    place = exchange["place"]
    target = target_of(gateway_at(place), on_tailnet=True, domain=None)
    passage = Passage(tmp_path / "forward.sock", tmp_path / "places.json", lambda: [target.place])
    way = WayOut(exchange)
    async with way.open(tmp_path / "forward.sock"):
        if exchange["status"] == 200:
            stream = await passage.connect(target)
            assert await stream.read(100) == b"from the device", "what comes after the head is the device's"
            await stream.aclose()
        else:
            with pytest.raises(NotThere) as caught:
                await passage.connect(target)
            assert (str(caught.value), caught.value.status) == (exchange["says"], exchange["status"])
    assert way.heard == [f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n"]
    assert json.loads((tmp_path / "places.json").read_text()) == [place]
    assert (tmp_path / "places.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 502", b"HTTP/1.1 502 Bad\r\n\r\n", b"HTTP/1.1 502 Bad\r\n\r\n[1]", b"\r\n\r\n", b"x" * 9000],
)
async def test_a_node_that_tells_nonsense_or_breaks_off_is_away(answer: bytes, tmp_path: Path) -> None:
    socket = tmp_path / "out" / "forward.sock"
    socket.parent.mkdir()

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(answer)

    async with await anyio.create_unix_listener(socket) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        with pytest.raises(NotThere, match="`perry tailnet status` says more"):
            await connect(dialer(tmp_path, "assistant:18789"))
        tasks.cancel_scope.cancel()


async def test_a_node_that_is_away_is_said_and_nothing_else_is_tried(tmp_path: Path) -> None:
    ours = dialer(tmp_path, "assistant:18789")
    with pytest.raises(NotThere, match="is not there"):
        await connect(ours)
    # Neither a link that its container left there is followed, nor a socket that nobody listens on.
    (tmp_path / "out").mkdir()
    async with WayOut(EXCHANGES[0]).open(tmp_path / "elsewhere.sock") as elsewhere:
        (tmp_path / "out" / "forward.sock").symlink_to(tmp_path / "elsewhere.sock")
        with pytest.raises(NotThere, match="is not there"):
            await connect(ours)
    assert elsewhere.heard == [] and ours.way is None


async def test_a_long_path_is_no_hindrance(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    async with WayOut(EXCHANGES[0]).open(tmp_path / "forward.sock"):
        (folder / "out").mkdir()
        (tmp_path / "forward.sock").rename(folder / "out" / "forward.sock")
        ours = dialer(folder, "assistant:18789")
        await (await connect(ours)).aclose()
    assert ours.way is WakeWay.TAILNET


@pytest.mark.parametrize(
    ("host", "status", "itself", "may"),
    [
        ("assistant", 404, False, True),
        ("assistant", 504, False, False),
        ("assistant", None, False, False),
        ("assistant.tail1234.ts.net", 404, False, False),
        ("assistant.perry.internal", 404, False, False),
        ("100.64.0.7", 404, False, False),
        ("100.64.0.7", 404, True, True),
        ("assistant.tail1234.ts.net", 404, True, True),
        ("assistant", 504, True, False),
        ("assistant", 502, True, False),
        ("assistant", None, True, False),
        ("assistant", 403, True, False),
    ],
)
def test_when_this_machine_tries_by_itself(host: str, status: int | None, itself: bool, may: bool) -> None:
    target = target_of(gateway_at(host), on_tailnet=True, domain="perry.internal")
    assert may_go_directly(target, status, on_tailnet_itself=itself) is may


async def test_a_machine_that_tries_by_itself_says_both(tmp_path: Path) -> None:
    async with WayOut(NOBODY, GUARDED).open(tmp_path / "out" / "forward.sock"):
        with pytest.raises(NotThere, match=r"has no device nobody .* From this machine: The name 'nobody' means"):
            await connect(dialer(tmp_path, "nobody:18789"))
        for own in ((), ("100.64.0.9",)):
            with pytest.raises(NotThere) as caught:
                await connect(dialer(tmp_path, "guarded:18789", own=own))
            assert str(caught.value) == GUARDED["says"]


async def test_this_machines_own_address_is_reached_from_it(tmp_path: Path) -> None:
    async with WayOut().open(tmp_path / "out" / "forward.sock") as way:
        with pytest.raises(httpcore.ConnectError):
            # That is where it would go: to this machine, and not by the node.
            await connect(dialer(tmp_path, "100.64.0.9:1", own=("100.64.0.9",), means="100.64.0.9"))
    assert way.heard == []


def service(
    folder: Path, database: Database, *gateways: GatewaySettings, domain: Callable[[], str | None] = lambda: None
) -> WakeService:
    """On a machine that is on no tailnet itself."""
    (folder / "token").write_text("hush-hush-hush-hush-hush-hush-hush")
    (folder / "token").chmod(0o600)
    out = msgspec.structs.replace(outgoing(folder, on_tailnet=True), domain=domain, own_addresses=tuple)
    return WakeService(database, HookSettings(gateways=gateways), folder, out)


async def test_a_wake_goes_by_the_tailnet_and_says_so(gateway: Gateway, database: Database, tmp_path: Path) -> None:
    wakes = service(tmp_path, database, gateway_at("assistant:18789"))
    async with WayOut(EXCHANGES[0], behind=gateway.port).open(tmp_path / "forward.sock"), running(wakes):
        id_ = await wakes.wake("Done: all tests pass.")
        await until(lambda: state(wakes, id_) == "delivered")
        shown = wakes.show(WakeRef(id=id_))
        assert shown.wake.way is WakeWay.TAILNET and [each.way for each in shown.attempts] == [WakeWay.TAILNET]
        tried = await wakes.test(TestWake())
        assert (tried.state, tried.way) == (WakeState.DELIVERED, WakeWay.TAILNET)
    assert [heard.headers["host"] for heard in gateway.heard] == ["assistant:18789"] * 2


async def test_a_gateway_of_this_machine_is_reached_from_it(
    gateway: Gateway, database: Database, tmp_path: Path
) -> None:
    wakes = WakeService(database, settings(tmp_path, gateway), tmp_path, outgoing(tmp_path, on_tailnet=True))
    async with running(wakes):
        tried = await wakes.test(TestWake())
        assert (tried.state, tried.way) == (WakeState.DELIVERED, WakeWay.DIRECT)
    assert json.loads((tmp_path / "places.json").read_text()) == []


async def test_what_the_node_refuses_is_shown_with_the_wake(database: Database, tmp_path: Path) -> None:
    wakes = service(tmp_path, database, gateway_at("guarded:18789"))
    async with WayOut(GUARDED).open(tmp_path / "forward.sock"), running(wakes):
        id_ = await wakes.wake("Done.")
        await until(lambda: wakes.show(WakeRef(id=id_)).attempts[-1:] and wakes.show(WakeRef(id=id_)).wake.answer)
        shown = wakes.show(WakeRef(id=id_))
        assert shown.wake.state is WakeState.QUEUED and shown.wake.way is None
        assert shown.attempts[0].answer == GUARDED["says"] == wakes.gateways()[0].problem


async def test_the_node_is_told_of_all_its_places_and_of_changes(database: Database, tmp_path: Path) -> None:
    domain: list[str | None] = [None]
    gateways = [
        msgspec.structs.replace(gateway_at(place), name=f"g{number}")
        for number, place in enumerate(("assistant:18789", "[fd7a:115c:a1e0::7]", "192.168.1.7:1", "box.example:2"))
    ]
    (tmp_path / "places.json").write_text('["forgotten:22"]')
    wakes = service(tmp_path, database, *gateways, domain=lambda: domain[0])

    def told() -> Any:
        return json.loads((tmp_path / "places.json").read_text())

    async with running(wakes):
        await until(lambda: told() == ["[fd7a:115c:a1e0::7]:80", "assistant:18789"])
        domain[0] = "example"
        await wakes.test(TestWake())
        assert told() == ["[fd7a:115c:a1e0::7]:80", "assistant:18789", "box.example:2"]
