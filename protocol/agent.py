"""The control plane itself (``perry agent``)."""

from protocol.wire import Wire


class AgentInfo(Wire, frozen=True):
    """Output of ``agent.info``. ``uptime`` is in seconds."""

    version: str
    hostname: str
    uptime: float
    workspaces_count: int
    docker_version: str | None = None
    tailnet_provider: str | None = None


class Killed(Wire, frozen=True):
    """Output of ``agent.kill``: the control plane stops gracefully after this answer."""

    ok: bool
