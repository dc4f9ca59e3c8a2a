"""Batches on the real tasks, over a world of workspaces and workers that outlives control planes."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import anyio
import msgspec
import pytest

from controlplane.batches.collecting import Collector
from controlplane.batches.driver import Driver
from controlplane.batches.service import BatchService
from controlplane.batches.store import Store
from controlplane.db import Database
from controlplane.errors import Conflict, NotFound, StepFailed, WorkerUnavailable
from controlplane.ports import ExecOutput, WorkerLink
from controlplane.tasks.dispatcher import Dispatcher
from controlplane.tasks.service import News, TaskService
from controlplane.tasks.store import Store as TaskStore
from protocol.batches import Batch, BatchEntry, BatchItem, BatchSummary, StartBatch
from protocol.tasks import ENDED, Commit, TaskAgent, TaskState
from protocol.worker import (
    CancelTask,
    Done,
    Event,
    Hello,
    ReadOutcome,
    ReadTaskLog,
    Request,
    Result,
    SnapshotEnd,
    StartTask,
    TaskLog,
    TaskOutcome,
    TaskSeen,
)
from protocol.workspaces import DeleteWorkspace, StartWorkspace, Workspace, WorkspaceStatus
from tests.unit.tasks.conftest import FakeWaker, workspace

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class World:
    """Workspaces with a worker in each. What a task comes to, its text says: ``fail``, ``wait``, ``sleep``, or it
    succeeds at once; a repository with ``none`` in its name cannot be cloned."""

    def __init__(self) -> None:
        self.there: dict[str, Workspace] = {}
        self.owners: dict[str, str | None] = {}
        """For which task each was made."""
        self.unsaved: set[str] = set()
        self.deleted: list[str] = []
        self.begun: list[str] = []
        """The texts of the tasks that began, each time."""
        self.most = 0
        """So many workspaces were there at once."""
        self.tasks: dict[str, dict[str, TaskSeen]] = {}
        self.texts: dict[str, str] = {}
        self.waker = FakeWaker()
        self.unreadable: set[str] = set()
        self.unknown: str | None = None
        self.patch = ExecOutput(exit_code=0, stdout=b"From 0123\n\xff", stderr=b"")
        self.log = TaskLog(text="log of it", offset=0, next=9, size=9)
        self.deaf = False
        """Nothing is ever read of a log."""
        self.dispatcher: Dispatcher | None = None
        self.commits: tuple[Commit, ...] = ()
        self.ran: list[list[str]] = []

    # --- workspaces

    async def list(self) -> list[Workspace]:
        return list(self.there.values())

    async def get(self, name: str) -> Workspace:
        if name not in self.there:
            raise NotFound(f"There is no workspace {name!r}.")
        return self.there[name]

    async def container(self, name: str) -> str:
        return f"workspace-{name}"

    def must_exist(self, name: str) -> None:
        if name not in self.there:
            raise NotFound(f"There is no workspace {name!r}.")

    def made_for(self, name: str) -> str | None:
        self.must_exist(name)
        return self.owners.get(name)

    def is_stopped(self, name: str) -> bool:
        return name in self.there and self.there[name].status is WorkspaceStatus.STOPPED

    async def create(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        if wanted.name in self.there:
            raise Conflict(f"A workspace named {wanted.name!r} exists already.")
        return await self.start(wanted, made_for=made_for)

    async def start(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        if wanted.name not in self.there:
            self.owners[wanted.name] = made_for
        await anyio.lowlevel.checkpoint()
        self.has(wanted.name)
        if wanted.clone is not None and "none" in wanted.clone:
            raise StepFailed(f"git could not clone {wanted.clone}: not found")
        return self.there[wanted.name]

    async def delete(self, wanted: DeleteWorkspace) -> None:
        await self.get(wanted.name)
        if wanted.name in self.unsaved and not wanted.force:
            raise Conflict(f"{wanted.name!r} has work that would be lost.")
        del self.there[wanted.name]
        self.owners.pop(wanted.name, None)
        self.tasks.pop(wanted.name, None)
        self.deleted.append(wanted.name)
        if self.dispatcher is not None:
            self.dispatcher.deleted(wanted.name)

    def has(self, name: str) -> None:
        if name not in self.there:
            self.there[name] = workspace(name)
            self.most = max(self.most, len(self.there))
        self.attach(name)

    def stops(self, name: str) -> None:
        self.there[name] = msgspec.structs.replace(self.there[name], status=WorkspaceStatus.STOPPED)
        if self.dispatcher is not None:
            self.dispatcher.detached(name)
            self.dispatcher.workspace_changed(self.there[name])

    # --- Docker

    async def exec(
        self, container: str, command: Sequence[str], *, user: str = "root", limit: int = 1 << 20
    ) -> ExecOutput:
        self.ran.append([*command])
        return self.patch

    # --- workers

    def serve(self) -> None:
        """A control plane dials them now."""
        for name, found in self.there.items():
            if found.status is WorkspaceStatus.RUNNING:
                self.attach(name)

    def attach(self, name: str) -> None:
        if self.dispatcher is None:
            return
        self.dispatcher.attached(name, FakeLink(self, name))
        for seen in self.tasks.get(name, {}).values():
            self.dispatcher.told(name, seen)
        self.dispatcher.told(name, SnapshotEnd(seq=1))

    def link(self, name: str) -> WorkerLink:
        if name not in self.there or name in self.unreadable:
            raise WorkerUnavailable(f"The worker of {name!r} is not there.")
        return FakeLink(self, name)

    def tell(self, name: str, id_: str, state: TaskState, reason: str | None = None) -> None:
        now = datetime.now(UTC)
        seen = TaskSeen(seq=1, id=id_, state=state, started=now, reason=reason, ended=now if state in ENDED else None)
        self.tasks.setdefault(name, {})[id_] = seen
        assert self.dispatcher is not None
        self.dispatcher.told(name, seen)

    def ends(self, name: str, state: TaskState = TaskState.SUCCEEDED) -> None:
        """What runs in a workspace comes to its end."""
        for id_, seen in self.tasks[name].items():
            if seen.state not in ENDED:
                self.tell(name, id_, state)


class FakeLink:
    """A worker of the world, as one control plane speaks to it."""

    def __init__(self, world: World, name: str) -> None:
        self.hello = Hello(version="1", protocol=1, epoch="e", seq=0, resumed=False)
        self._world = world
        self._name = name

    async def events(self) -> AsyncIterator[Event]:
        raise AssertionError("the fleet reads these, and the dispatcher does not")
        yield

    async def ask(self, request: Request) -> Result:
        await anyio.lowlevel.checkpoint()
        world, name = self._world, self._name
        if name not in world.there:
            raise WorkerUnavailable("The worker is gone.")
        match request:
            case StartTask(id=id_, text=text):
                if id_ not in world.tasks.get(name, {}):
                    world.begun.append(text)
                    world.texts[id_] = text
                    world.tell(name, id_, TaskState.RUNNING)
                    if text.startswith("fail"):
                        world.tell(name, id_, TaskState.FAILED, "It ended with 1.")
                    elif text.startswith("wait"):
                        world.tell(name, id_, TaskState.WAITING, "May it?")
                    elif not text.startswith("sleep"):
                        world.tell(name, id_, TaskState.SUCCEEDED)
            case CancelTask(id=id_):
                if world.tasks[name][id_].state not in ENDED:
                    world.tell(name, id_, TaskState.CANCELLED)
            case ReadOutcome(id=id_):
                said = f"Done with {world.texts.get(id_)}.\nReally."
                return TaskOutcome(last_message=said, commits=world.commits, unknown=world.unknown)
            case ReadTaskLog():
                if world.deaf:
                    await anyio.sleep_forever()
                return world.log
            case _:
                pass
        return Done()


class Killed(BaseException):
    """A control plane ends, without a word."""


class Plane:
    """A control plane over a state.db and a world."""

    def __init__(
        self, world: World, database: Database, folder: Path, checkpoint: Callable[[str], None], parallel: int
    ) -> None:
        self.world = world
        self.store = Store(database)
        self.announced: list[BatchSummary] = []
        news = News()
        task_store = TaskStore(database)
        self.dispatcher = Dispatcher(
            task_store,
            world,
            world.waker,
            news,
            parallel=parallel,
            per_workspace=5,
            announce=lambda task: self.driver.task_changed(task),
        )
        self.tasks = TaskService(task_store, world, world.link, self.dispatcher, news)
        collector = self.collector = Collector(folder, self.tasks, world, world)
        self.driver = Driver(
            self.store,
            self.tasks,
            world,
            collector,
            world.waker,
            announce=self.announced.append,
            checkpoint=checkpoint,
        )
        self.service = BatchService(self.store, self.driver, world, self.tasks, collector)
        world.dispatcher = self.dispatcher

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.dispatcher.run)
            tasks.start_soon(self.driver.run)
            await anyio.lowlevel.checkpoint()
            self.world.serve()
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def eventually(self, holds: Callable[[], bool]) -> None:
        """Until it holds; looks after each change of a batch."""
        with anyio.fail_after(30):
            while not holds():
                await self.driver.next_news().wait()

    async def settled(self, batch: Batch | str) -> Batch:
        id_ = batch if isinstance(batch, str) else batch.summary.id
        await self.eventually(lambda: (record := self.store.get(id_)) is not None and record.settled)
        return await self.service.get(id_)

    async def entries(self, batch: Batch) -> list[BatchEntry]:
        return (await self.service.get(batch.summary.id)).items


class Scene:
    """The world, and control planes on its one state.db."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.world = World()
        self.database = database
        self.tasks = TaskStore(database)
        self.folder = folder

    def plane(self, checkpoint: Callable[[str], None] = lambda name: None, *, parallel: int = 50) -> Plane:
        """Another one; the one before has ended. ``parallel`` tasks are at work at once, of all batches."""
        return Plane(self.world, self.database, self.folder, checkpoint, parallel)


def wanted(*items: str, **more: object) -> StartBatch:
    """A batch of tasks whose texts are its items."""
    given = {"name": "pr-{}", "task": "{}", "agent": TaskAgent.COMMAND} | more
    return StartBatch(items=[BatchItem(item=item) for item in items], **given)  # type: ignore[arg-type]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    database = Database.open(None)
    yield Scene(database, tmp_path / "batches")
    database.close()


@pytest.fixture
def plane(scene: Scene) -> Plane:
    return scene.plane()
