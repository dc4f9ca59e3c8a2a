"""Streams to the workers of all workspaces that run, and what one bad worker does to the others: nothing."""

import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup
from websockets.asyncio.server import ServerConnection

from controlplane.adapters import worker_ws
from controlplane.adapters.reading_pace import LEAST, ReadingPace
from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.errors import NotReady, WorkerUnavailable
from controlplane.workers import fleet as fleets
from controlplane.workers.fleet import Fleet
from controlplane.workers.pace import pause
from protocol.worker import ReadSession
from tests.unit.worker.shelf import SECRET, Served, Shelf
from tests.unit.workers.heard import ACCEPTED_TOO_LATE, Heard, at
from tests.unit.workers.hostile import HELLO, hostile, saying
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(ACCEPTED_TOO_LATE)]


class Case:
    def __init__(self, tasks: TaskGroup, folder: Path) -> None:
        self.folder = folder
        self.addresses: dict[str, str] = {}
        self.changed: list[str] = []
        self.secrets_put = 0
        self.secret = SECRET
        self.secret_cannot_be_put = False
        self.heard = Heard()
        self.shelf = Shelf()
        self.fleet = Fleet(
            WebSocketWorkers("1"),
            secret=lambda name: self.secret,
            address=at(self.addresses),
            renew_secret=self.renew,
            changed=self.changed.append,
        )
        self.fleet.register(self.heard)
        self.fleet.run_in(tasks)

    async def renew(self, workspace: str) -> None:
        self.secrets_put += 1
        if self.secret_cannot_be_put:
            raise NotReady("It does not run.")
        (self.folder / "secret").write_text(self.secret)

    def served(self, **fields: object) -> Served:
        return Served(self.folder, self.shelf, ring=100, **fields)  # type: ignore[arg-type]

    def error(self, name: str = "alpha") -> str | None:
        place = self.fleet.place(name)
        return place.error if place else None


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    async with anyio.create_task_group() as tasks:
        yield Case(tasks, tmp_path)
        tasks.cancel_scope.cancel()
    gc.collect()


async def test_one_that_runs_is_followed_asked_and_let_go(case: Case) -> None:
    case.shelf.put("a", "1")
    async with case.served(version="7").running() as address:
        case.fleet.follow("alpha", address)
        assert await case.fleet.wait("alpha", lambda place: place.link is not None, 20)
        await until(lambda: case.heard.marks == {"alpha": {"a": "1"}})
        await case.fleet.link("alpha").ask(ReadSession(agent="claude", session_id="a"))
        place = case.fleet.place("alpha")
        assert place is not None and place.version == "7" and case.changed == ["alpha"]
        case.fleet.follow("alpha")
        case.fleet.follow("alpha", address)
        case.fleet.detach("alpha")
        case.fleet.detach("alpha")
        assert case.heard.log == ["attached alpha", "detached alpha"]
        with pytest.raises(WorkerUnavailable, match="perry start alpha"):
            case.fleet.link("alpha")
        assert not await case.fleet.wait("alpha", lambda place: True, 20)


async def test_one_that_has_just_started_is_left_alone_for_a_while_unless_there_is_a_reason(case: Case) -> None:
    async with case.served().running() as address:
        case.fleet.follow("alpha", address, calm=60)
        await anyio.sleep(0.05)
        assert case.heard.log == []
        case.fleet.dial_now("alpha")
        await until(lambda: case.heard.log == ["attached alpha"])
        case.fleet.detach("alpha")
        case.fleet.follow("alpha", address, calm=0.01)
        await until(lambda: case.heard.log[1:] == ["detached alpha", "attached alpha"])


async def test_stopped_and_started_it_goes_on_where_it_was(case: Case) -> None:
    case.shelf.put("a", "1")
    async with case.served().running() as address:
        for resumed in (False, True):
            case.fleet.follow("alpha", address)
            await until(lambda: case.heard.marks == {"alpha": case.shelf.marks})
            assert case.heard.resumed[-1] is resumed
            case.fleet.detach("alpha")
            case.shelf.put("a", "2")
        case.fleet.forget("alpha")
        assert case.heard.log[-1] == "deleted alpha" and case.heard.marks == {}
        case.fleet.follow("alpha", address)
        await until(lambda: case.heard.marks == {"alpha": {"a": "2"}})
        assert case.heard.resumed[-1] is False


async def test_a_snapshot_that_broke_off_is_told_anew(case: Case) -> None:
    dials = 0

    async def break_off(connection: ServerConnection) -> None:
        nonlocal dials
        dials += 1
        await connection.send(HELLO)
        await connection.send('{"type":"session","seq":0,"agent":"claude","sessionId":"a","mark":"1","status":"idle"}')
        if dials < 3:
            connection.transport.abort()
        await connection.wait_closed()

    async with hostile(break_off) as address:
        case.fleet.follow("alpha", address)
        await until(lambda: dials >= 3 and len(case.heard.resumed) >= 3)
    assert case.heard.resumed == [False] * len(case.heard.resumed)


