"""Whatever happens in between, what is kept ends as what the worker has: nothing lost, nothing twice."""

import tempfile
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.errors import WorkerError
from protocol.sessions import SessionStatus
from tests.fakes.worker import FakeWorker, message
from tests.unit.sessions.conftest import Index

SESSIONS = st.integers(0, 2)
EVENTS = ["hang up", "restart worker", "restart us", "cannot read", "can read", "wait", "yield"]
WHAT: st.SearchStrategy[tuple[str, int, list[int]]] = st.one_of(
    st.tuples(st.just("write"), SESSIONS, st.lists(st.integers(0, 12), min_size=1, max_size=5)),
    st.tuples(st.just("rewrite"), SESSIONS, st.lists(st.integers(0, 12), max_size=5)),
    st.tuples(st.just("remove"), SESSIONS, st.just([])),
    st.tuples(st.just("busy"), SESSIONS, st.just([])),
    st.tuples(st.sampled_from(EVENTS), st.just(0), st.just([])),
)


class Fleet:
    """Keeps a stream, and goes on where it stopped, as :mod:`controlplane.workers.fleet` does."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.epoch: str | None = None
        self.after: int | None = None

    async def keep(self) -> None:
        while True:
            worker = self.index.workers["alpha"]
            link = worker.open(self.epoch, self.after)
            whole = link.hello.resumed
            if not whole:
                self.epoch = self.after = None
            self.index.follower.attached("alpha", link)
            try:
                async for event in link.events():
                    self.index.follower.told("alpha", event)
                    whole = whole or type(event).__name__ == "SnapshotEnd"
                    if whole:
                        self.epoch, self.after = link.hello.epoch, event.seq
            except WorkerError:
                pass
            finally:
                worker.close(link)
                self.index.follower.detached("alpha")


def act(worker: FakeWorker, what: str, number: int, ordinals: list[int], step: int) -> None:
    name = f"s{number}"
    there = ("claude", name) in worker.sessions
    written = [message(ordinal, f"step{step} of {ordinal}") for ordinal in ordinals]
    if what == "write":
        worker.write(name, *written)
    elif what == "rewrite" and there:
        worker.rewrite(name, *written)
    elif what == "remove" and there:
        worker.remove(name)
    elif what == "busy" and there:
        worker.set_status(name, SessionStatus.BUSY if step % 2 else SessionStatus.IDLE)
    elif what == "cannot read":
        # As it is when a worker has begun, and a store is locked.
        worker.unreadable.add("claude")
        worker.restart()
    elif what == "can read" and worker.unreadable:
        worker.can_read("claude")
    elif what == "hang up":
        worker.hang_up()
    elif what == "restart worker":
        worker.restart()


async def live(folder: Path, steps: list[tuple[str, int, list[int]]]) -> None:
    worker = FakeWorker(page=2)
    todo = list(enumerate(steps))
    while True:
        index = Index(folder)
        index.workers["alpha"] = worker
        async with index.running(), anyio.create_task_group() as tasks:
            tasks.start_soon(Fleet(index).keep)
            while todo:
                step, (what, number, ordinals) = todo.pop(0)
                if what == "restart us":
                    break
                act(worker, what, number, ordinals, step)
                if what == "wait":
                    await anyio.sleep(0.01)
                elif what == "yield":
                    await anyio.lowlevel.checkpoint()
            else:
                if worker.unreadable:
                    worker.can_read("claude")
                await index.settled()
                for (_, session_id), session in worker.sessions.items():
                    assert await index.messages(session_id) == session.truth()
                searched = await index.found("of", limit=100)
                truth = [(id, told.ordinal) for (_, id), each in worker.sessions.items() for told in each.truth()]
                assert sorted(searched) == sorted(truth)
                counts = {info.session_id: info.message_count for info in await index.all()}
                assert counts == {id: len(each.truth()) for (_, id), each in worker.sessions.items()}
                tasks.cancel_scope.cancel()
                return
            tasks.cancel_scope.cancel()


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(WHAT, max_size=14))
def test_it_ends_with_the_workers_truth(steps: list[tuple[str, int, list[int]]]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr("controlplane.sessions.follower.SETTLED_SECONDS", 0.0)
        patch.setattr("controlplane.sessions.pulling.PACE", 0.001)
        anyio.run(live, Path(folder), steps)
