"""ASGI's types, and the keys that our own layers leave in a connection's scope."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REQUEST_ID: Final = "perry.request_id"
"""Made for each connection by :mod:`controlplane.system.requests`, never taken from a client."""

CLIENT_LEFT: Final = "perry.client_left"
"""Set when a client went away before its request was whole."""

IDENTITY: Final = "perry.identity"
"""Who is asking, put there by the listener's :class:`~controlplane.auth.door.Door`."""