async def test_a_worker_with_another_secret_is_given_its_own(case: Case) -> None:
    served = case.served()
    (case.folder / "secret").write_text("lost")
    async with served.running() as address:
        case.fleet.follow("alpha", address)
        await until(lambda: case.heard.log)
    assert case.secrets_put == 1


async def test_one_that_never_takes_it_is_not_given_it_for_ever(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "pause", lambda failures: 0.001)
    case.secret_cannot_be_put = True
    served = case.served()
    (case.folder / "secret").write_text("lost")
    async with served.running() as address:
        case.fleet.follow("alpha", address)
        await until(lambda: case.secrets_put == fleets.SECRETS_GIVEN)
        await anyio.sleep(0.1)
        assert case.secrets_put == fleets.SECRETS_GIVEN
        assert "does not take" in str(case.error())
        with pytest.raises(WorkerUnavailable, match="does not take"):
            case.fleet.link("alpha")


async def test_one_that_breaks_the_rules_is_named_and_left_alone_for_a_while(case: Case) -> None:
    dials = 0

    async def rude(connection: ServerConnection) -> None:
        nonlocal dials
        dials += 1
        await saying(HELLO, "rubbish")(connection)

    async with hostile(rude) as address, case.served().running() as good:
        case.fleet.follow("beta", address)
        case.fleet.follow("alpha", good)
        await until(lambda: case.error("beta"))
        await until(lambda: case.heard.marks.get("alpha") is not None)
        await anyio.sleep(0.2)
        assert dials == 1 and "no frame" in str(case.error("beta"))
        assert case.heard.log.count("attached alpha") == 1


async def test_one_that_talks_too_much_is_read_slowly(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_ws, "ReadingPace", lambda now: ReadingPace(now, rate=50 << 10, burst=5 << 10))
    told = 0

    async def talk(connection: ServerConnection) -> None:
        nonlocal told
        await connection.send(HELLO)
        await connection.send('{"type":"snapshotEnd","seq":0}')
        while True:
            told += 1
            mark = "m" * 200
            await connection.send(
                f'{{"type":"session","seq":{told},"agent":"claude","sessionId":"a{told}","mark":"{mark}","status":"busy"}}'
            )

    async with hostile(talk) as address, case.served().running() as good:
        began = time.monotonic()
        case.fleet.follow("beta", address)
        case.fleet.follow("alpha", good)
        await anyio.sleep(0.5)
        case.shelf.put("a", "1")
        await until(lambda: case.heard.marks["alpha"] == {"a": "1"})
        # Each counts as 1 KiB: fifty a second, and five at first.
        assert 0 < len(case.heard.marks["beta"]) < 20 + 60 * (time.monotonic() - began)
        case.fleet.detach("beta")


async def test_one_that_floods_with_what_nobody_knows_is_read_slowly_too(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_ws, "ReadingPace", lambda now: ReadingPace(now, rate=10 << 20, burst=1 << 20))
    sent = 0

    async def flood(connection: ServerConnection) -> None:
        nonlocal sent
        await connection.send(HELLO)
        while True:
            sent += 1
            await connection.send('{"type":"weather","is":"' + "x" * (1 << 20) + '"}')

    async with hostile(flood) as address:
        case.fleet.follow("beta", address)
        await anyio.sleep(0.5)
        assert 0 < sent < 30
        case.fleet.detach("beta")


async def test_a_follower_that_fails_ends_nothing(case: Case) -> None:
    case.heard.raises = True
    case.shelf.put("a", "1")
    async with case.served().running() as address:
        case.fleet.follow("alpha", address)
        await until(lambda: case.heard.log)
        await until(lambda: (place := case.fleet.place("alpha")) is not None and place.after is not None)
        case.heard.raises = False
        case.shelf.put("b", "1")
        await until(lambda: case.heard.marks["alpha"] == {"b": "1"})
    assert case.heard.log[0] == "attached alpha"


async def test_a_pod_that_got_another_address_is_found(case: Case) -> None:
    async with case.served().running() as address:
        case.fleet.follow("alpha", "127.0.0.1:1")
        await anyio.sleep(0.05)
        case.addresses["alpha"] = address
        await until(lambda: case.heard.log)


def test_waiting_grows_and_has_a_bound() -> None:
    pauses = [pause(failures) for failures in range(100)]
    assert pauses == sorted(pauses) and pauses[0] == 0.05 and pauses[-1] == 10


def test_what_may_be_read_at_once_fills_up_again_and_no_further() -> None:
    pace = ReadingPace(0, rate=LEAST * 10, burst=LEAST * 3)
    assert [pace.take(0, 1) for _ in range(3)] == [0, 0, 0]
    assert pace.take(0, 1) == pytest.approx(0.1)
    assert pace.take(1000, LEAST) == 0
    assert [pace.take(1000, LEAST) > 0 for _ in range(3)] == [False, False, True]
    assert pace.take(2000, LEAST * 13) == pytest.approx(1)
