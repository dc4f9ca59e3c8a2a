"""Who is asking."""

from enum import StrEnum

from protocol.wire import Wire


class IdentityKind(StrEnum):
    """How a caller was recognised. ``anonymous`` may read the health of the server, and nothing else."""

    TOKEN = "token"
    OWNER = "owner"
    WORKSPACE = "workspace"
    NODE = "node"
    ANONYMOUS = "anonymous"


class WhoAmI(Wire, frozen=True):
    """Output of ``auth.whoami``. ``login`` and ``node`` come from the tailnet."""

    kind: IdentityKind
    may: list[str]
    login: str | None = None
    node: str | None = None


class AuthFrame(Wire, frozen=True, tag="auth", tag_field="type"):
    """The first frame on a WebSocket of a client that cannot send headers, as in a browser."""

    token: str
