"""Who is asking."""

import msgspec

from protocol.auth import IdentityKind


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """A caller. ``login`` and ``node`` are known for callers from the tailnet."""

    kind: IdentityKind
    login: str | None = None
    node: str | None = None


ANONYMOUS = Identity(kind=IdentityKind.ANONYMOUS)
TOKEN = Identity(kind=IdentityKind.TOKEN)
