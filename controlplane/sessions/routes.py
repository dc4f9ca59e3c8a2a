"""The procedures of sessions, and the WebSockets ``/sessions`` and ``/sessions/<name>`` (:mod:`protocol.sessions`)."""

from contextlib import suppress
from typing import Any, Final, cast

import anyio
import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import WebsocketRouteHandler
from litestar.params import FromPath

from controlplane import cursors, problems
from controlplane.auth.guards import accept, identity_of, needs
from controlplane.auth.policy import Right, rights
from controlplane.auth.service import Tokens
from controlplane.errors import InvalidInput, NotFound
from controlplane.procedures import Group
from controlplane.sessions.changes import Changes
from controlplane.sessions.service import Sessions
from controlplane.sessions.watching import Watcher
from protocol.auth import AuthFrame
from protocol.sessions import (
    DeleteSession,
    Hits,
    ListMessages,
    ListSessions,
    Messages,
    RenameSession,
    SearchSessions,
    SessionInfo,
    SessionRef,
    Subscribe,
)
from protocol.sessions import Sessions as Page

GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
TOO_SLOW: Final = 1013
NO_SUCH_WORKSPACE: Final = 4404
"""Where it turns out after the handshake: for clients that say their token in the first frame."""

_CLOSING_SECONDS = 1.0

group = Group("sessions", Sessions)


@group.procedure("list")
async def list_(sessions: Sessions, wanted: ListSessions) -> Page:
    """Sessions of all workspaces, or of one, also of those that are stopped; the most recently active first."""
    return await sessions.list_(wanted)


@group.procedure("get")
async def get(sessions: Sessions, wanted: SessionRef) -> SessionInfo:
    """One session. NOT_FOUND where there is none."""
    return await sessions.get(wanted)


@group.procedure("messages")
async def messages(sessions: Sessions, wanted: ListMessages) -> Messages:
    """Messages of a session; fewer than `limit` where they are large."""
    return await sessions.messages(wanted)


@group.procedure("search")
async def search(sessions: Sessions, wanted: SearchSessions) -> Hits:
    """Messages that have all the words: what was said before what tools gave back, in each the newest first."""
    return await sessions.search(wanted)


@group.procedure("rename")
async def rename(sessions: Sessions, wanted: RenameSession) -> SessionInfo:
    """Another title, in the agent's own store. SERVICE_UNAVAILABLE where the workspace does not run."""
    return await sessions.rename(wanted)


@group.procedure("delete")
async def delete(sessions: Sessions, wanted: DeleteSession) -> None:
    """Delete it from the index; with `inWorkspace` from the agent's own store too, where it is gone for good."""
    await sessions.delete(wanted)


def routes(sessions: Sessions, changes: Changes, tokens: Tokens) -> list[WebsocketRouteHandler]:
    """Serve the streams."""
    opt = needs(Right.MANAGE, first_frame=True)

    @websocket("/sessions", name="sessions", opt=opt)
    async def all_(socket: WebSocket[Any, Any, Any]) -> None:
        await _serve(socket, sessions, changes, tokens, None)

    @websocket("/sessions/{name:str}", name="sessions of one", opt=opt)
    async def one(socket: WebSocket[Any, Any, Any], name: FromPath[str]) -> None:
        await _serve(socket, sessions, changes, tokens, name)

    return [all_, one]


async def _serve(
    socket: WebSocket[Any, Any, Any], sessions: Sessions, changes: Changes, tokens: Tokens, name: str | None
) -> None:
    if name is not None and Right.MANAGE in rights(identity_of(socket)):
        try:
            await sessions.must_know(name)
        except NotFound as exc:
            await problems.refuse(socket.scope, socket.receive, socket.send, exc)  # type: ignore[arg-type]
            return
    if not await accept(socket, tokens, Right.MANAGE):
        return
    epoch, after = socket.query_params.get("epoch"), cursors.number(socket.query_params.get("after"))
    with Watcher(sessions, changes, name, epoch=epoch, after=after) as watcher:
        why = await _follow(socket, watcher)
    if why is None:
        return
    # A client that reads nothing would otherwise hold this for as long as its connection stands.
    with anyio.move_on_after(_CLOSING_SECONDS):
        await socket.close(*why)


async def _follow(socket: WebSocket[Any, Any, Any], watcher: Watcher) -> tuple[int, str] | None:
    """Send what there is, until there is a reason to close, or the client has gone (None)."""
    why: tuple[int, str] | None = None

    async with anyio.create_task_group() as group:

        def end(reason: tuple[int, str] | None) -> None:
            nonlocal why
            why = reason
            group.cancel_scope.cancel()

        async def listen() -> None:
            while (message := cast(dict[str, Any], await socket.receive()))["type"] != "websocket.disconnect":
                try:
                    _hear(watcher, message.get("text") or message.get("bytes") or "")
                except InvalidInput as exc:
                    end((POLICY_VIOLATION, exc.message[:120]))
                    return
            end(None)

        async def wait() -> None:
            await watcher.ended.wait()
            end((TOO_SLOW, "too slow; connect again") if watcher.lost else (GOING_AWAY, "the control plane stops"))

        group.start_soon(listen)
        group.start_soon(wait)
        try:
            async for frame in watcher.frames():
                await socket.send_text(frame)
        except NotFound:
            end((NO_SUCH_WORKSPACE, "there is no such workspace"))
        except (WebSocketDisconnect, OSError):  # The client went while we sent.
            end(None)
    return why


def _hear(watcher: Watcher, frame: str | bytes) -> None:
    """A client that says its token although a header had it is not wrong."""
    with suppress(msgspec.DecodeError, UnicodeError):
        msgspec.json.decode(frame, type=AuthFrame)
        return
    try:
        watcher.subscribe(msgspec.json.decode(frame, type=Subscribe))
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise InvalidInput(f"A frame could not be read: {exc}") from exc
