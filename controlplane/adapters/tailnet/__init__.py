"""The coordinators of tailnets, behind the port :class:`controlplane.ports.Tailnet`: one file each."""

from pathlib import Path

from controlplane.adapters.tailnet.embedded import EmbeddedTailnet
from controlplane.adapters.tailnet.none import NoTailnet
from controlplane.ports import Engine, Machine, Tailnet
from controlplane.settings import Settings

__all__ = ["EmbeddedTailnet", "NoTailnet", "make_tailnet"]


def make_tailnet(settings: Settings, folder: Path, engine: Engine, machine: Machine) -> Tailnet:
    """The adapter that ``tailnet.provider`` names."""
    if settings.tailnet.provider == "none":
        return NoTailnet()
    return EmbeddedTailnet(
        engine,
        machine,
        instance=settings.instance,
        image=f"perry/headscale:{settings.image_tag}",
        address=settings.tailnet.address,
        port=settings.tailnet.port,
        domain=settings.tailnet.domain,
        folder=folder / "coordinator",
    )
