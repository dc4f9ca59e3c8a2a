"""All of a control plane, put together and kept running. The one task group that owns all background work is here."""

import logging
import signal
from collections.abc import Mapping
from functools import partial

import anyio
from anyio.abc import TaskGroup

from controlplane.app import Services, create_app, listener
from controlplane.auth.service import TcpResolver, Tokens
from controlplane.auth.store import load_token
from controlplane.commands.service import Commands
from controlplane.config.exposure import exposed
from controlplane.credentials.service import Credentials
from controlplane.credentials.sources import home_of
from controlplane.credentials.store import Secrets
from controlplane.credentials.watcher import watch_for_ever
from controlplane.db import Database
from controlplane.errors import EngineError
from controlplane.events.bus import Bus
from controlplane.logs.service import Logs
from controlplane.ports import Engine
from controlplane.settings import Loaded, load
from controlplane.system.metrics import Metrics
from controlplane.system.requests import Requests
from controlplane.system.server import CONTROL_SOCKET, listen, listen_in, serve
from controlplane.system.service import Agent
from controlplane.wake.service import WakeService
from controlplane.wake.spools import Spools
from controlplane.wiring.gateway import GatewayParts
from controlplane.wiring.outside import Outside
from controlplane.wiring.probes import probes
from controlplane.wiring.sessions import SessionParts
from controlplane.wiring.work import WorkParts
from controlplane.wiring.workspaces import WorkspaceParts
from controlplane.workers.delivery import Delivery
from controlplane.workers.secrets import WorkerSecrets
from controlplane.workers.service import WorkerService
from controlplane.workspaces.pods import Checkpoint
from controlplane.workspaces.service import Announcer
from controlplane.workspaces.spec import Names
from controlplane.workspaces.store import Store
from controlplane.workspaces.uploads import UploadFolder
from protocol.workspaces import Workspace

log = logging.getLogger(__name__)

OWNERS_SECONDS = 3.0
"""How long the tailnet may take to say whose it is before the control plane serves without knowing."""


