"""The wake door, at the URL that prompts have had until now."""

from typing import Any

from litestar import Request, post
from litestar.handlers import HTTPRouteHandler

from controlplane.auth.guards import needs
from controlplane.auth.policy import Right
from controlplane.errors import NotYet


def wake_route() -> HTTPRouteHandler:
    """``POST /hooks/wake``. It refuses, so that nobody takes a wake that goes nowhere for one that is delivered."""

    @post("/hooks/wake", name="wake", opt=needs(Right.WAKE), status_code=200)
    async def wake(request: Request[Any, Any, Any]) -> None:
        raise NotYet("This Perry does not pass on wakes yet; send them to your assistant's own gateway.")

    return wake
