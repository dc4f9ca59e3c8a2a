"""Recognises callers. How depends on the listener that they came through, never on what a header claims."""

import hmac
import time
from collections.abc import Callable, Collection
from typing import Final, Protocol

from controlplane.auth.headers import Headers, bearer, single
from controlplane.auth.identity import ANONYMOUS, TOKEN, Identity
from controlplane.auth.recognition import WorkspaceOf, peer_of, recognised
from controlplane.errors import InvalidInput, NotAuthenticated

IDENTITY_HEADER: Final = "Perry-Identity"
"""What the gateway says of each request's sender, on the socket that it alone reaches."""


class Resolver(Protocol):
    """What one listener trusts."""

    def identify(self, headers: Headers) -> Identity:
        """Who sent a request with these headers; ANONYMOUS where it has no credentials, NotAuthenticated where they
        are wrong."""


class Tokens:
    """The bearer token of this control plane."""

    def __init__(self, token: str) -> None:
        if len(token) < 32:
            raise ValueError("a bearer token has at least 32 characters")
        self._token = token.encode()

    def identify(self, token: str) -> Identity:
        """TOKEN for ours, compared in constant time; else NotAuthenticated."""
        if not hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._token):
            raise NotAuthenticated(
                "This token is not the agent's; `perry agent token` on its machine prints the right one."
            )
        return TOKEN


class TcpResolver:
    """For a TCP listener, which anybody may reach: the bearer token counts, and nothing else."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def identify(self, headers: Headers) -> Identity:
        token = bearer(headers)
        return ANONYMOUS if token is None else self._tokens.identify(token)


class GatewayResolver:
    """For the socket in a folder that its owner alone may enter, where the gateway passes on requests from the tailnet.

    The gateway takes away what a caller claims, and says who WireGuard proves it to be. Other programs that can reach
    this socket can read the agent's token too.
    """

    def __init__(
        self,
        *,
        owners: Callable[[], Collection[str]],
        workspace_of: WorkspaceOf,
        own_addresses: Callable[[], Collection[str]],
    ) -> None:
        self._owners = owners
        self._workspace_of = workspace_of
        self._own_addresses = own_addresses

    def identify(self, headers: Headers) -> Identity:
        """Never ANONYMOUS: NotAuthenticated where the gateway's word is missing, doubled or malformed."""
        try:
            said = single(headers, IDENTITY_HEADER)
            if said is None:
                raise InvalidInput("it is missing")
            peer = peer_of(said)
        except InvalidInput as exc:
            raise NotAuthenticated(
                f"This socket is for the gateway, which says who sends a request in the header {IDENTITY_HEADER}; "
                "other programs use the agent's address and token."
            ) from exc
        return recognised(
            peer, owners=self._owners(), workspace_of=self._workspace_of, own_addresses=self._own_addresses()
        )


class Remembered:
    """Asks for addresses again when what it knows is older than ``seconds``: asking starts a program."""

    def __init__(self, ask: Callable[[], Collection[str]], *, seconds: float = 5.0) -> None:
        self._ask = ask
        self._seconds = seconds
        self._known: Collection[str] = ()
        self._until = 0.0

    def __call__(self) -> Collection[str]:
        if (now := time.monotonic()) >= self._until:
            self._known, self._until = self._ask(), now + self._seconds
        return self._known
