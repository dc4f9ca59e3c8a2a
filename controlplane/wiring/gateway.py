"""The control plane's own place on the tailnet, put together: its gateway, and who comes and goes by that."""

from collections.abc import Collection
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from controlplane.auth.service import GatewayResolver, Remembered
from controlplane.db import Database
from controlplane.gateway.service import Gateway
from controlplane.gateway.spec import FORWARD_SOCKET, PLACES_FILE, GatewaySettings
from controlplane.gateway.store import Store as GatewayStore
from controlplane.ports import Engine, Machine, Tailnet
from controlplane.settings import Settings
from controlplane.system.server import OUT_FOLDER
from controlplane.tailnet.service import TailnetService, strangers
from controlplane.wake.service import Outgoing
from controlplane.wiring.workspaces import sidecar_image
from controlplane.workspaces.store import Store


class GatewayParts:
    """``tailnet`` is what others ask; ``resolver`` recognises who comes by the gateway, and ``outgoing`` is how wakes
    leave. ``folder`` has the sockets."""

    def __init__(
        self,
        settings: Settings,
        folder: Path,
        database: Database,
        store: Store,
        *,
        engine: Engine,
        tailnet: Tailnet,
        machine: Machine,
    ) -> None:
        own_addresses = Remembered(machine.own_tailnet_addresses)
        self.service = Gateway(
            engine=engine,
            tailnet=tailnet,
            store=GatewayStore(database, tailnet.identity),
            settings=GatewaySettings(
                instance=settings.instance,
                image=sidecar_image(settings),
                run_folder=str(folder.absolute()),
                out_folder=str((folder / OUT_FOLDER).absolute()),
                pool=settings.network.pool,
            ),
            owners=settings.auth.owners,
            reserved=lambda: [record.reservation.subnet for record in store.all()],
            strangers=lambda: strangers(tailnet, settings.auth.owners),
        )
        self.resolver = GatewayResolver(
            owners=self.service.owners, workspace_of=store.name_of_node, own_addresses=own_addresses
        )
        self.outgoing = Outgoing(
            on_tailnet=tailnet.joins,
            domain=lambda: _domain(self.service.names()) or settings.tailnet.domain,
            forward=folder / OUT_FOLDER / FORWARD_SOCKET,
            places=folder / PLACES_FILE,
            own_port=settings.port,
            own_addresses=own_addresses,
        )
        self.tailnet = TailnetService(
            tailnet,
            settings.auth.owners,
            lambda: {
                record.node_id: record.name
                for record in store.all()
                if record.node_id is not None and record.tailnet == store.tailnet
            },
            self.service.shown,
            leave=self.service.leave,
            elsewhere=lambda: [
                record.name for record in store.all() if record.node_id is not None and record.tailnet != store.tailnet
            ],
        )

    def run_in(self, tasks: TaskGroup, looked: anyio.Event) -> None:
        """The gateway is kept where it should be, once ``looked`` is set."""
        tasks.start_soon(self.service.run, looked)


def _domain(names: Collection[str]) -> str | None:
    """The tailnet's own suffix, of the full name of a node there."""
    return next((name.partition(".")[2] for name in names if "." in name and not name[0].isdigit()), None)
