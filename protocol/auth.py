"""Who is asking."""

import msgspec

from protocol.wire import Told, Wire


class IdentityKind(Told):
    """How a caller was recognised. ``anonymous`` may read the health of the server, and nothing else.

    ``owner``, ``workspace`` and ``node`` (any other device) come from the tailnet.
    """

    TOKEN = "token"
    OWNER = "owner"
    WORKSPACE = "workspace"
    NODE = "node"
    ANONYMOUS = "anonymous"


class WhoAmI(Wire, frozen=True):
    """Output of ``auth.whoami``. All but ``kind`` and ``may`` comes from the tailnet.

    ``node`` is the device's full name; ``capabilities`` are the names of those that its policy grants.
    """

    kind: IdentityKind
    may: list[str]
    login: str | None = None
    node: str | None = None
    workspace: str | None = None
    tags: list[str] = msgspec.field(default_factory=list)
    capabilities: list[str] = msgspec.field(default_factory=list)


class AuthFrame(Wire, frozen=True, tag="auth", tag_field="type"):
    """The first frame on a WebSocket of a client that cannot send headers, as in a browser."""

    token: str
