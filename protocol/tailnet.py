"""The tailnet, as ``perry tailnet`` shows it."""

import msgspec

from protocol.wire import Wire


class TailnetNode(Wire, frozen=True):
    """A device on the tailnet. ``workspace`` names ours."""

    name: str
    ips: list[str]
    online: bool
    tags: list[str]
    user: str | None = None
    workspace: str | None = None


class GatewayStatus(Wire, frozen=True):
    """The control plane's own place on the tailnet: `http://<name>`. ``error`` says what is in the way."""

    name: str
    online: bool
    ips: list[str]
    error: str | None = None


class TailnetStatus(Wire, frozen=True):
    """Output of ``tailnet.status``.

    ``ready`` says that nodes can join now; ``error`` what to do where they cannot; ``warning`` what to know
    all the same. ``owners_warning`` says that nobody, or not every owner, gets in. ``credential`` names what the
    coordinator is asked with, without its secret; ``credential_expires`` is RFC 3339.
    """

    provider: str
    ready: bool
    owners: list[str]
    nodes: list[TailnetNode]
    control_url: str | None = None
    domain: str | None = None
    error: str | None = None
    warning: str | None = None
    gateway: GatewayStatus | None = None
    credential: str | None = None
    credential_expires: str | None = None
    owners_warning: str | None = None


class JoinCommand(Wire, frozen=True):
    """Output of ``tailnet.join``: how one more device of the owner joins.

    ``key`` is valid for one device and ``expires`` (RFC 3339). ``environment`` must be set for the device's tailscaled.
    ``notes`` are sentences about devices that it does not fit, and the like.
    """

    command: str
    key: str
    expires: str
    control_url: str
    environment: dict[str, str]
    notes: list[str] = msgspec.field(default_factory=list)
