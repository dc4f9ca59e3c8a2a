"""The procedures about callers."""

from controlplane.auth.identity import Identity
from controlplane.auth.policy import Right, rights
from controlplane.procedures import Group
from protocol.auth import WhoAmI


class Nothing:
    """The service of procedures that need none."""


group = Group("auth", Nothing)


@group.procedure("whoami", right=Right.WHOAMI)
async def whoami(_: Nothing, identity: Identity) -> WhoAmI:
    """How the caller is recognised, and what it may."""
    return WhoAmI(
        kind=identity.kind,
        may=sorted(right.value for right in rights(identity)),
        login=identity.login,
        node=identity.node,
        workspace=identity.workspace,
        tags=list(identity.tags),
        capabilities=list(identity.capabilities),
    )
