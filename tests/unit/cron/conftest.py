"""Cron on a state.db of its own, a clock that the test sets, and an assistant that notes what it is woken with."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from controlplane.cron.doers import doers
from controlplane.cron.scheduler import Scheduler
from controlplane.cron.service import Cron
from controlplane.cron.store import Store
from controlplane.db import Database
from controlplane.errors import PerryError
from controlplane.tasks.service import must_make_sense
from protocol.tasks import Checked, CheckTask, DispatchTask, Task, TaskState
from tests.unit.cron.clock import FakeClock
from tests.waiting import until


class Assistant:
    """Takes wakes as the outbox does: what has a known id is the same wake."""

    def __init__(self) -> None:
        self.wakes: dict[str, tuple[str, str]] = {}
        self.sessions: dict[str, str] = {}
        self.asked = 0
        self.refuses: Exception | None = None

    async def wake(
        self,
        text: str,
        *,
        mode: str = "now",
        session: str = "main",
        workspace: str | None = None,
        task: str | None = None,
        id: str | None = None,
    ) -> str:
        self.asked += 1
        if self.refuses is not None:
            raise self.refuses
        assert id is not None
        self.wakes.setdefault(id, (text, mode))
        self.sessions.setdefault(id, session)
        return id

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.wakes.values()]


class Looks:
    """Finds what the test says, or fails with it."""

    def __init__(self) -> None:
        self.finds: Checked | PerryError = Checked(conclusion="working", text="It works.", commands=[], quiet=0.0)
        self.asked: list[str | None] = []

    async def check(self, wanted: CheckTask) -> Checked:
        self.asked.append(wanted.workspace)
        if isinstance(self.finds, PerryError):
            raise self.finds
        return self.finds


class Tasks:
    """Takes tasks, each key once, which go on until the test says that they have ended."""

    def __init__(self) -> None:
        self.taken: dict[str, DispatchTask] = {}
        self.ended: set[str] = set()
        self.refuses: PerryError | None = None

    async def dispatch(self, wanted: DispatchTask) -> Task:
        if self.refuses is not None:
            raise self.refuses
        assert wanted.key is not None
        self.taken.setdefault(wanted.key, wanted)
        number = list(self.taken).index(wanted.key)
        return Task(
            id=f"t-{number:012}", workspace=wanted.workspace, agent=wanted.agent, state=TaskState.QUEUED,
            text=wanted.task, created=datetime.now(UTC), wake=wanted.wake, remove_when=wanted.remove_when,
        )  # fmt: skip

    def going_on(self, keys: str, *, but: str) -> str | None:
        return next((key for key in self.taken if key.startswith(keys) and key not in (but, *self.ended)), None)


class System:
    """All of cron on one file, as one run of a control plane has it."""

    def __init__(self, file: Path, clock: FakeClock, assistant: Assistant) -> None:
        self.database = Database.open(file)
        self.store = Store(self.database)
        self.clock = clock
        self.assistant = assistant
        self.looks, self.tasks = Looks(), Tasks()
        self.there = {"alpha"}
        self.scheduler = Scheduler(self.store, doers(assistant, self.looks, self.tasks), clock)
        self.cron = Cron(
            self.store, self.scheduler, clock, is_there=self.there.__contains__, must_make_sense=must_make_sense
        )

    async def settles(self) -> None:
        """Until everything that is due now has been done and noted."""
        self.scheduler.nudge()
        for _ in range(10):
            # It looks.
            await anyio.lowlevel.checkpoint()
        await until(lambda: not self._overdue() and not self.store.open(), "everything that is due is done")

    def _overdue(self) -> bool:
        due = self.store.next_due()
        return due is not None and due <= self.clock.now()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def assistant() -> Assistant:
    return Assistant()


@pytest.fixture
def idle(tmp_path: Path, clock: FakeClock, assistant: Assistant) -> Iterator[System]:
    """With a scheduler that does not run."""
    system = System(tmp_path / "state.db", clock, assistant)
    yield system
    system.database.close()


@pytest.fixture
async def system(idle: System, anyio_backend: str) -> AsyncIterator[System]:
    """With a scheduler that runs."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(idle.scheduler.run)
        await anyio.lowlevel.checkpoint()
        yield idle
        tasks.cancel_scope.cancel()


class NoWakes(PerryError):
    """Made up."""
