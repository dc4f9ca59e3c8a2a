"""One attempt: a wake is sent to a gateway, and its answer heard."""

import ssl
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Final

import anyio
import httpcore
import msgspec

from controlplane.wake.dialer import Dialer
from controlplane.wake.message import audible
from controlplane.wake.record import Record
from controlplane.wake.signature import key_of, signed
from controlplane.wake.target import Target
from controlplane.wake.verdict import Fate, Reply, Verdict, of_reply
from protocol.version import VERSION

ANSWER_SECONDS: Final = 120.0
"""So long a gateway may take to answer. Long, since one that is asked again would be told twice."""

BODY_LIMIT: Final = 64 << 10
"""Bytes of an answer that are read."""


class _Sent(msgspec.Struct, frozen=True):
    """What clawdbot and openclaw are sent."""

    text: str
    mode: str


class _Data(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    text: str
    mode: str
    workspace: str | None = None
    task: str | None = None


class _Webhook(msgspec.Struct, frozen=True):
    """What any other is sent, as Standard Webhooks have it."""

    type: str
    timestamp: datetime
    data: _Data


class Sender:
    """Sends to one gateway. Each attempt has a connection of its own: what was kept open may be closed by the other
    side just when a wake is on its way."""

    def __init__(self, target: Target, dialer: Dialer, now: Callable[[], datetime]):
        self._target = target
        self._dialer = dialer
        self._now = now

    async def send(self, wake: Record, secret: str) -> Verdict:
        """What came of it; never an exception of the network's. NotReady where the secret cannot sign."""
        headers, body = self._request(wake, secret)
        heard: list[Reply] = []
        with anyio.move_on_after(ANSWER_SECONDS):
            try:
                await self._exchange(headers, body, heard)
            except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as exc:
                if not heard:
                    return Verdict(fate=Fate.RETRY, answer=_why(exc, self._target), everybody=True)
        if not heard:
            late = f"It did not answer within {ANSWER_SECONDS:.0f} seconds."
            return Verdict(fate=Fate.RETRY, answer=late, everybody=True)
        return of_reply(heard[-1], generic=self._target.generic, now=self._now())

    async def _exchange(self, headers: dict[str, str], body: bytes, heard: list[Reply]) -> None:
        """``heard`` gets the status as soon as it is there, and then all of the answer."""
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=_trust() if self._target.secure else None,
                max_connections=1,
                max_keepalive_connections=0,
                network_backend=self._dialer,
            ) as pool,
            pool.stream("POST", self._target.url, headers=list(headers.items()), content=body) as response,
        ):
            wish = [value.decode("latin-1") for name, value in response.headers if name.lower() == b"retry-after"]
            reply = Reply(status=response.status, whole=False, retry_after=wish[0] if wish else None)
            heard.append(reply)
            content = b""
            async for piece in response.aiter_stream():
                content += piece
                if len(content) > BODY_LIMIT:
                    break
            heard.append(msgspec.structs.replace(reply, body=content[:BODY_LIMIT], whole=True))

    def _request(self, wake: Record, secret: str) -> tuple[dict[str, str], bytes]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Connection": "close",
            "User-Agent": f"Perry/{VERSION}",
            "Idempotency-Key": wake.id,
        }
        if not self._target.generic:
            body = msgspec.json.encode(_Sent(text=audible(wake.whole_text), mode=wake.mode))
            return headers | {"Authorization": f"Bearer {secret}"}, body
        now = self._now()
        data = _Data(id=wake.id, text=wake.text, mode=wake.mode, workspace=wake.workspace, task=wake.task)
        body = msgspec.json.encode(_Webhook(type="perry.wake", timestamp=wake.created, data=data))
        return headers | signed(key_of(secret), wake.id, now, body), body


@cache
def _trust() -> ssl.SSLContext:
    """Whom this machine trusts, with what its administrator added."""
    return ssl.create_default_context()


def _why(exc: Exception, target: Target) -> str:
    """In words of people."""
    where = f"{target.host}:{target.port}"
    match exc:
        case httpcore.ConnectTimeout():
            return f"{where} does not answer."
        case httpcore.ConnectError():
            return str(exc) if str(exc).endswith(".") else f"{where} cannot be reached ({exc})."
        case httpcore.ProtocolError():
            return f"{where} broke off, or does not speak HTTP ({exc})."
        case _:
            return f"The connection to {where} broke ({exc or type(exc).__name__})."
