"""Whether a control plane is there (``GET /health``) and can work (``GET /ready``). No envelope: machines ask."""

from protocol.wire import Wire


class Health(Wire, frozen=True):
    """Answer of ``/health``, to anybody."""

    ok: bool
    version: str
    api_version: int


class Check(Wire, frozen=True):
    """One thing that the control plane needs. ``detail`` is a sentence where it is not ok, or ``degraded``: it works,
    and a person should mend something."""

    name: str
    ok: bool
    detail: str | None = None
    degraded: bool = False


class Readiness(Wire, frozen=True):
    """Answer of ``/ready``: 200 when all is well, else 503 with the first ``error``."""

    ready: bool
    checks: list[Check]
    error: str | None = None
