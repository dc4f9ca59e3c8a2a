"""Tasks on fakes: workspaces, a worker in each, and whoever is woken."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import anyio
import msgspec
import pytest

from controlplane.db import Database
from controlplane.errors import Conflict, NotFound, WorkerError, WorkerUnavailable
from controlplane.ports import WorkerLink
from controlplane.tasks.dispatcher import Dispatcher
from controlplane.tasks.service import News, TaskService
from controlplane.tasks.store import Store
from protocol.tasks import DispatchTask, Task, TaskState
from protocol.worker import (
    CancelTask,
    Done,
    Event,
    ForgetTask,
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
from protocol.workspaces import (
    DeleteWorkspace,
    Limits,
    StartWorkspace,
    TailnetState,
    Workspace,
    WorkspacePorts,
    WorkspaceStatus,
    WorkspaceTailnet,
)


def workspace(
    name: str, status: WorkspaceStatus = WorkspaceStatus.RUNNING, *, created: str = "2020-01-01T00:00:00Z"
) -> Workspace:
    return Workspace(
        name=name,
        status=status,
        created=created,
        ports=WorkspacePorts(ssh=22001),
        image="image",
        docker=False,
        limits=Limits(cpus=1, memory=1 << 30, pids=100),
        tailnet=WorkspaceTailnet(status=TailnetState.NONE, hostname=name, ips=[]),
        ssh_host_keys=[],
    )


class FakeWorkspaces:
    """Workspaces that are there at once. ``unsaved`` ones are not deleted without force; ``stopped`` ones somebody has
    stopped."""

    def __init__(self) -> None:
        self.stopped: set[str] = set()
        self.tasks: dict[str, str | None] = {}
        """For which task each was made."""
        self.there: dict[str, Workspace] = {}
        self.unsaved: set[str] = set()
        self.started: list[StartWorkspace] = []
        self.workers: Workers | None = None

    async def get(self, name: str) -> Workspace:
        if name not in self.there:
            raise NotFound(f"There is no workspace {name!r}.")
        return self.there[name]

    def must_exist(self, name: str) -> None:
        if name not in self.there:
            raise NotFound(f"There is no workspace {name!r}.")

    def made_for(self, name: str) -> str | None:
        self.must_exist(name)
        return self.tasks.get(name)

    def is_stopped(self, name: str) -> bool:
        return name in self.stopped

    async def create(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        if wanted.name in self.there:
            raise Conflict(f"A workspace named {wanted.name!r} exists already.")
        return await self.start(wanted, made_for=made_for)

    async def start(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        await anyio.lowlevel.checkpoint()
        self.started.append(wanted)
        self.stopped.discard(wanted.name)
        if wanted.name not in self.there:
            self.tasks[wanted.name] = made_for
        self.there[wanted.name] = msgspec.structs.replace(workspace(wanted.name), repo=wanted.clone)
        if self.workers is not None:
            self.workers.attach(wanted.name)
        return self.there[wanted.name]

    async def delete(self, wanted: DeleteWorkspace) -> None:
        if wanted.name in self.unsaved and not wanted.force:
            raise Conflict(f"{wanted.name!r} has work that would be lost.")
        del self.there[wanted.name]
        assert self.workers is not None
        self.workers.dispatcher.deleted(wanted.name)


class FakeLink:
    """A worker that begins what it is asked to, and ends it when the test says so."""

    def __init__(self, workspace: str, dispatcher: Dispatcher, hello: Hello) -> None:
        self.workspace = workspace
        self.hello = hello
        self.asked: list[Request] = []
        self.gone = False
        self.deaf = False
        self.refuse: str | None = None
        self.outcome = TaskOutcome(last_message="All 12 tests pass.")
        self._dispatcher = dispatcher
        self._seq = 0

    def begun(self) -> list[StartTask]:
        return [request for request in self.asked if isinstance(request, StartTask)]

    def forgotten(self) -> list[str]:
        return [request.id for request in self.asked if isinstance(request, ForgetTask)]

    async def events(self) -> AsyncIterator[Event]:
        raise AssertionError("the fleet reads these, and the dispatcher does not")
        yield

    async def ask(self, request: Request) -> Result:
        await anyio.lowlevel.checkpoint()
        if self.gone:
            raise WorkerUnavailable("The worker is gone.")
        if self.deaf:
            await anyio.sleep_forever()
        self.asked.append(request)
        match request:
            case StartTask():
                if self.refuse is not None:
                    raise WorkerError(self.refuse)
            case CancelTask(id=id_):
                self.tell(id_, TaskState.CANCELLED)
            case ReadOutcome():
                return self.outcome
            case ReadTaskLog():
                return TaskLog(text="hello", offset=0, next=5, size=5)
            case _:
                pass
        return Done()

    def tell(self, id_: str, state: TaskState, *, reason: str | None = None, exit_code: int | None = None) -> None:
        self._seq += 1
        seen = TaskSeen(
            seq=self._seq, id=id_, state=state, started=datetime.now(UTC), reason=reason, exit_code=exit_code
        )
        self._dispatcher.told(self.workspace, seen)

    def end_snapshot(self) -> None:
        self._dispatcher.told(self.workspace, SnapshotEnd(seq=self._seq))


class Workers:
    """The workers that are followed now."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.links: dict[str, FakeLink] = {}

    def attach(self, name: str, *, resumed: bool = False) -> FakeLink:
        hello = Hello(version="1", protocol=1, epoch="e", seq=0, resumed=resumed)
        link = self.links[name] = FakeLink(name, self.dispatcher, hello)
        self.dispatcher.attached(name, link)
        return link

    def detach(self, name: str) -> None:
        self.links.pop(name).gone = True
        self.dispatcher.detached(name)

    def link(self, name: str) -> WorkerLink:
        if name not in self.links:
            raise WorkerUnavailable(f"The worker of {name!r} is not there.")
        return self.links[name]


