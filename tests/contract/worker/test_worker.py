"""One contract for a real worker's process, dialled as in life, and for the fake that other tests have in its place."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.errors import WorkerError, WorkerRefusesSecret, WorkerUnavailable
from controlplane.ports import WorkerLink, Workers
from protocol.tasks import ENDED, TaskState
from protocol.worker import (
    CancelTask,
    DeleteInStore,
    Done,
    Event,
    ForgetTask,
    LookAtTask,
    Page,
    Pages,
    ReadOutcome,
    ReadSession,
    ReadSessions,
    ReadStatus,
    ReadTaskLog,
    Refused,
    SessionGone,
    SessionSeen,
    SnapshotEnd,
    StartTask,
    TaskLog,
    TaskLook,
    TaskOutcome,
    TaskSeen,
    Unread,
    WorkerStatus,
)
from tests.fakes.tasks import GOES_ON
from tests.fakes.worker import FakeWorker, FakeWorkers, message
from tests.integration.worker.process import SECRET, WorkerProcess

pytestmark = pytest.mark.anyio


class Bench(ABC):
    """A worker, and the coding agent beside it."""

    workers: Workers
    address = "alpha"
    secret = SECRET

    def dial(self, **fields: object) -> AbstractAsyncContextManager[WorkerLink]:
        return self.workers.dial(self.address, self.secret, **fields)  # type: ignore[arg-type]

    @abstractmethod
    def write(self, session_id: str) -> None: ...

    @abstractmethod
    async def kill(self) -> None: ...

    @abstractmethod
    async def start(self) -> None: ...


class Real(Bench):
    def __init__(self, folder: Path) -> None:
        self.workers = WebSocketWorkers("1")
        self.process = WorkerProcess(folder)
        self.process.start()
        self.address = self.process.address

    def write(self, session_id: str) -> None:
        self.process.write(session_id)

    async def kill(self) -> None:
        await anyio.to_thread.run_sync(self.process.end, 9)

    async def start(self) -> None:
        await anyio.to_thread.run_sync(self.process.start)


class Fake(Bench):
    def __init__(self) -> None:
        fakes = FakeWorkers()
        self.workers = fakes
        self.worker = fakes.workers[self.address] = FakeWorker(SECRET)

    def write(self, session_id: str) -> None:
        session = self.worker.sessions.get(("claude", session_id))
        self.worker.write(session_id, message(len(session.written) if session else 0, "words"))

    async def kill(self) -> None:
        self.worker.away = True
        self.worker.restart()

    async def start(self) -> None:
        self.worker.away = False


@pytest.fixture(params=["fake", "real"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "fake":
        yield Fake()
        return
    real = Real(tmp_path)
    try:
        yield real
    finally:
        real.process.close()


async def snapshot(events: AsyncIterator[Event]) -> dict[str, SessionSeen]:
    found: dict[str, SessionSeen] = {}
    with anyio.fail_after(20):
        async for event in events:
            if isinstance(event, SnapshotEnd):
                return found
            assert isinstance(event, SessionSeen)
            found[event.session_id] = event
    raise AssertionError("the events ended")


async def of(events: AsyncIterator[Event], kind: type[Event]) -> Event:
    with anyio.fail_after(20):
        while not isinstance(event := await anext(events), kind):
            pass
    return event


async def test_all_that_stands_then_what_changes(bench: Bench) -> None:
    bench.write("a")
    async with bench.dial() as link:
        events = link.events()
        assert link.hello.resumed is False and link.hello.epoch
        before = await snapshot(events)
        while "a" not in before:  # A file that is new is looked at in a moment.
            told = await of(events, SessionSeen)
            assert isinstance(told, SessionSeen)
            before[told.session_id] = told
        bench.write("a")
        after = await of(events, SessionSeen)
        assert isinstance(after, SessionSeen) and after.session_id == "a" and after.mark != before["a"].mark
        assert after.last_activity is not None and after.last_activity.tzinfo is not None


async def test_it_goes_on_where_it_was_and_after_its_death_begins_anew(bench: Bench) -> None:
    async with bench.dial() as link:
        epoch = link.hello.epoch
        events = link.events()
        await snapshot(events)
        bench.write("a")
        after = (await of(events, SessionSeen)).seq
    bench.write("b")
    async with bench.dial(epoch=epoch, after=after) as link:
        assert link.hello.resumed and link.hello.epoch == epoch
        events = link.events()
        while (told := await of(events, SessionSeen)).session_id != "b":  # type: ignore[union-attr]
            assert told.seq > after
    await bench.kill()
    with pytest.raises(WorkerUnavailable):
        async with bench.dial(epoch=epoch, after=after):
            pass
    await bench.start()
    async with bench.dial(epoch=epoch, after=after) as link:
        assert not link.hello.resumed and link.hello.epoch != epoch
        assert (await snapshot(link.events())).keys() == {"a", "b"}


async def test_a_stream_that_breaks_says_so_to_all_who_wait(bench: Bench) -> None:
    async with bench.dial() as link:
        events = link.events()
        await snapshot(events)
        await bench.kill()
        with anyio.fail_after(20), pytest.raises(WorkerUnavailable):
            async for _ in events:
                pass
        with pytest.raises(WorkerUnavailable):
            await link.ask(ReadStatus())


async def test_sessions_are_read_page_by_page_and_deleted(bench: Bench) -> None:
    async with bench.dial() as link:
        events = link.events()
        await snapshot(events)
        for _ in range(2):
            bench.write("a")
            await of(events, SessionSeen)
        whole = await link.ask(ReadSession(agent="claude", session_id="a"))
        assert isinstance(whole, Page) and whole.messages and not whole.more and not whole.reset
        assert [each.ordinal for each in whole.messages] == list(range(len(whole.messages)))
        bench.write("a")
        rest = await link.ask(ReadSession(agent="claude", session_id="a", cursor=whole.cursor))
        assert isinstance(rest, Page) and not rest.reset
        with pytest.raises(WorkerError, match="nosuch") as caught:
            await link.ask(ReadSession(agent="claude", session_id="nosuch"))
        assert not isinstance(caught.value, WorkerUnavailable)
        assert isinstance(await link.ask(DeleteInStore(agent="claude", session_id="a")), Done)
        gone = await of(events, SessionGone)
        assert isinstance(gone, SessionGone) and gone.session_id == "a"
        status = await link.ask(ReadStatus())
        assert isinstance(status, WorkerStatus) and status.version


async def test_several_sessions_are_read_at_once(bench: Bench) -> None:
    async with bench.dial() as link:
        events = link.events()
        await snapshot(events)
        wanted = [Unread(agent="claude", session_id=id_) for id_ in ("a", "nosuch", "b")]
        for id_ in ("a", "b"):
            bench.write(id_)
            await of(events, SessionSeen)
        answers: list[Page | Refused] = []
        while len(answers) < len(wanted):
            answer = await link.ask(ReadSessions(sessions=wanted[len(answers) :]))
            assert isinstance(answer, Pages) and answer.pages
            answers += answer.pages
        first, missing, last = answers
        assert isinstance(missing, Refused) and missing.code == "missing"
        for id_, page in (("a", first), ("b", last)):
            assert isinstance(page, Page) and page == await link.ask(ReadSession(agent="claude", session_id=id_))


async def test_without_the_secret_it_says_nothing(bench: Bench) -> None:
    bench.secret = "another"
    with pytest.raises(WorkerRefusesSecret):
        async with bench.dial():
            pass


async def state_of(events: AsyncIterator[Event], id_: str, *states: TaskState) -> TaskSeen:
    while True:
        seen = await of(events, TaskSeen)
        if isinstance(seen, TaskSeen) and seen.id == id_ and seen.state in states:
            return seen


async def test_a_task_begins_once_and_its_end_is_told(bench: Bench) -> None:
    begin = StartTask(id="t-000000000001", agent="command", text="echo hello")
    async with bench.dial() as link:
        events = link.events()
        for _ in range(2):
            assert await link.ask(begin) == Done()
        seen = await state_of(events, begin.id, *ENDED)
        assert (seen.state, seen.exit_code) == (TaskState.SUCCEEDED, 0)
        assert seen.last_message and "hello" in seen.last_message
        log = await link.ask(ReadTaskLog(id=begin.id, offset=0, limit=1000))
        assert isinstance(log, TaskLog) and "hello" in log.text and log.next == log.size == len(log.text)
        end = await link.ask(ReadTaskLog(id=begin.id, offset=-2, limit=1000))
        assert isinstance(end, TaskLog) and end.text == log.text[-2:]
        outcome = await link.ask(ReadOutcome(id=begin.id))
        assert isinstance(outcome, TaskOutcome) and outcome.last_message == seen.last_message
    async with bench.dial() as link:
        # Who comes anew is told of it, until nobody needs that any more.
        assert (await state_of(link.events(), begin.id, *ENDED)).state is TaskState.SUCCEEDED
        assert await link.ask(ForgetTask(id=begin.id)) == Done()
    async with bench.dial() as link:
        events = link.events()
        with anyio.fail_after(20):
            while not isinstance(event := await anext(events), SnapshotEnd):
                assert not isinstance(event, TaskSeen)


async def test_a_task_that_goes_on_is_looked_at_and_cancelled(bench: Bench) -> None:
    # The real one's shell takes what the fake goes by for a remark.
    begin = StartTask(id="t-000000000002", agent="command", text=f"sleep 600 #{GOES_ON}")
    async with bench.dial() as link:
        events = link.events()
        await link.ask(begin)
        await state_of(events, begin.id, TaskState.RUNNING)
        with anyio.fail_after(20):
            # Its process comes in a moment.
            while True:
                look = await link.ask(LookAtTask(id=begin.id))
                assert isinstance(look, TaskLook)
                if look.processes:
                    break
                await anyio.sleep(0.05)
        assert await link.ask(CancelTask(id=begin.id)) == Done()
        assert (await state_of(events, begin.id, *ENDED)).state is TaskState.CANCELLED
        for request in (CancelTask(id="t-000000000009"), LookAtTask(id="t-000000000009")):
            with pytest.raises(WorkerError):
                await link.ask(request)
