"""What ``/ready`` asks: each part that the control plane needs, or that a person would want to hear about."""

from collections.abc import Mapping

import anyio

from controlplane.db import Database
from controlplane.errors import NotReady
from controlplane.gateway.service import Gateway
from controlplane.ports import Engine, Tailnet
from controlplane.system.readiness import Degraded, Probe
from controlplane.wake.service import WakeService
from controlplane.workspaces.host_rules import HostRules


def probes(
    *,
    engine: Engine,
    database: Database,
    looked: anyio.Event,
    tailnet: Tailnet,
    host_rules: HostRules,
    gateway: Gateway,
    wakes: WakeService,
) -> Mapping[str, Probe]:
    """By the names that people see. ``looked`` is set once all workspaces that there are have been found."""

    async def docker() -> str | None:
        return (await engine.info()).version

    async def state() -> str | None:
        database.check()
        return None

    async def first_look() -> str | None:
        if not looked.is_set():
            raise NotReady("The control plane is still looking at what there is; ask again in a moment.")
        return None

    async def coordinator() -> str | None:
        """Shown, and no reason not to be ready: what runs goes on without its coordinator."""
        info = await tailnet.info()
        return f"{info.provider}: {info.error}" if info.error else info.provider

    async def packet_rules() -> str | None:
        return host_rules.error

    async def own_gateway() -> str | None:
        """Shown, and no reason not to be ready: this machine does without it."""
        found = gateway.shown()
        return None if found is None else found.error or f"http://{found.name}"

    async def waking() -> str | None:
        """Whoever should be woken and is not, is no reason not to be ready."""
        if problems := wakes.problems():
            raise Degraded(" ".join(problems))
        return None

    return {
        "docker": docker,
        "state": state,
        "first look": first_look,
        "tailnet": coordinator,
        "packet rules": packet_rules,
        "gateway": own_gateway,
        "wakes": waking,
    }
