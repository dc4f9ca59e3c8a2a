"""The use cases on fakes: a pod whose sidecar joins, and whose workspace answers."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from controlplane.db import Database
from controlplane.errors import OutOfSpace
from controlplane.settings import Settings
from controlplane.wiring.workspaces import WorkspaceParts
from controlplane.workspaces.store import Store
from protocol.workspaces import Workspace
from tests.fakes.engine import FakeEngine
from tests.fakes.machine import FakeMachine
from tests.fakes.pods import IMAGES, FakePods
from tests.fakes.provisions import FakeProvisions
from tests.fakes.tailnet import FakeTailnet
from tests.fakes.worker_keeper import FakeWorkerKeeper


class Heard:
    """What was announced."""

    def __init__(self) -> None:
        self.changed: list[Workspace] = []
        self.deleted: list[str] = []

    def workspace_changed(self, workspace: Workspace) -> None:
        self.changed.append(workspace)

    def workspace_deleted(self, name: str) -> None:
        self.deleted.append(name)


class NoUploads:
    def __init__(self) -> None:
        self.files: dict[str, Path] = {}

    def path(self, upload_id: str) -> Path | None:
        return self.files.get(upload_id)

    def discard(self, upload_id: str) -> None:
        self.files.pop(upload_id, None)


class Agent:
    """A control plane without its HTTP side, on fakes. ``run`` is one life of the process."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self.engine = FakeEngine(IMAGES)
        self.machine = FakeMachine()
        self.tailnet = FakeTailnet()
        self.heard = Heard()
        self.uploads = NoUploads()
        self.provisions = FakeProvisions()
        self.worker_keeper = FakeWorkerKeeper()
        self.checkpoint: Callable[[str], None] = lambda name: None
        self.pods = FakePods(self.engine, self.tailnet)
        self.settings = Settings()
        self.sessions_kept: dict[str, bool] | None = {}
        """What is to become of them; None where that cannot be written."""
        self._opened: list[Database] = []

    async def keep_sessions(self, workspace: str, keep: bool) -> None:
        if self.sessions_kept is None:
            raise OutOfSpace("No space is left.")
        self.sessions_kept[workspace] = keep

    def close(self) -> None:
        """After the last life."""
        for database in self._opened:
            database.close()

    def build(self) -> None:
        self._opened.append(Database.open(self.database))
        self.store = Store(self._opened[-1], self.tailnet.identity)
        parts = WorkspaceParts(
            self.settings,
            self.store,
            engine=self.engine,
            tailnet=self.tailnet,
            machine=self.machine,
            uploads=self.uploads,
            workers=self.worker_keeper,
            provisions=self.provisions,
            announcer=self.heard,
            keep_sessions=self.keep_sessions,
            door_password=lambda name: f"of {name}",
            checkpoint=lambda name: self.checkpoint(name),
        )
        self.jobs, self.sidecars = parts.jobs, parts.sidecars
        self.nodes, self.leftovers = parts.nodes, parts.leftovers
        self.workspaces, self.reconciler = parts.service, parts.reconciler

    async def settle(self) -> None:
        """Let the reconciler look, and all jobs end."""
        await self.reconciler.once()
        for record in self.store.all():
            if (job := self.jobs.get(record.name)) is not None:
                await job.done.wait()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Agent]:
    """A control plane that a test builds and runs by itself, as often as it likes."""
    it = Agent(tmp_path / "state.db")
    yield it
    it.close()


@pytest.fixture
async def agent(lives: Agent) -> AsyncIterator[Agent]:
    """One that runs."""
    lives.build()
    async with anyio.create_task_group() as tasks:
        lives.jobs.run_in(tasks)
        lives.sidecars.run_in(tasks)
        yield lives
        tasks.cancel_scope.cancel()
