"""Stands in front of the application, one for each listener: no request and no WebSocket comes in around it."""

from collections.abc import Callable, Collection

from controlplane.asgi import IDENTITY, App, Receive, Scope, Send
from controlplane.auth.headers import check_origin, normal_host
from controlplane.auth.identity import ANONYMOUS, Identity
from controlplane.auth.policy import Right, demand
from controlplane.auth.service import Resolver
from controlplane.errors import NotAuthenticated, PerryError
from controlplane.problems import IDENTITY_REFUSED, refuse

OPEN = "/health"
"""What callers without credentials may GET."""


class Door:
    """Refuses what comes from a foreign page or under a foreign name, and says who everybody else is.

    ``resolver`` is what this listener trusts; ``names`` are more hosts that a request may mean, as they are now. A
    WebSocket without credentials is let in as ANONYMOUS: its route asks for a token in the first frame.
    """

    def __init__(
        self,
        app: App,
        *,
        resolver: Resolver,
        allowed_hosts: tuple[str, ...] = (),
        names: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._app = app
        self._names = names
        self._resolver = resolver
        self._allowed = frozenset(normal_host(host) for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            scope[IDENTITY] = self._admit(scope)
        except PerryError as exc:
            await refuse(scope, receive, send, exc)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> Identity:
        server = scope.get("server")
        allowed = self._allowed.union(normal_host(name) for name in self._names())
        check_origin(scope["headers"], allowed=allowed, arrived_at=server[0] if server else None)
        try:
            identity = self._resolver.identify(scope["headers"])
        except NotAuthenticated:
            scope[IDENTITY_REFUSED] = True
            raise
        if identity is ANONYMOUS and scope["type"] == "http":
            is_open = scope["method"] == "GET" and scope["path"] == OPEN
            demand(identity, Right.HEALTH if is_open else Right.MANAGE)
        elif identity is not ANONYMOUS and scope["type"] == "websocket":
            # Refused before it is opened, where there is still room for a sentence.
            demand(identity, Right.MANAGE)
        return identity
