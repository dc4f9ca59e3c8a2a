"""The procedures of the tailnet."""

from controlplane.procedures import Group
from controlplane.tailnet.service import TailnetService
from protocol.tailnet import JoinCommand, TailnetStatus

group = Group("tailnet", TailnetService)


@group.procedure("status")
async def status(tailnet: TailnetService) -> TailnetStatus:
    """How the tailnet stands, and who is on it."""
    return await tailnet.status()


@group.procedure("leave")
async def leave(tailnet: TailnetService) -> None:
    """Take the control plane's own node off the tailnet, until its next start."""
    await tailnet.leave()


@group.procedure("join")
async def join(tailnet: TailnetService) -> JoinCommand:
    """A one-time key for one more device of the owner, and the command that uses it."""
    return await tailnet.join()
