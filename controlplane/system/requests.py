"""Around every request: its id, its line in the log, its place in the metrics, its end when the control plane stops."""

import logging
import secrets
import time
from typing import Final

import anyio

from controlplane import problems
from controlplane.asgi import CLIENT_LEFT, IDENTITY, REQUEST_ID, App, Message, Receive, Scope, Send
from controlplane.auth.identity import ANONYMOUS
from controlplane.errors import PerryError
from controlplane.system.logs import request_id
from controlplane.system.metrics import Metrics
from protocol.errors import ErrorCode
from protocol.version import API_HEADER, API_VERSION, VERSION, VERSION_HEADER

log = logging.getLogger(__name__)

QUIET: Final = frozenset({"/health", "/ready", "/metrics"})
"""Asked every few seconds by machines: their lines are for debugging."""

_VERSIONS: Final = (
    (VERSION_HEADER.lower().encode(), VERSION.encode()),
    (API_HEADER.lower().encode(), str(API_VERSION).encode()),
)

UNKNOWN_ROUTE: Final = "(none)"


class Stopping(PerryError):
    """The control plane stops while a request is answered."""

    code = ErrorCode.SERVICE_UNAVAILABLE

    def __init__(self) -> None:
        super().__init__(
            "The control plane is stopping; what was begun goes on when it runs again: look with `perry list`."
        )


class Requests:
    """The outermost layer, shared by all listeners."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._running: set[anyio.CancelScope] = set()

    def around(self, app: App) -> App:
        """The application with all that is said above."""

        async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] in ("http", "websocket"):
                await self._serve(app, scope, receive, send)
            else:
                await app(scope, receive, send)

        return wrapped

    @property
    def running(self) -> int:
        """Requests that are being answered, WebSockets not counted."""
        return len(self._running)

    def end(self) -> None:
        """Answer everything that still runs with SERVICE_UNAVAILABLE."""
        for scope in self._running:
            scope.cancel()

    async def _serve(self, app: App, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _Answer(scope, send)
        scope[REQUEST_ID] = answer.request_id
        token = request_id.set(answer.request_id)
        began = time.perf_counter()

        async def listen() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect" and answer.status is None:
                scope[CLIENT_LEFT] = True
            return message

        try:
            if scope["type"] == "http":
                await self._bounded(app, scope, listen, answer)
            else:
                await app(scope, receive, answer.send)
        except OSError:
            scope[CLIENT_LEFT] = True  # uvicorn says so when it cannot send.
        except Exception as exc:
            # Litestar answers its own crashes; this is for what fails outside of it, or after the answer has begun.
            error = problems.of(exc, scope)
            if answer.status is not None or scope["type"] == "websocket":
                raise
            await problems.answer(answer.send, error)
        finally:
            self._record(scope, answer, time.perf_counter() - began)
            request_id.reset(token)

    async def _bounded(self, app: App, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        with anyio.CancelScope() as bound:
            self._running.add(bound)
            try:
                await app(scope, receive, answer.send)
            finally:
                self._running.discard(bound)
        if bound.cancelled_caught and answer.status is None:
            await problems.answer(answer.send, problems.of(Stopping(), scope))

    def _record(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        method = scope.get("method", "WS")
        route = str(scope.get("path_template") or UNKNOWN_ROUTE)
        status = 499 if CLIENT_LEFT in scope else answer.status or 500
        self._metrics.request(method, route, status, seconds)
        level = logging.DEBUG if scope["path"] in QUIET and status < 400 else logging.INFO
        identity = scope.get(IDENTITY, ANONYMOUS)
        log.log(
            level,
            "request",
            extra={
                "fields": {
                    "method": method,
                    "path": scope["path"],
                    "status": status,
                    "ms": round(seconds * 1000, 1),
                    "identity": identity.kind.value,
                    **({"who": who} if (who := " on ".join(filter(None, (identity.login, identity.node)))) else {}),
                }
            },
        )


class _Answer:
    """What a connection was answered, seen on its way out."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.request_id = secrets.token_hex(8)
        self.status: int | None = None
        self._scope = scope
        self._send = send

    async def send(self, message: Message) -> None:
        """Pass on a message, with the request's id on the first."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close" and self.status is None:
            await self._deny(message["code"])
            return
        else:
            await self._send(message)
            return
        headers = [*message.get("headers", ()), (b"x-request-id", self.request_id.encode()), *_VERSIONS]
        await self._send({**message, "headers": headers})

    async def _deny(self, code: int) -> None:
        """A WebSocket is refused before its upgrade: a browser sees only that, other clients see an HTTP status."""
        if "route_handler" not in self._scope:
            error = problems.wire(ErrorCode.NOT_FOUND, f"There is no WebSocket at {self._scope['path']}.")
        else:
            error = problems.wire(ErrorCode.INTERNAL_SERVER_ERROR, f"The WebSocket failed (code {code}).")
        if problems.can_deny(self._scope):
            await problems.answer(self.send, error, "websocket.http.response")
        else:
            self.status = error.status
            await self._send({"type": "websocket.close", "code": 4000 + error.status, "reason": ""})
