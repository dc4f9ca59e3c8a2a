"""Puts the parts together and keeps them running. The one task group that owns all background work is here."""

import contextlib
import logging
import signal
from collections.abc import Collection, Mapping
from datetime import timedelta
from functools import partial

import anyio
import msgspec

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.adapters.machine import LocalMachine
from controlplane.adapters.tailnet import make_tailnet
from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.app import Services, create_app, listener
from controlplane.auth.service import GatewayResolver, Remembered, TcpResolver, Tokens
from controlplane.auth.store import load_token
from controlplane.batches.collecting import Collector
from controlplane.batches.driver import Driver
from controlplane.batches.service import BatchService
from controlplane.batches.store import Store as BatchStore
from controlplane.commands.service import Commands
from controlplane.config.exposure import exposed
from controlplane.credentials.service import Credentials
from controlplane.credentials.sources import home_of
from controlplane.credentials.store import Secrets
from controlplane.credentials.watcher import watch_for_ever
from controlplane.cron.doers import doers
from controlplane.cron.scheduler import Scheduler, SystemClock
from controlplane.cron.service import Cron
from controlplane.cron.store import Store as CronStore
from controlplane.db import Database
from controlplane.errors import (
    EngineError,
    NotReady,
    OutOfSpace,
    TailnetError,
)
from controlplane.events.bus import Bus
from controlplane.gateway.service import Gateway
from controlplane.gateway.spec import GatewaySettings
from controlplane.gateway.store import Store as GatewayStore
from controlplane.logs.service import Logs
from controlplane.ports import Engine, Machine, Tailnet, Workers
from controlplane.sessions.changes import Changes
from controlplane.sessions.database import SessionsDatabase
from controlplane.sessions.follower import Follower
from controlplane.sessions.service import Sessions
from controlplane.settings import Loaded, Settings, load
from controlplane.system.metrics import Metrics
from controlplane.system.readiness import Degraded
from controlplane.system.requests import Requests
from controlplane.system.server import CONTROL_SOCKET, OUT_FOLDER, listen, listen_in, serve
from controlplane.system.service import Agent
from controlplane.tailnet.service import TailnetService, strangers
from controlplane.tasks.dispatcher import Dispatcher
from controlplane.tasks.fallback import Fallback
from controlplane.tasks.looking import Looker
from controlplane.tasks.service import News, TaskService, must_make_sense
from controlplane.tasks.signals import Signals
from controlplane.tasks.store import Store as TaskStore
from controlplane.wake.service import Outgoing, WakeService
from controlplane.wake.spools import Spools
from controlplane.workers.delivery import Delivery
from controlplane.workers.secrets import WorkerSecrets
from controlplane.workers.service import WorkerService
from controlplane.workspaces.checkout import Checkout
from controlplane.workspaces.cloning import Cloner
from controlplane.workspaces.host_rules import HostRules
from controlplane.workspaces.jobs import Jobs
from controlplane.workspaces.keys import Keys
from controlplane.workspaces.pods import Checkpoint, Pods
from controlplane.workspaces.reconciler import Reconciler
from controlplane.workspaces.service import Announcer, Workspaces
from controlplane.workspaces.sidecars import Sidecars
from controlplane.workspaces.spec import PodSettings, instance_labels
from controlplane.workspaces.startup import Starter
from controlplane.workspaces.store import Store
from controlplane.workspaces.uploads import UploadFolder
from protocol.tasks import Task
from protocol.version import VERSION
from protocol.workspaces import Workspace

log = logging.getLogger(__name__)

FORWARD_SOCKET = "forward.sock"
PLACES_FILE = "places.json"
"""Where the gateway connects to others on the tailnet for the control plane, and the list of those others."""

OWNERS_SECONDS = 3.0
"""How long the tailnet may take to say whose it is before the control plane serves without knowing."""


class Outside(msgspec.Struct, frozen=True):
    """The outside systems of a control plane; tests and `make dev` give fakes."""

    engine: Engine
    tailnet: Tailnet
    machine: Machine
    workers: Workers


def real(loaded: Loaded) -> Outside:
    """This machine, its Docker, and the tailnet that the settings name."""
    settings = loaded.settings
    engine = DockerEngine()
    machine = LocalMachine(loaded.folder / "ssh", dns=settings.network.dns)
    machine.ensure_ssh_key()
    tailnet = make_tailnet(settings, loaded.folder, engine, machine)
    return Outside(engine=engine, tailnet=tailnet, machine=machine, workers=WebSocketWorkers(VERSION))