class Core:
    """Everything behind the API, put together."""

    def __init__(
        self, loaded: Loaded, environ: Mapping[str, str], outside: Outside, database: Database, checkpoint: Checkpoint
    ) -> None:
        settings, folder = loaded.settings, loaded.folder
        engine, tailnet, machine = outside.engine, outside.tailnet, outside.machine
        store = Store(database, tailnet.identity)
        bus = Bus()
        self._outside = outside
        self._stop = anyio.Event()
        self._run_folder = folder / "run"
        self._uploads = UploadFolder(folder / "uploads", limit=settings.uploads.limit)
        self._workers = WorkerService(
            engine,
            workers=outside.workers,
            secrets=WorkerSecrets(folder / "worker.key"),
            delivery=Delivery(engine, f"perry/worker:{settings.image_tag}", folder / "worker"),
            address=lambda name: _address(engine, Names(settings.workspace_prefix, name).sandbox),
            container=lambda name: Names(settings.workspace_prefix, name).workspace,
            changed=lambda name: self._workspaces.service.changed(name),
            keep_opencode=settings.agents.opencode.keep_server,
        )
        secrets = Secrets(folder / "secrets")
        self._credentials = Credentials(
            engine,
            secrets=secrets,
            home=home_of(environ),
            settings=lambda: load(folder, environ).settings,
            workspaces=lambda: self._workspaces.service,
            workers=self._workers,
        )
        self._sessions = SessionParts(folder, store, secrets=self._credentials.secret_values)
        announcers = _Everybody(bus, self._workers)
        self._workspaces = WorkspaceParts(
            settings,
            store,
            engine=engine,
            tailnet=tailnet,
            machine=machine,
            uploads=self._uploads,
            workers=self._workers,
            provisions=self._credentials,
            announcer=announcers,
            keep_sessions=self._sessions.service.keep,
            door_password=self._workers.door_password,
            checkpoint=checkpoint,
        )
        workspaces = self._workspaces.service
        self._gateway = GatewayParts(
            settings, self._run_folder, database, store, engine=engine, tailnet=tailnet, machine=machine
        )
        self._wakes = WakeService(database, settings.hooks, folder, self._gateway.outgoing)
        self._work = WorkParts(
            database,
            settings,
            folder / "batches",
            workspaces=workspaces,
            is_there=lambda name: store.get(name) is not None,
            link=self._workers.link,
            sessions=self._sessions.service,
            engine=engine,
            waker=self._wakes,
            bus=bus,
            checkpoint=checkpoint,
        )
        self._uploads.keep_while(self._work.uploads)
        announcers.add(self._work.dispatcher)
        self._spools = Spools(self._wakes, is_at=self._work.is_at)
        for follower in (self._sessions.follower, *self._work.followers, self._spools):
            self._workers.register(follower)
        self._services = Services(
            loaded=loaded,
            workspaces=workspaces,
            agent=Agent(
                count=lambda: len(workspaces.last_seen()),
                docker_version=lambda: _docker_version(engine),
                tailnet_provider=tailnet.provider,
                stop=self._stop.set,
            ),
            tailnet=self._gateway.tailnet,
            bus=bus,
            commands=Commands(engine, workspaces),
            logs=Logs(engine, workspaces),
            credentials=self._credentials,
            secrets=secrets,
            sessions=self._sessions.service,
            session_changes=self._sessions.changes,
            cron=self._work.cron,
            tasks=self._work.tasks,
            fallback=self._work.fallback,
            batches=self._work.batches,
            wakes=self._wakes,
            uploads=self._uploads,
            tokens=Tokens(load_token(folder)),
            metrics=Metrics(),
            probes=probes(
                engine=engine,
                database=database,
                looked=self._workspaces.reconciler.looked,
                tailnet=tailnet,
                host_rules=self._workspaces.host_rules,
                gateway=self._gateway.service,
                wakes=self._wakes,
            ),
        )

    async def run(self) -> None:
        """Until a signal or ``agent.kill`` ends it."""
        loaded = self._services.loaded
        if (warning := exposed(loaded)) is not None:
            log.warning("%s", warning)
        host, allowed = loaded.settings.host, loaded.settings.auth.allowed_hosts
        requests = Requests(self._services.metrics)
        routes = create_app(self._services)
        at_tcp = listener(
            routes,
            requests=requests,
            resolver=TcpResolver(self._services.tokens),
            allowed_hosts=(*allowed, *_own_name(host)),
        )
        at_gateway = listener(
            routes,
            requests=requests,
            resolver=self._gateway.resolver,
            allowed_hosts=allowed,
            names=self._gateway.service.names,
        )
        serving = partial(serve, requests=requests, stop=self._stop, before_end=self._services.end_streams)
        tcp = listen(host, loaded.settings.port)
        inside = listen_in(self._run_folder) if self._outside.tailnet.joins else None
        try:
            with anyio.move_on_after(OWNERS_SECONDS):
                # Requests from the tailnet may come at once: the gateway outlives us.
                await self._gateway.service.learn_owners()
            async with anyio.create_task_group() as tasks:
                self._run_in(tasks)
                async with anyio.create_task_group() as servers:
                    servers.start_soon(serving, at_tcp, tcp)
                    if inside is not None:
                        servers.start_soon(serving, at_gateway, inside)
                # What is under way is broken off; it goes on from there at the next start.
                tasks.cancel_scope.cancel()
        finally:
            tcp.close()
            if inside is not None:
                inside.close()
                (self._run_folder / CONTROL_SOCKET).unlink(missing_ok=True)
            self._sessions.database.close()
            with anyio.CancelScope(shield=True):
                await self._outside.tailnet.close()
                await self._outside.engine.close()

    def _run_in(self, tasks: TaskGroup) -> None:
        """All that goes on beside the answers to requests."""
        looked = self._workspaces.reconciler.looked
        self._workers.fleet.run_in(tasks)
        self._sessions.follower.run_in(tasks)
        self._spools.run_in(tasks)
        self._services.logs.run_in(tasks)
        self._workspaces.run_in(tasks)
        self._work.run_in(tasks)
        self._gateway.run_in(tasks, looked)
        tasks.start_soon(self._end_on_signals)
        tasks.start_soon(self._workers.run)
        tasks.start_soon(self._wakes.run)
        tasks.start_soon(self._uploads.sweep_for_ever)
        tasks.start_soon(watch_for_ever, self._credentials)
        tasks.start_soon(
            self._sessions.let_go_of_others, looked, self._outside.engine, self._services.loaded.settings.instance
        )

    async def _end_on_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                log.info("ending, on signal %s", signal.Signals(number).name)
                self._stop.set()
                return


class _Everybody:
    """Tells each of them what becomes of workspaces, in this order."""

    def __init__(self, *announcers: Announcer) -> None:
        self._announcers = [*announcers]

    def add(self, announcer: Announcer) -> None:
        self._announcers.append(announcer)

    def workspace_changed(self, workspace: Workspace) -> None:
        for each in self._announcers:
            each.workspace_changed(workspace)

    def workspace_deleted(self, name: str) -> None:
        for each in self._announcers:
            each.workspace_deleted(name)


async def _docker_version(engine: Engine) -> str | None:
    """None where Docker is away."""
    try:
        return (await engine.info()).version
    except EngineError:
        return None


async def _address(engine: Engine, sandbox: str) -> str | None:
    """The pod's address on its own bridge, where only this machine reaches its worker."""
    try:
        present = await engine.inspect(sandbox)
    except EngineError:
        return None
    return None if present is None else present.address


def _own_name(host: str) -> tuple[str, ...]:
    """The address that is listened on, as a host that requests may name, unless it stands for all."""
    return () if host in ("0.0.0.0", "::") else (host,)
