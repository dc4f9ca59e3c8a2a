"""One attempt: a wake is sent to a gateway, and its answer heard."""

import ssl
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Final

import anyio
import httpcore
import msgspec

from controlplane.wake.dialer import Dialer
from controlplane.wake.message import audible, mode_of_all, together
from controlplane.wake.record import Record
from controlplane.wake.signature import key_of, signed
from controlplane.wake.target import Target
from controlplane.wake.verdict import Fate, Reply, Verdict, of_reply
from protocol.version import VERSION
from protocol.wake import SessionTarget, WakeMode

ANSWER_SECONDS: Final = 120.0
"""So long a gateway may take to answer. Long, since one that is asked again would be told twice."""

BODY_LIMIT: Final = 64 << 10
"""Bytes of an answer that are read."""

TOKEN: Final = b"(the token)"
"""Stands for it in the words of whoever was told it."""

CLAWDBOT: Final = "clawdbot"

NO_AGENT_DOOR: Final = (
    "The gateway's url has a path that does not end in /wake, so its door for sessions of their own is not known; give "
    "the url without a path in hooks.gateways, and try again with `perry wakes retry`."
)


class _Sent(msgspec.Struct, frozen=True):
    """What clawdbot and openclaw are sent."""

    text: str
    mode: str


class _Turn(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What they are sent for a session of its own. Both tell the main session how it ended; clawdbot would also send
    the answer to whatever chat was used last, unless ``deliver`` is false."""

    message: str
    name: str
    wake_mode: str
    deliver: bool = True


class _Data(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    text: str
    mode: str
    session: str = SessionTarget.MAIN
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

    async def send(self, wakes: Sequence[Record], secret: str, *, at_once: bool = False) -> Verdict:
        """What came of it; never an exception of the network's. NotReady where the secret cannot sign.

        Several go in one request, to a door that is the same for all; see :func:`.record.in_one_request`. ``at_once``
        has the gateway show them now, whatever their modes are.
        """
        if (url := self._door(wakes[0])) is None:
            return Verdict(fate=Fate.REJECTED, answer=NO_AGENT_DOOR)
        headers, body = self._request(wakes, secret, at_once)
        verdict = await self._attempt(url, headers, body, secret)
        return msgspec.structs.replace(verdict, way=self._dialer.way)

    async def _attempt(self, url: str, headers: dict[str, str], body: bytes, secret: str) -> Verdict:
        heard: list[Reply] = []
        with anyio.move_on_after(ANSWER_SECONDS):
            try:
                await self._exchange(url, headers, body, heard)
            except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as exc:
                if not heard:
                    return Verdict(fate=Fate.RETRY, answer=_why(exc, self._target), everybody=True)
        if not heard:
            late = f"It did not answer within {ANSWER_SECONDS:.0f} seconds."
            return Verdict(fate=Fate.RETRY, answer=late, everybody=True)
        # Some answer with what they were asked. What they say is kept, logged and shown, and the token is none of it.
        reply = msgspec.structs.replace(heard[-1], body=heard[-1].body.replace(secret.encode(), TOKEN))
        return of_reply(reply, generic=self._target.generic, now=self._now())

    def _door(self, wake: Record) -> str | None:
        """A generic gateway has one for everything, and is told which session is meant."""
        return self._target.agent_url if wake.isolated and not self._target.generic else self._target.url

    async def _exchange(self, url: str, headers: dict[str, str], body: bytes, heard: list[Reply]) -> None:
        """``heard`` gets the status as soon as it is there, and then all of the answer."""
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=_trust() if self._target.secure else None,
                max_connections=1,
                max_keepalive_connections=0,
                network_backend=self._dialer,
            ) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as response,
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

    def _request(self, wakes: Sequence[Record], secret: str, at_once: bool) -> tuple[dict[str, str], bytes]:
        wake = wakes[0]
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Connection": "close",
            "User-Agent": f"Perry/{VERSION}",
            "Idempotency-Key": wake.id if len(wakes) == 1 else f"{wake.id}+{len(wakes) - 1}",
        }
        if not self._target.generic:
            return headers | {"Authorization": f"Bearer {secret}"}, msgspec.json.encode(self._asked(wakes, at_once))
        now = self._now()
        data = _Data(
            id=wake.id,
            text=wake.text,
            mode=wake.mode,
            session=wake.session,
            workspace=wake.workspace,
            task=wake.task,
        )
        body = msgspec.json.encode(_Webhook(type="perry.wake", timestamp=wake.created, data=data))
        return headers | signed(key_of(secret), wake.id, now, body), body

    def _asked(self, wakes: Sequence[Record], at_once: bool) -> _Sent | _Turn:
        text = audible(together([wake.whole_text for wake in wakes]))
        if wakes[0].isolated:
            return _Turn(message=text, name="Perry", wake_mode=wakes[0].mode, deliver=self._target.kind != CLAWDBOT)
        return _Sent(text=text, mode=WakeMode.NOW if at_once else mode_of_all(wake.mode for wake in wakes))


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
