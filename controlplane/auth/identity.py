"""Who is asking."""

import msgspec

from protocol.auth import IdentityKind


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A caller. All but ``kind`` is known for callers from the tailnet alone.

    ``node`` is a device's full name. ``workspace`` names ours. ``agents_machine`` marks the node of the machine that
    the control plane runs on: it is nobody, since a workspace might speak through it.
    """

    kind: IdentityKind
    login: str | None = None
    node: str | None = None
    workspace: str | None = None
    tags: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    agents_machine: bool = False


ANONYMOUS = Identity(kind=IdentityKind.ANONYMOUS)
TOKEN = Identity(kind=IdentityKind.TOKEN)
