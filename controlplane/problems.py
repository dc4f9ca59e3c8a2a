"""Errors on their way out: every failure of a request becomes oRPC's error envelope, here and nowhere else."""

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.enums import MediaType
from litestar.exceptions import HTTPException, InternalServerException
from litestar.types import ExceptionHandlersMap

from controlplane.asgi import CLIENT_LEFT, REQUEST_ID, Receive, Scope, Send
from controlplane.errors import PerryError
from protocol.errors import STATUS, ErrorCode, WireError

log = logging.getLogger(__name__)

NOT_AUTHORISED: Final = 4001
"""WebSocket close code for a caller that we do not know, or who may not."""

_CODES: dict[int, ErrorCode] = {
    400: ErrorCode.BAD_REQUEST,
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_SUPPORTED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    503: ErrorCode.SERVICE_UNAVAILABLE,
}


class ErrorEnvelope(msgspec.Struct, frozen=True):
    """An error as oRPC's clients read it."""

    json: WireError


def wire(code: ErrorCode, message: str, data: Any = None) -> WireError:
    """An error with the status of its code."""
    return WireError(defined=False, code=code.value, status=STATUS[code], message=message, data=data)


def of(exc: BaseException, scope: Mapping[str, object]) -> WireError:
    """What a client is told about an exception. A crash tells only where its details are: in the log."""
    if isinstance(exc, PerryError):
        return wire(exc.code, exc.message, exc.data)
    if isinstance(exc, HTTPException) and exc.status_code < 500:
        return _of_framework(exc, scope)
    if CLIENT_LEFT in scope and isinstance(exc, InternalServerException):
        return wire(ErrorCode.BAD_REQUEST, "The client left before its request was whole.")  # Nobody reads this.
    request_id = scope.get(REQUEST_ID)
    log.error("a request crashed", exc_info=exc)
    return wire(
        ErrorCode.INTERNAL_SERVER_ERROR,
        f"The control plane failed; its log (`perry agent logs`) has the details under request {request_id}.",
        {"requestId": request_id},
    )


def _of_framework(exc: HTTPException, scope: Mapping[str, object]) -> WireError:
    code = _CODES.get(exc.status_code, ErrorCode.BAD_REQUEST)
    where = f"{scope.get('method', 'GET')} {scope.get('path', '/')}"
    match code:
        case ErrorCode.NOT_FOUND:
            return wire(code, f"There is no {where}; GET /schema lists what there is.")
        case ErrorCode.METHOD_NOT_SUPPORTED:
            return wire(code, f"{where} is not supported; GET /schema lists what is.")
        case ErrorCode.PAYLOAD_TOO_LARGE:
            return wire(code, "The body is too large; send less.")
        case _:
            return wire(code, f"The request is wrong: {exc.detail or 'it could not be read'}.")


def body(error: WireError) -> bytes:
    """The envelope as JSON."""
    return msgspec.json.encode(ErrorEnvelope(error))


def handle(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
    """Litestar's exception handler for everything."""
    error = of(exc, request.scope)
    return Response(body(error), status_code=error.status, media_type=MediaType.JSON, headers=_headers(error))


HANDLERS: ExceptionHandlersMap = {HTTPException: handle, Exception: handle}


IDENTITY_REFUSED: Final = "perry.identity_refused"
"""In the scope of a connection whose credentials, not whose origin, were refused."""


async def refuse(scope: Scope, receive: Receive, send: Send, exc: PerryError) -> None:
    """Answer a connection that no route shall see.

    A WebSocket whose credentials are wrong is closed with 4001, which a browser can tell apart; one that is wrong in
    itself gets an HTTP answer in place of the upgrade.
    """
    error = of(exc, scope)
    if scope["type"] != "websocket":
        await answer(send, error)
    elif IDENTITY_REFUSED in scope:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": NOT_AUTHORISED, "reason": "not authorised"})
    elif can_deny(scope):
        await answer(send, error, "websocket.http.response")
    else:
        await send({"type": "websocket.close", "code": 4000 + error.status, "reason": ""})


def can_deny(scope: Scope) -> bool:
    """Whether the server can answer a WebSocket's handshake with an HTTP status of ours."""
    return "websocket.http.response" in (scope.get("extensions") or {})


async def answer(send: Send, error: WireError, kind: str = "http.response") -> None:
    """Send an error as the whole answer."""
    content = body(error)
    headers = {"content-type": "application/json", "content-length": str(len(content)), **_headers(error)}
    encoded = [(key.encode(), value.encode()) for key, value in headers.items()]
    await send({"type": f"{kind}.start", "status": error.status, "headers": encoded})
    await send({"type": f"{kind}.body", "body": content})


def _headers(error: WireError) -> dict[str, str]:
    if error.code == ErrorCode.UNAUTHORIZED:
        return {"www-authenticate": "Bearer"}
    return {}
