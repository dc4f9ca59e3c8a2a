"""The control plane itself: its procedures, and the plain routes that machines ask."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler

from controlplane.auth.guards import needs
from controlplane.auth.policy import Right
from controlplane.procedures import Group
from controlplane.system.metrics import CONTENT_TYPE, Metrics
from controlplane.system.readiness import Probe, readiness
from controlplane.system.service import Agent
from protocol.agent import AgentInfo, Killed
from protocol.health import Health
from protocol.version import API_VERSION, VERSION

agent = Group("agent", Agent)


@agent.procedure("info")
async def info(agent: Agent) -> AgentInfo:
    """What runs here."""
    return await agent.info()


@agent.procedure("kill")
async def kill(agent: Agent) -> Killed:
    """Stop the control plane, gracefully. Workspaces go on running."""
    return await agent.kill()


def routes(metrics: Metrics, probes: Mapping[str, Probe], schema: Callable[[], bytes]) -> list[HTTPRouteHandler]:
    """``/health``, ``/ready``, ``/metrics`` and ``/schema``."""

    @get("/health", name="health", opt=needs(Right.HEALTH))
    async def health(request: Request[Any, Any, Any]) -> Response[bytes]:
        return _json(Health(ok=True, version=VERSION, api_version=API_VERSION))

    @get("/ready", name="ready", opt=needs(Right.MANAGE))
    async def ready(request: Request[Any, Any, Any]) -> Response[bytes]:
        found = await readiness(probes)
        return _json(found, status=200 if found.ready else 503)

    @get("/metrics", name="metrics", opt=needs(Right.MANAGE))
    async def show_metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @get("/schema", name="schema", opt=needs(Right.MANAGE))
    async def show_schema(request: Request[Any, Any, Any]) -> Response[bytes]:
        return Response(schema(), media_type=MediaType.JSON)

    return [health, ready, show_metrics, show_schema]


def _json(value: msgspec.Struct, *, status: int = 200) -> Response[bytes]:
    return Response(msgspec.json.encode(value), status_code=status, media_type=MediaType.JSON)
