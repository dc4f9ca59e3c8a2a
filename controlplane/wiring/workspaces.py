"""Workspaces, put together: their pods, their starts, and what keeps them as they should be."""

import contextlib
from collections.abc import Callable

from anyio.abc import TaskGroup

from controlplane.errors import TailnetError
from controlplane.ports import Engine, Machine, Provisions, Tailnet, Uploads, WorkerKeeper
from controlplane.settings import Settings
from controlplane.workspaces.checkout import Checkout
from controlplane.workspaces.cloning import Cloner
from controlplane.workspaces.host_rules import HostRules
from controlplane.workspaces.jobs import Jobs
from controlplane.workspaces.keys import Keys
from controlplane.workspaces.leftovers import Leftovers
from controlplane.workspaces.nodes import Nodes
from controlplane.workspaces.pods import Checkpoint, Pods
from controlplane.workspaces.reconciler import Reconciler
from controlplane.workspaces.reservations import Reservations
from controlplane.workspaces.service import Announcer, KeepSessions, Workspaces
from controlplane.workspaces.sidecars import Sidecars
from controlplane.workspaces.spec import PodSettings
from controlplane.workspaces.startup import Starter
from controlplane.workspaces.store import Store


class WorkspaceParts:
    """``service`` is what others ask; ``reconciler`` looks by itself. The ports say what each of them is for."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        engine: Engine,
        tailnet: Tailnet,
        machine: Machine,
        uploads: Uploads,
        workers: WorkerKeeper,
        provisions: Provisions,
        announcer: Announcer,
        keep_sessions: KeepSessions,
        door_password: Callable[[str], str | None],
        checkpoint: Checkpoint,
    ) -> None:
        self.jobs = Jobs()
        self.sidecars = Sidecars(engine, lambda name: self.service.changed(name))
        pods = Pods(
            engine,
            machine,
            instance=settings.instance,
            prefix=settings.workspace_prefix,
            known_hosts=settings.ssh.known_hosts,
            files=workers.files,
            door_password=door_password,
            checkpoint=checkpoint,
        )
        checkout = Checkout(engine, uploads)
        keys = Keys(tailnet, store, checkpoint)
        self.nodes = Nodes(tailnet)
        self.leftovers = Leftovers(tailnet, store, checkpoint)
        starter = Starter(
            engine=engine,
            tailnet=tailnet,
            machine=machine,
            store=store,
            pods=pods,
            sidecars=self.sidecars,
            checkout=checkout,
            cloner=Cloner(
                engine=engine,
                store=store,
                pods=pods,
                jobs=self.jobs,
                instance=settings.instance,
                checkpoint=checkpoint,
            ),
            keys=keys,
            provisions=provisions,
            workers=workers,
            pod_settings=lambda: _pod_settings(settings, tailnet, machine),
            settings=settings,
            ssh_address=_reachable(settings.ssh.bind),
            look=lambda: self.service.look(),
            changed=lambda name: self.service.changed(name),
            checkpoint=checkpoint,
        )
        reservations = Reservations(
            settings=settings,
            engine=engine,
            tailnet=tailnet,
            machine=machine,
            store=store,
            pods=pods,
            nodes=self.nodes,
            checkpoint=checkpoint,
        )
        self.service = Workspaces(
            engine=engine,
            tailnet=tailnet,
            store=store,
            pods=pods,
            followed=self.sidecars,
            checkout=checkout,
            reservations=reservations,
            starter=starter,
            leftovers=self.leftovers,
            workers=workers,
            announcer=announcer,
            jobs=self.jobs,
            keep_sessions=keep_sessions,
            checkpoint=checkpoint,
        )
        self.host_rules = HostRules(engine, tailnet, instance=settings.instance, image=sidecar_image(settings))
        self.reconciler = Reconciler(
            engine=engine,
            tailnet=tailnet,
            store=store,
            pods=pods,
            followed=self.sidecars,
            jobs=self.jobs,
            keys=keys,
            nodes=self.nodes,
            leftovers=self.leftovers,
            host_rules=self.host_rules,
            workspaces=self.service,
            instance=settings.instance,
        )

    def run_in(self, tasks: TaskGroup) -> None:
        """Starts and deletions go on in this task group, and the reconciler looks in it."""
        self.jobs.run_in(tasks)
        self.sidecars.run_in(tasks)
        tasks.start_soon(self.reconciler.run)


def sidecar_image(settings: Settings) -> str:
    """Of sidecars, of the gateway, and of what sets the machine's packet rules."""
    return f"perry/sidecar:{settings.image_tag}"


async def _pod_settings(settings: Settings, tailnet: Tailnet, machine: Machine) -> PodSettings:
    """What is the same for all pods, as it is now."""
    owners = settings.auth.owners
    if not owners and tailnet.joins:
        with contextlib.suppress(TailnetError):
            owners = (await tailnet.info()).owners
    return PodSettings(
        instance=settings.instance,
        prefix=settings.workspace_prefix,
        sidecar_image=sidecar_image(settings),
        ssh_bind=settings.ssh.bind,
        dns=machine.upstream_dns(),
        joins=tailnet.joins,
        tailnet=tailnet.identity,
        control_url=tailnet.control_url or "",
        owners=tuple(owners),
        refused_addresses=machine.own_tailnet_addresses(),
        tun=machine.has_tun(),
    )


def _reachable(bind: str) -> str:
    """An address at which this machine reaches what is bound there."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)