class FakeWaker:
    """Remembers who was woken with what, once for each id."""

    def __init__(self) -> None:
        self.wakes: dict[str, str] = {}
        self.fails = 0

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
        await anyio.lowlevel.checkpoint()
        if self.fails:
            self.fails -= 1
            raise Conflict("not now")
        assert id is not None
        self.wakes.setdefault(id, text)
        return id


class Scene:
    """All of it, over a state.db that outlives control planes."""

    def __init__(self, database: Database, *, parallel: int = 50, per_workspace: int = 5) -> None:
        self.store = Store(database)
        self.workspaces = FakeWorkspaces()
        self.waker = FakeWaker()
        self.announced: list[Task] = []
        news = self.news = News()
        self.dispatcher = Dispatcher(
            self.store,
            self.workspaces,
            self.waker,
            news,
            parallel=parallel,
            per_workspace=per_workspace,
            announce=self.announced.append,
        )
        self.workers = Workers(self.dispatcher)
        self.workspaces.workers = self.workers
        self.service = TaskService(self.store, self.workspaces, self.workers.link, self.dispatcher, news)

    def has(self, name: str, status: WorkspaceStatus = WorkspaceStatus.RUNNING) -> FakeLink | None:
        self.workspaces.there[name] = workspace(name, status)
        return self.workers.attach(name) if status is WorkspaceStatus.RUNNING else None

    def running(self, name: str) -> FakeLink:
        link = self.has(name)
        assert link is not None
        return link

    async def dispatch(self, name: str = "alpha", **more: object) -> Task:
        return await self.service.dispatch(DispatchTask(workspace=name, task="Fix it", **more))  # type: ignore[arg-type]

    async def eventually(self, holds: Callable[[], bool]) -> None:
        """Until it holds; looks after each change of a task."""
        with anyio.fail_after(20):
            while not holds():
                await self.news.next().wait()

    async def until(self, id_: str, *states: TaskState) -> Task:
        await self.eventually(lambda: (record := self.store.get(id_)) is not None and record.state in states)
        return await self.service.get(id_)

    async def settled(self, id_: str) -> Task:
        await self.eventually(lambda: (record := self.store.get(id_)) is not None and record.settled)
        return await self.service.get(id_)

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.dispatcher.run)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()


@pytest.fixture
def database() -> Database:
    return Database.open(None)


@pytest.fixture(autouse=True)
def _close(database: Database) -> object:
    yield
    database.close()


@pytest.fixture
def scene(database: Database) -> Scene:
    return Scene(database)
