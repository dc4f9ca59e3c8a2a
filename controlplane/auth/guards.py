"""What each route asks for, checked before its handler runs. A route that says nothing is refused to everybody."""

from typing import Any, Final

import anyio
import msgspec
from litestar.connection import ASGIConnection, WebSocket
from litestar.exceptions import WebSocketDisconnect, WebSocketException
from litestar.handlers import BaseRouteHandler

from controlplane.asgi import IDENTITY
from controlplane.auth.identity import ANONYMOUS, Identity
from controlplane.auth.policy import Right, demand
from controlplane.auth.service import Tokens
from controlplane.errors import NotAllowed, NotAuthenticated, PerryError
from controlplane.problems import NOT_AUTHORISED
from protocol.auth import AuthFrame

FIRST_FRAME_SECONDS: Final = 5.0

Connection = ASGIConnection[Any, Any, Any, Any]


def needs(right: Right, *, first_frame: bool = False) -> dict[str, Any]:
    """The ``opt`` of a route. ``first_frame`` is for WebSockets that ask for a token themselves."""
    return {"right": right, "first_frame": first_frame}


def identity_of(connection: Connection) -> Identity:
    """Who is asking; ANONYMOUS where no door has said."""
    found = connection.scope.get(IDENTITY)
    return found if isinstance(found, Identity) else ANONYMOUS


def guard(connection: Connection, handler: BaseRouteHandler) -> None:
    """The application's guard."""
    if handler.opt.get("first_frame"):
        return
    right = handler.opt.get("right")
    try:
        if not isinstance(right, Right):
            raise NotAllowed("This route says of nobody that they may use it.")
        demand(identity_of(connection), right)
    except PerryError as exc:
        if isinstance(connection, WebSocket):
            raise WebSocketException(detail=exc.message, code=NOT_AUTHORISED) from exc
        raise


async def accept(socket: WebSocket[Any, Any, Any], tokens: Tokens, right: Right) -> bool:
    """Accept a WebSocket of somebody who may. False where it is closed: by us with 4001, or by the client.

    A client that cannot send headers, as in a browser, has five seconds to send an AuthFrame.
    """
    await socket.accept()
    identity = identity_of(socket)
    try:
        if identity is ANONYMOUS:
            with anyio.fail_after(FIRST_FRAME_SECONDS):
                identity = tokens.identify(msgspec.json.decode(await socket.receive_text(), type=AuthFrame).token)
        demand(identity, right)
    except (NotAuthenticated, NotAllowed, TimeoutError, msgspec.DecodeError):
        await socket.close(NOT_AUTHORISED, "not authorised")
        return False
    except WebSocketDisconnect:
        return False
    return True
