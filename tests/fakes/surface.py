"""The control plane's HTTP side on a fake service: for tests of what stands in front, and of its clients."""

import contextlib
import sqlite3
import weakref
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import anyio

from controlplane.app import Services, create_app, listener
from controlplane.asgi import App
from controlplane.auth.service import Resolver, TcpResolver, Tokens
from controlplane.commands.service import Commands
from controlplane.credentials.service import Credentials
from controlplane.credentials.store import Secrets
from controlplane.db import Database
from controlplane.errors import WorkerUnavailable
from controlplane.events.bus import Bus
from controlplane.logs.service import Logs
from controlplane.ports import ContainerSpec, WorkerLink
from controlplane.sessions.changes import Changes
from controlplane.sessions.database import SessionsDatabase
from controlplane.sessions.follower import Follower
from controlplane.sessions.service import Sessions
from controlplane.settings import load
from controlplane.system.metrics import Metrics
from controlplane.system.readiness import Probe
from controlplane.system.requests import Requests
from controlplane.system.server import listen, serve
from controlplane.system.service import Agent
from controlplane.tailnet.service import TailnetService
from controlplane.wake.service import Outgoing, WakeService
from controlplane.wiring.work import WorkParts
from controlplane.workspaces.pods import no_checkpoint
from controlplane.workspaces.uploads import UploadFolder
from tests.fakes.engine import FakeEngine
from tests.fakes.processes import FakeProcesses
from tests.fakes.tailnet import FakeTailnet
from tests.fakes.worker_keeper import FakeWorkerKeeper
from tests.fakes.workspaces import FakeWorkspaces, workspace

IMAGE = "surface:1"
TOKEN = "test-token-0123456789-abcdefghijklmnopqrstu"


def outgoing(folder: Path) -> Outgoing:
    """Gateways are reached from this machine, and there is no tailnet."""
    return Outgoing(
        on_tailnet=False,
        domain=lambda: None,
        forward=folder / "forward.sock",
        places=folder / "places.json",
        own_port=7000,
        own_addresses=lambda: (),
    )


def _no_worker(name: str) -> WorkerLink:
    raise WorkerUnavailable(f"The worker of {name!r} is not there.")


class Surface:
    """All of it; ``app`` is what a TCP listener serves. ``stop`` is set by ``agent.kill``."""

    def __init__(
        self, folder: Path, *, kept: int = 512, allowed_hosts: tuple[str, ...] = (), state: Path | None = None
    ) -> None:
        self.bus = Bus(kept=kept)
        self.workspaces = FakeWorkspaces(self.bus)
        self.stop = anyio.Event()
        self.metrics = Metrics()
        self.requests = Requests(self.metrics)
        self.probes: dict[str, Probe] = {}
        self.uploads = UploadFolder(folder / "uploads", limit=3 << 20)
        self.secrets = Secrets(folder / "secrets")
        self.tokens = Tokens(TOKEN)
        self.engine = FakeEngine([IMAGE])
        self.engine.processes = FakeProcesses(folder)
        self.workspaces.engine = self.engine
        database = Database.open(state)
        weakref.finalize(self, _close, database)
        loaded = load(folder, {"PERRY_PORT": "7000"})
        self.hooks = loaded.settings.hooks
        self.sessions_database = sessions_database = SessionsDatabase(folder / "sessions.db")
        weakref.finalize(self, _close, sessions_database)
        self.session_changes = Changes()
        self.session_follower = Follower(sessions_database, self.session_changes, created=lambda name: "")
        wakes = WakeService(database, self.hooks, folder, outgoing(folder))
        sessions = Sessions(sessions_database, self.session_changes, self.session_follower, self._exists)
        work = WorkParts(
            database,
            loaded.settings,
            folder / "batches",
            workspaces=self.workspaces,
            is_there=self._exists,
            link=_no_worker,
            sessions=sessions,
            engine=self.engine,
            waker=wakes,
            bus=self.bus,
            checkpoint=no_checkpoint,
        )
        self.services = Services(
            loaded=loaded,
            workspaces=self.workspaces,
            agent=Agent(
                count=lambda: len(self.workspaces.last_seen()),
                docker_version=self._docker_version,
                tailnet_provider="none",
                stop=self.stop.set,
            ),
            tailnet=TailnetService(FakeTailnet(), (), dict),
            bus=self.bus,
            credentials=Credentials(
                self.engine,
                secrets=self.secrets,
                home=folder,
                settings=lambda: load(folder, {}).settings,
                workspaces=lambda: self.workspaces,
                workers=FakeWorkerKeeper(),
            ),
            secrets=self.secrets,
            sessions=sessions,
            session_changes=self.session_changes,
            fallback=work.fallback,
            tasks=work.tasks,
            batches=work.batches,
            wakes=wakes,
            cron=work.cron,
            commands=Commands(self.engine, self.workspaces),
            logs=Logs(self.engine, self.workspaces),
            uploads=self.uploads,
            tokens=self.tokens,
            metrics=self.metrics,
            probes=self.probes,
        )
        self.litestar = create_app(self.services)
        self.allowed_hosts = allowed_hosts
        self.app = self.listener(TcpResolver(self.tokens))

    def _exists(self, name: str) -> bool:
        return any(each.name == name for each in self.workspaces.last_seen())

    async def _docker_version(self) -> str | None:
        return "20.10.24"

    async def running(self, name: str) -> None:
        """A workspace with a container, in which commands are processes of this machine."""
        self.workspaces.put(workspace(name))
        await self.engine.ensure_container(ContainerSpec(name=name, image=IMAGE, labels={}))
        await self.engine.start(name)

    def listener(self, resolver: Resolver, names: Callable[[], Collection[str]] = tuple) -> App:
        """The same routes as another listener serves them."""
        return listener(
            self.litestar,
            requests=self.requests,
            resolver=resolver,
            allowed_hosts=self.allowed_hosts,
            names=names,
        )

    @asynccontextmanager
    async def served(self, *, grace: float = 5, port: int = 0) -> AsyncIterator[int]:
        """A real server on a loopback port, until the block ends."""
        socket = listen("127.0.0.1", port)
        port = socket.getsockname()[1]
        async with anyio.create_task_group() as following:
            self.session_follower.run_in(following)
            async with anyio.create_task_group() as group:

                async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
                    await serve(
                        self.app,
                        socket,
                        requests=self.requests,
                        stop=self.stop,
                        before_end=self.services.end_streams,
                        grace=grace,
                        task_status=task_status,
                    )

                self.services.logs.run_in(group)
                await group.start(run)
                try:
                    yield port
                finally:
                    self.stop.set()
            following.cancel_scope.cancel()


def _close(database: Database | SessionsDatabase) -> None:
    """Collected by another thread than it was made in, it cannot be closed, and goes by itself."""
    with contextlib.suppress(sqlite3.ProgrammingError):
        database.close()
