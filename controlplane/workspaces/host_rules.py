"""The machine's own packet rules for pods, put in place by the sidecar image in mode ``host-rules``.

Without them pods reach each other through the coordinator's relay instead of directly, and nothing but Docker keeps a
pod from leaving by the machine's own tailnet interface. Where they cannot be set, Perry works and says so.
"""

import ipaddress
import logging
from urllib.parse import urlsplit

from controlplane.errors import EngineError
from controlplane.ports import ContainerSpec, Engine, Role, Tailnet
from controlplane.workspaces.spec import WIREGUARD_PORT

log = logging.getLogger(__name__)


class HostRules:
    """``error`` says why they do not stand; None where they do, or where nobody has tried yet."""

    def __init__(self, engine: Engine, tailnet: Tailnet, *, instance: str, image: str) -> None:
        self._engine = engine
        self._tailnet = tailnet
        self._instance = instance
        self._image = image
        self.error: str | None = None

    async def ensure(self) -> None:
        """Safe to run again at any time."""
        try:
            output = await self._engine.run_once(self._spec("host-rules"))
        except EngineError as exc:
            self.error = exc.message
        else:
            said = output.stderr.decode(errors="replace").strip().splitlines()
            self.error = None if output.exit_code == 0 else (said[-1][:500] if said else "it gave no reason")
        if self.error is not None:
            log.warning("the machine's packet rules for workspaces do not stand: %s", self.error)

    def _spec(self, *command: str) -> ContainerSpec:
        return ContainerSpec(
            name=f"{self._instance}-host-rules",
            image=self._image,
            labels={"perry.instance": self._instance, "perry.role": Role.HOST_RULES},
            command=command,
            host_network=True,
            cap_drop=("ALL",),
            cap_add=("NET_ADMIN", "NET_RAW"),
            env={
                "PERRY_INSTANCE": self._instance,
                "PERRY_WIREGUARD_PORT": str(WIREGUARD_PORT),
                "PERRY_COORDINATOR": _coordinator(self._tailnet.control_url),
            },
        )


def _coordinator(control_url: str | None) -> str:
    """``address:port`` of a coordinator that may be one of this machine: it is named by an address. Else empty."""
    parts = urlsplit(control_url or "")
    try:
        address = ipaddress.IPv4Address(parts.hostname or "")
    except ValueError:
        return ""
    return f"{address}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
