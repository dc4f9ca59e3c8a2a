"""The coordinators of tailnets, behind the port :class:`controlplane.ports.Tailnet`: one file each."""

from pathlib import Path

from controlplane.adapters.tailnet.embedded import EmbeddedTailnet
from controlplane.adapters.tailnet.headscale import HeadscaleTailnet
from controlplane.adapters.tailnet.none import NoTailnet
from controlplane.ports import Engine, Machine, Tailnet
from controlplane.settings import Settings
from controlplane.settings.hooks import tailnet_ports

__all__ = ["EmbeddedTailnet", "HeadscaleTailnet", "NoTailnet", "make_tailnet"]


def make_tailnet(settings: Settings, folder: Path, engine: Engine, machine: Machine) -> Tailnet:
    """The adapter that ``tailnet.provider`` names."""
    wanted = settings.tailnet
    if wanted.provider == "none":
        return NoTailnet()
    if wanted.provider == "headscale":
        return HeadscaleTailnet(wanted.url, wanted.credential_file, folder, owners=settings.auth.owners)
    if wanted.provider == "tailscale":
        # Its client takes a third of a second to import, which the others need not wait for.
        from controlplane.adapters.tailnet.tailscale import TailscaleTailnet

        return TailscaleTailnet(wanted.credential_file, folder)
    return EmbeddedTailnet(
        engine,
        machine,
        instance=settings.instance,
        image=f"perry/headscale:{settings.image_tag}",
        address=wanted.address,
        port=wanted.port,
        domain=wanted.domain,
        wake_ports=tailnet_ports(settings.hooks.gateways, wanted.domain),
        folder=folder / "coordinator",
    )
