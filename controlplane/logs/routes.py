"""``GET /logs/<name>``: log lines as JSON, one a line, for as long as the client reads."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from litestar import Request, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Stream

from controlplane.auth.guards import needs
from controlplane.auth.policy import Right
from controlplane.errors import InvalidInput
from controlplane.logs.service import Logs
from controlplane.workspaces.log_times import exact
from protocol.workspaces import LogLine, WorkspaceLogs

MEDIA_TYPE = "application/x-ndjson"


def route(logs: Logs) -> HTTPRouteHandler:
    """Serve them."""

    @get("/logs/{name:str}", name="logs", opt=needs(Right.MANAGE), media_type=MEDIA_TYPE)
    async def follow(request: Request[Any, Any, Any], name: FromPath[str]) -> Stream:
        given = {key: request.query_params[key] for key in ("tail", "since") if key in request.query_params}
        logs.must_exist(name)
        try:
            wanted = msgspec.convert({"name": name, **given}, WorkspaceLogs, strict=False)
        except msgspec.ValidationError as exc:
            raise InvalidInput(f"The query is wrong: {exc}.") from exc
        exact(wanted.since)
        return Stream(_lines(logs.follow(wanted)), media_type=MEDIA_TYPE)

    return follow


async def _lines(items: AsyncIterator[LogLine | None]) -> AsyncIterator[bytes]:
    """An empty line says that there is nothing new: whoever hears nothing at all has lost the connection."""
    async for item in items:
        yield (b"" if item is None else msgspec.json.encode(item)) + b"\n"
