"""The wake door, at the URL that prompts have had until now, and the procedures of wakes."""

from typing import Any, Final

import msgspec
from litestar import Request, Response, post
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler

from controlplane.auth.guards import identity_of, needs
from controlplane.auth.policy import Right
from controlplane.errors import InvalidInput, NotReady, PerryError, TooLarge, TooMany
from controlplane.procedures import Group
from controlplane.wake.service import WakeService
from protocol.wake import (
    DOOR_LIMIT,
    WAKE_PATH,
    DoorAnswer,
    ListWakes,
    Retried,
    RetryWakes,
    ShownWake,
    TestWake,
    Wake,
    WakeRef,
    Wakes,
)

group = Group("wakes", WakeService)

KEY_LIMIT: Final = 256
"""Characters of an Idempotency-Key that count."""

_STATUS: Final[dict[type[PerryError], int]] = {InvalidInput: 400, TooLarge: 413, TooMany: 429, NotReady: 503}


@group.procedure("list")
async def list_(wakes: WakeService, wanted: ListWakes) -> Wakes:
    """Wakes, the newest first, and every gateway."""
    return wakes.page(wanted)


@group.procedure("show")
async def show(wakes: WakeService, wanted: WakeRef) -> ShownWake:
    """All of one wake, with each attempt's answer."""
    return wakes.show(wanted)


@group.procedure("retry")
async def retry(wakes: WakeService, wanted: RetryWakes) -> Retried:
    """Try now what waits, was rejected or is dead: one wake, or all. What was delivered stays so."""
    return wakes.retry(wanted)


@group.procedure("test")
async def test(wakes: WakeService, wanted: TestWake) -> Wake:
    """Wake a gateway once with a text that says that it is a test, and wait for its answer."""
    return await wakes.test(wanted)


def wake_route(wakes: WakeService) -> HTTPRouteHandler:
    """``POST /hooks/wake``, which answers as the gateways of clawdbot and openclaw do."""

    @post(
        WAKE_PATH,
        name="wake",
        opt=needs(Right.WAKE),
        status_code=200,
        media_type=MediaType.JSON,
        request_max_body_size=DOOR_LIMIT,
    )
    async def wake(request: Request[Any, Any, Any]) -> Response[bytes]:
        key = request.headers.get("idempotency-key", "")[:KEY_LIMIT]
        try:
            id_, mode = await wakes.knock(await request.body(), identity_of(request), key)
        except (InvalidInput, TooLarge, TooMany, NotReady) as exc:
            headers = {"retry-after": str(exc.data["retryAfter"])} if isinstance(exc, TooMany) else {}
            return _answer(DoorAnswer(ok=False, error=exc.message), _STATUS[type(exc)], headers)
        return _answer(DoorAnswer(ok=True, mode=mode, id=id_), 200, {})

    return wake


def _answer(answer: DoorAnswer, status: int, headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(answer), status_code=status, media_type=MediaType.JSON, headers=headers)
