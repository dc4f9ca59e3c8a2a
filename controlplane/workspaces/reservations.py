"""What comes before a start of a new workspace: that it is possible, that its name is free, and what it is given for
itself alone, written down in state.db."""

from collections.abc import Sequence

import msgspec

from controlplane.errors import Conflict, InvalidInput, TailnetError
from controlplane.ports import Engine, EngineInfo, Machine, Node, Tailnet
from controlplane.settings import Settings
from controlplane.workspaces import state, wishes
from controlplane.workspaces.nodes import Nodes
from controlplane.workspaces.pods import Checkpoint, Pods, ssh_ports
from controlplane.workspaces.spec import Request
from controlplane.workspaces.store import Record, Store
from protocol.workspaces import StartWorkspace

NODES_SECONDS = 60.0
"""A name that was taken on the tailnet in this time shows when the workspace joins, and not before."""


class Reservations:
    """Names, ssh ports and subnets. One is made at a time: the service sees to that."""

    def __init__(
        self,
        *,
        settings: Settings,
        engine: Engine,
        tailnet: Tailnet,
        machine: Machine,
        store: Store,
        pods: Pods,
        nodes: Nodes,
        checkpoint: Checkpoint,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._tailnet = tailnet
        self._machine = machine
        self._store = store
        self._pods = pods
        self._nodes = nodes
        self._checkpoint = checkpoint
        self._docker: EngineInfo | None = None

    async def of_new(self, name: str, wanted: StartWorkspace, made_for: str | None) -> None:
        """Conflict where the name is not free; InvalidInput or ImageMissing where it could never be started."""
        request = wishes.first(wanted, self._settings.workspaces, await self._machine_of_docker(), made_for)
        await self.must_be_possible(request)
        await self._reserve(name, request)

    async def of_copy(self, name: str, source: Record) -> None:
        """The same, for one that is to be a copy."""
        await self._pods.check_images([source.request.image])
        await self._reserve(name, msgspec.structs.replace(source.request, source=source.name, made_for=None))

    async def must_be_possible(self, request: Request) -> None:
        """What is asked for is kept, so what could never be started is refused before."""
        info = await self._machine_of_docker()
        if request.limits.cpus > info.cpus:
            info = self._docker = await self._engine.info()
        if request.limits.cpus > info.cpus:
            raise InvalidInput(f"This machine has {info.cpus} CPUs; ask for at most as many.")
        await self._pods.check_images([request.image])

    async def _machine_of_docker(self) -> EngineInfo:
        # Docker takes a moment to say it, and its machine seldom changes under it: a virtual one is given more CPUs.
        info = self._docker = self._docker or await self._engine.info()
        return info

    async def _reserve(self, name: str, request: Request) -> None:
        await self._refuse_foreign_name(name)
        self._store.reserve(
            name,
            request,
            state.begun(None, copies=request.source is not None),
            ports=ssh_ports(self._machine, self._settings.ssh),
            pool=self._settings.network.pool,
            subnets_in_use=await self._engine.subnets_in_use(),
        )
        self._checkpoint("reserved")

    async def _refuse_foreign_name(self, name: str) -> None:
        if name in (await self._pods.claims()):
            raise Conflict(
                f"Docker still has remains of a workspace {name!r}; the control plane takes them over within seconds, "
                "so start it again then."
            )
        if not self._tailnet.joins:
            return
        try:
            taken = self._is_taken(name, await self._nodes.lately(NODES_SECONDS)) and self._is_taken(
                name, await self._nodes.now()
            )
        except TailnetError:
            return  # The start says it, and goes on without.
        if taken:
            raise Conflict(f"A device of your tailnet is named {name!r} already; choose another name.")

    def _is_taken(self, name: str, nodes: Sequence[Node]) -> bool:
        leftovers = {leftover for kind, leftover in self._store.leftovers() if kind == "node"}
        return any(node.name == name and node.id not in leftovers for node in nodes)
