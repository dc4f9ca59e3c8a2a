"""The use cases on fakes: a pod whose sidecar joins, and whose workspace answers."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import anyio
import pytest

from controlplane.db import Database
from controlplane.errors import OutOfSpace
from controlplane.settings import Settings
from controlplane.workspaces.checkout import Checkout
from controlplane.workspaces.cloning import Cloner
from controlplane.workspaces.host_rules import HostRules
from controlplane.workspaces.jobs import Jobs
from controlplane.workspaces.keys import Keys
from controlplane.workspaces.pods import Pods
from controlplane.workspaces.reconciler import Reconciler
from controlplane.workspaces.service import Workspaces
from controlplane.workspaces.sidecars import Sidecars
from controlplane.workspaces.spec import PodSettings
from controlplane.workspaces.startup import Starter
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
        store = Store(self._opened[-1], self.tailnet.identity)
        pods = Pods(
            self.engine,
            self.machine,
            instance=self.settings.instance,
            prefix=self.settings.workspace_prefix,
            files=self.worker_keeper.files,
            door_password=lambda name: f"of {name}",
            checkpoint=lambda name: self.checkpoint(name),
        )
        sidecars = Sidecars(self.engine, lambda name: workspaces.changed(name))
        jobs = Jobs()
        checkout = Checkout(self.engine, self.uploads)
        keys = Keys(self.tailnet, store, lambda name: self.checkpoint(name))
        starter = Starter(
            engine=self.engine,
            tailnet=self.tailnet,
            machine=self.machine,
            store=store,
            pods=pods,
            sidecars=sidecars,
            checkout=checkout,
            cloner=Cloner(
                engine=self.engine,
                store=store,
                pods=pods,
                jobs=jobs,
                instance=self.settings.instance,
                checkpoint=lambda name: self.checkpoint(name),
            ),
            keys=keys,
            provisions=self.provisions,
            workers=self.worker_keeper,
            pod_settings=self.pod_settings,
            settings=self.settings,
            ssh_address="127.0.0.1",
            look=lambda: workspaces.look(),
            changed=lambda name: workspaces.changed(name),
            checkpoint=lambda name: self.checkpoint(name),
        )
        workspaces = Workspaces(
            settings=self.settings,
            engine=self.engine,
            tailnet=self.tailnet,
            machine=self.machine,
            store=store,
            pods=pods,
            followed=sidecars,
            checkout=checkout,
            starter=starter,
            workers=self.worker_keeper,
            announcer=self.heard,
            jobs=jobs,
            keep_sessions=self.keep_sessions,
            checkpoint=lambda name: self.checkpoint(name),
        )
        self.store, self.jobs, self.sidecars, self.workspaces = store, jobs, sidecars, workspaces
        self.reconciler = Reconciler(
            engine=self.engine,
            tailnet=self.tailnet,
            store=store,
            pods=pods,
            followed=sidecars,
            jobs=jobs,
            keys=keys,
            host_rules=HostRules(self.engine, self.tailnet, instance=self.settings.instance, image=IMAGES[0]),
            workspaces=workspaces,
            instance=self.settings.instance,
        )

    async def pod_settings(self) -> PodSettings:
        return PodSettings(
            instance=self.settings.instance,
            prefix=self.settings.workspace_prefix,
            sidecar_image="perry/sidecar:latest",
            ssh_bind="127.0.0.1",
            dns=("192.0.2.53",),
            joins=self.tailnet.joins,
            tailnet=self.tailnet.identity,
            control_url="http://192.0.2.1:7390",
            owners=("owner",),
            refused_addresses=(),
        )

    async def settle(self) -> None:
        """Let the reconciler look, and all jobs end."""
        await self.reconciler.once()
        for record in self.store.all():
            if (job := self.jobs.get(record.name)) is not None:
                await job.done.wait()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