class Core:
    """Everything behind the API, put together."""

    def __init__(
        self, loaded: Loaded, environ: Mapping[str, str], outside: Outside, database: Database, checkpoint: Checkpoint
    ) -> None:
        settings = loaded.settings
        self.bus = Bus()
        self.uploads = UploadFolder(loaded.folder / "uploads", limit=settings.uploads.limit)
        self.stop = anyio.Event()
        self._outside = outside
        self._database = database
        store = self._store = Store(database, outside.tailnet.identity)
        pods = Pods(
            outside.engine,
            outside.machine,
            instance=settings.instance,
            prefix=settings.workspace_prefix,
            known_hosts=settings.ssh.known_hosts,
            files=lambda name: self.workers.files(name),
            door_password=lambda name: self.workers.door_password(name),
            checkpoint=checkpoint,
        )
        self.workers = WorkerService(
            outside.engine,
            workers=outside.workers,
            secrets=WorkerSecrets(loaded.folder / "worker.key"),
            delivery=Delivery(outside.engine, f"perry/worker:{settings.image_tag}", loaded.folder / "worker"),
            address=lambda name: _address(outside.engine, pods.names(name).sandbox),
            container=lambda name: pods.names(name).workspace,
            changed=lambda name: self.workspaces.changed(name),
            keep_opencode=settings.agents.opencode.keep_server,
        )
        self.fleet = self.workers.fleet
        self.sidecars = Sidecars(outside.engine, lambda name: self.workspaces.changed(name))
        self.jobs = Jobs()
        keys = Keys(outside.tailnet, store, checkpoint)
        checkout = Checkout(outside.engine, self.uploads)
        sidecar_image = f"perry/sidecar:{settings.image_tag}"
        secrets = Secrets(loaded.folder / "secrets")
        self.credentials = Credentials(
            outside.engine,
            secrets=secrets,
            home=home_of(environ),
            settings=lambda: load(loaded.folder, environ).settings,
            workspaces=lambda: self.workspaces,
            workers=self.workers,
        )
        self._sessions_database = SessionsDatabase(loaded.folder / "sessions.db")
        session_changes = Changes()
        self.session_follower = Follower(
            self._sessions_database,
            session_changes,
            created=lambda name: record.reservation.created if (record := store.get(name)) else "",
            secrets=lambda: self.credentials.secret_values(),
        )
        self.fleet.register(self.session_follower)
        sessions = Sessions(
            self._sessions_database, session_changes, self.session_follower, lambda name: store.get(name) is not None
        )
        starter = Starter(
            engine=outside.engine,
            tailnet=outside.tailnet,
            machine=outside.machine,
            store=store,
            pods=pods,
            sidecars=self.sidecars,
            checkout=checkout,
            cloner=Cloner(
                engine=outside.engine,
                store=store,
                pods=pods,
                jobs=self.jobs,
                instance=settings.instance,
                checkpoint=checkpoint,
            ),
            keys=keys,
            provisions=self.credentials,
            workers=self.workers,
            pod_settings=lambda: pod_settings(settings, outside, sidecar_image),
            settings=settings,
            ssh_address=_reachable(settings.ssh.bind),
            look=lambda: self.workspaces.look(),
            changed=lambda name: self.workspaces.changed(name),
            checkpoint=checkpoint,
        )
        announcers = _Everybody(self.bus, self.workers)
        self.workspaces = Workspaces(
            settings=settings,
            engine=outside.engine,
            tailnet=outside.tailnet,
            machine=outside.machine,
            store=store,
            pods=pods,
            followed=self.sidecars,
            checkout=checkout,
            starter=starter,
            workers=self.workers,
            announcer=announcers,
            jobs=self.jobs,
            keep_sessions=sessions.keep,
            checkpoint=checkpoint,
        )
        self._host_rules = HostRules(outside.engine, outside.tailnet, instance=settings.instance, image=sidecar_image)
        self.reconciler = Reconciler(
            engine=outside.engine,
            tailnet=outside.tailnet,
            store=store,
            pods=pods,
            followed=self.sidecars,
            jobs=self.jobs,
            keys=keys,
            host_rules=self._host_rules,
            workspaces=self.workspaces,
            instance=settings.instance,
        )
        self.gateway = Gateway(
            engine=outside.engine,
            tailnet=outside.tailnet,
            store=GatewayStore(database, outside.tailnet.identity),
            settings=GatewaySettings(
                instance=settings.instance,
                image=sidecar_image,
                run_folder=str((loaded.folder / "run").absolute()),
                out_folder=str((loaded.folder / "run" / OUT_FOLDER).absolute()),
                pool=settings.network.pool,
            ),
            owners=settings.auth.owners,
            reserved=lambda: [record.reservation.subnet for record in store.all()],
            strangers=lambda: strangers(outside.tailnet, settings.auth.owners),
        )
        self.wakes = WakeService(
            database,
            settings.hooks,
            loaded.folder,
            Outgoing(
                on_tailnet=outside.tailnet.joins,
                domain=lambda: _domain(self.gateway.names()) or settings.tailnet.domain,
                forward=loaded.folder / "run" / OUT_FOLDER / FORWARD_SOCKET,
                places=loaded.folder / "run" / PLACES_FILE,
                own_port=settings.port,
                own_addresses=Remembered(outside.machine.own_tailnet_addresses),
            ),
        )
        task_store, task_news = TaskStore(database), News()
        self.dispatcher = Dispatcher(
            task_store,
            self.workspaces,
            self.wakes,
            task_news,
            parallel=settings.tasks.parallel,
            per_workspace=settings.tasks.per_workspace,
            announce=self._task_changed,
        )
        announcers.add(self.dispatcher)
        self.fallback = Fallback(
            task_store,
            Looker(self.fleet.link, sessions),
            self.wakes,
            self.dispatcher.changed,
            self.workspaces,
            problem=self.dispatcher.problem,
            every=timedelta(seconds=settings.tasks.fallback),
            stall=timedelta(seconds=settings.tasks.stall),
        )
        tasks = TaskService(task_store, self.workspaces, self.fleet.link, self.dispatcher, task_news)
        collector = Collector(loaded.folder / "batches", tasks, self.workspaces, outside.engine)
        batch_store = BatchStore(database)
        self.batches = Driver(
            batch_store,
            tasks,
            self.workspaces,
            collector,
            self.wakes,
            announce=self.bus.batch_changed,
            checkpoint=checkpoint,
        )
        self.signals = Signals(self.wakes, wanted=settings.wake.sessions, of_task=task_store.works_in)
        self.fleet.register(self.dispatcher)
        self.fleet.register(self.signals)
        self.spools = Spools(self.wakes)
        self.fleet.register(self.spools)
        cron_store, clock = CronStore(database), SystemClock()
        self.scheduler = Scheduler(cron_store, doers(self.wakes, self.fallback, tasks), clock)
        self._at_gateway = GatewayResolver(
            owners=self.gateway.owners,
            workspace_of=store.name_of_node,
            own_addresses=Remembered(outside.machine.own_tailnet_addresses),
        )
        self.services = Services(
            loaded=loaded,
            workspaces=self.workspaces,
            agent=Agent(
                count=lambda: len(self.workspaces.last_seen()),
                docker_version=self._docker_version,
                tailnet_provider=outside.tailnet.provider,
                stop=self.stop.set,
            ),
            tailnet=TailnetService(
                outside.tailnet,
                settings.auth.owners,
                lambda: {
                    record.node_id: record.name
                    for record in store.all()
                    if record.node_id is not None and record.tailnet == store.tailnet
                },
                self.gateway.shown,
                leave=self.gateway.leave,
                elsewhere=lambda: [
                    record.name
                    for record in store.all()
                    if record.node_id is not None and record.tailnet != store.tailnet
                ],
            ),
            bus=self.bus,
            commands=Commands(outside.engine, self.workspaces),
            logs=Logs(outside.engine, self.workspaces),
            credentials=self.credentials,
            secrets=secrets,
            sessions=sessions,
            session_changes=session_changes,
            cron=Cron(
                cron_store,
                self.scheduler,
                clock,
                is_there=lambda name: store.get(name) is not None,
                must_make_sense=must_make_sense,
            ),
            tasks=tasks,
            fallback=self.fallback,
            batches=BatchService(batch_store, self.batches, self.workspaces, tasks, collector),
            wakes=self.wakes,
            uploads=self.uploads,
            tokens=Tokens(load_token(loaded.folder)),
            metrics=Metrics(),
            probes={
                "docker": self._docker,
                "state": self._state,
                "first look": self._first_look,
                "tailnet": self._tailnet,
                "packet rules": self._packet_rules,
                "gateway": self._gateway,
                "wakes": self._wakes,
            },
        )

    def _task_changed(self, task: Task) -> None:
        self.bus.task_changed(task)
        self.batches.task_changed(task)

    async def _docker_version(self) -> str | None:
        try:
            return (await self._outside.engine.info()).version
        except EngineError:
            return None

    async def _docker(self) -> str | None:
        return (await self._outside.engine.info()).version

    async def _state(self) -> str | None:
        self._database.check()
        return None

    async def _first_look(self) -> str | None:
        if not self.reconciler.looked.is_set():
            raise NotReady("The control plane is still looking at what there is; ask again in a moment.")
        return None

    async def _tailnet(self) -> str | None:
        """Shown, and no reason not to be ready: what runs goes on without its coordinator."""
        info = await self._outside.tailnet.info()
        return f"{info.provider}: {info.error}" if info.error else info.provider

    async def _packet_rules(self) -> str | None:
        return self._host_rules.error

    async def _gateway(self) -> str | None:
        """Shown, and no reason not to be ready: this machine does without it."""
        found = self.gateway.shown()
        return None if found is None else found.error or f"http://{found.name}"

    async def _wakes(self) -> str | None:
        """Whoever should be woken and is not, is no reason not to be ready."""
        if problems := self.wakes.problems():
            raise Degraded(" ".join(problems))
        return None

    async def run(self, host: str, port: int) -> None:
        """Until a signal or ``agent.kill`` ends it."""
        if (warning := exposed(self.services.loaded)) is not None:
            log.warning("%s", warning)
        requests = Requests(self.services.metrics)
        routes = create_app(self.services)
        allowed = self.services.loaded.settings.auth.allowed_hosts
        at_tcp = listener(
            routes,
            requests=requests,
            resolver=TcpResolver(self.services.tokens),
            allowed_hosts=(*allowed, *_own_name(host)),
        )
        at_gateway = listener(
            routes, requests=requests, resolver=self._at_gateway, allowed_hosts=allowed, names=self.gateway.names
        )
        folder = self.services.loaded.folder / "run"
        serving = partial(serve, requests=requests, stop=self.stop, before_end=self.services.end_streams)
        tcp = listen(host, port)
        inside = listen_in(folder) if self._outside.tailnet.joins else None
        try:
            with anyio.move_on_after(OWNERS_SECONDS):
                # Requests from the tailnet may come at once: the gateway outlives us.
                await self.gateway.learn_owners()
            async with anyio.create_task_group() as tasks:
                self.jobs.run_in(tasks)
                self.sidecars.run_in(tasks)
                self.session_follower.run_in(tasks)
                self.signals.run_in(tasks)
                self.spools.run_in(tasks)
                self.fleet.run_in(tasks)
                tasks.start_soon(self.workers.run)
                self.services.logs.run_in(tasks)
                tasks.start_soon(self._end_on_signals)
                tasks.start_soon(self.uploads.sweep_for_ever)
                tasks.start_soon(self.reconciler.run)
                tasks.start_soon(self._let_go_of_sessions)
                tasks.start_soon(self.wakes.run)
                tasks.start_soon(self.dispatcher.run)
                tasks.start_soon(self.fallback.run)
                tasks.start_soon(self.batches.run)
                tasks.start_soon(self.scheduler.run)
                tasks.start_soon(watch_for_ever, self.credentials)
                tasks.start_soon(self.gateway.run, self.reconciler.looked)
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
                (folder / CONTROL_SOCKET).unlink(missing_ok=True)
            self._sessions_database.close()
            with anyio.CancelScope(shield=True):
                await self._outside.tailnet.close()
                await self._outside.engine.close()

    async def _let_go_of_sessions(self) -> None:
        """Of workspaces that were deleted while nobody looked, once all that there are have been found."""
        await self.reconciler.looked.wait()
        while True:
            try:
                found = await self._outside.engine.containers(instance_labels(self.services.loaded.settings.instance))
                there = [(record.name, record.reservation.created) for record in self._store.all()]
                unsure = {state.labels.get("perry.workspace", "") for state in found}
                await self.session_follower.end_others(there, unsure)
                return
            except (EngineError, NotReady, OutOfSpace) as exc:
                log.warning("sessions of workspaces that were deleted are let go of later: %s", exc)
                await anyio.sleep(30)

    async def _end_on_signals(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                log.info("ending, on signal %s", signal.Signals(number).name)
                self.stop.set()
                return


async def pod_settings(settings: Settings, outside: Outside, sidecar_image: str) -> PodSettings:
    """What is the same for all pods, as it is now."""
    owners = settings.auth.owners
    if not owners and outside.tailnet.joins:
        with contextlib.suppress(TailnetError):
            owners = (await outside.tailnet.info()).owners
    return PodSettings(
        instance=settings.instance,
        prefix=settings.workspace_prefix,
        sidecar_image=sidecar_image,
        ssh_bind=settings.ssh.bind,
        dns=outside.machine.upstream_dns(),
        joins=outside.tailnet.joins,
        tailnet=outside.tailnet.identity,
        control_url=outside.tailnet.control_url or "",
        owners=tuple(owners),
        refused_addresses=outside.machine.own_tailnet_addresses(),
        tun=outside.machine.has_tun(),
    )


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


async def _address(engine: Engine, sandbox: str) -> str | None:
    """The pod's address on its own bridge, where only this machine reaches its worker."""
    try:
        present = await engine.inspect(sandbox)
    except EngineError:
        return None
    return None if present is None else present.address


def _domain(names: Collection[str]) -> str | None:
    """The tailnet's own suffix, of the full name of a node there."""
    return next((name.partition(".")[2] for name in names if "." in name and not name[0].isdigit()), None)


def _reachable(bind: str) -> str:
    """An address at which this machine reaches what is bound there."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)


def _own_name(host: str) -> tuple[str, ...]:
    """The address that is listened on, as a host that requests may name, unless it stands for all."""
    return () if host in ("0.0.0.0", "::") else (host,)
