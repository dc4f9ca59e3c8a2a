"""Recognises callers. How depends on the listener that they came through, never on what a header claims."""

import hmac
from typing import Protocol

from controlplane.auth.headers import Headers, bearer
from controlplane.auth.identity import ANONYMOUS, TOKEN, Identity
from controlplane.errors import NotAuthenticated


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
