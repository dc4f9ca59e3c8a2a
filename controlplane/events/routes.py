"""``/events``: a snapshot, then changes (:mod:`protocol.events`)."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import anyio
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import WebsocketRouteHandler

from controlplane import cursors
from controlplane.auth.guards import accept, needs
from controlplane.auth.policy import Right
from controlplane.auth.service import Tokens
from controlplane.events.bus import Bus, Subscription
from protocol.workspaces import Workspace

GOING_AWAY: Final = 1001
TOO_SLOW: Final = 1013
"""Try again later: what the client did not read is no longer kept for it."""

_CLOSING_SECONDS = 1.0


def route(bus: Bus, snapshot: Callable[[], Sequence[Workspace]], tokens: Tokens) -> WebsocketRouteHandler:
    """Serve the stream. ``snapshot`` is asked for what there is, and answers at once."""

    @websocket("/events", name="events", opt=needs(Right.MANAGE, first_frame=True))
    async def events(socket: WebSocket[Any, Any, Any]) -> None:
        if not await accept(socket, tokens, Right.MANAGE):
            return
        epoch, after = socket.query_params.get("epoch"), cursors.number(socket.query_params.get("after"))
        only = socket.query_params.get("workspace")
        with bus.subscribe(snapshot, epoch=epoch, after=after, only=only) as subscription:
            gone = await _follow(socket, subscription)
        if gone:
            return
        # A client that reads nothing would otherwise hold this for as long as its connection stands.
        with anyio.move_on_after(_CLOSING_SECONDS):
            if subscription.lost:
                await socket.close(TOO_SLOW, "too slow; connect again")
            else:
                await socket.close(GOING_AWAY, "the control plane stops")

    return events


async def _follow(socket: WebSocket[Any, Any, Any], subscription: Subscription) -> bool:
    """Send what there is until the client has gone (True) or the subscription has ended (False)."""
    gone = False

    async with anyio.create_task_group() as group:

        async def listen() -> None:
            nonlocal gone
            while (await socket.receive())["type"] != "websocket.disconnect":
                pass  # What a client says after its first frame means nothing here.
            gone = True
            group.cancel_scope.cancel()

        async def end() -> None:
            await subscription.ended.wait()
            group.cancel_scope.cancel()

        group.start_soon(listen)
        group.start_soon(end)
        try:
            async for frame in subscription.frames():
                await socket.send_text(frame)
        except (WebSocketDisconnect, OSError):  # The client went while we sent.
            gone = True
            group.cancel_scope.cancel()
    return gone
