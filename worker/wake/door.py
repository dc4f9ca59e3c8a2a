"""The wake door of a workspace, ``POST http://127.0.0.1:18789/hooks/wake``: requests and answers as gateways have them.

It takes any token, or none: whoever runs in the workspace may wake, and nobody else reaches it.
"""

import asyncio
import contextlib
import hashlib
import logging
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from protocol.wake import DOOR_LIMIT, TEXT_LIMIT, TEXT_REQUIRED, WAKE_PATH, WAKE_PORT, DoorAnswer, WakeMode
from protocol.worker import Request
from worker.ports import Handler, Notice, Told
from worker.wake.spool import Broken, Full, Kept, Spool, now

log = logging.getLogger(__name__)

HEAD_LIMIT: Final = 16 << 10
SECONDS: Final = 30.0
"""So long a request may take to come."""

CONNECTIONS: Final = 64

TASK: Final = re.compile(r"^t-[0-9a-z]{12}$")
TASK_HEADER: Final = "perry-task"

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Payload Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    507: "Insufficient Storage",
}


class Refused(Exception):
    """A request that is answered with a status of its own, and a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


class Wakes:
    """Door and spool, as a part of the worker (:class:`worker.ports.Part`)."""

    def __init__(
        self,
        spool: Spool,
        workspace: str,
        *,
        host: str = "127.0.0.1",
        port: int = WAKE_PORT,
        listening: socket.socket | None = None,
    ) -> None:
        """``listening`` is a socket that does so already, for the first time that it runs."""
        self._spool = spool
        self._workspace = workspace
        self._address = (host, port)
        self._listening = listening
        self._connections: set[asyncio.Task[None]] = set()
        self.port: int | None = None
        """The one that is listened on."""

    async def run(self, told: Told) -> None:
        """Tell what is there, and take what comes; for ever. Connections end with it."""
        try:
            await self._spool.open(told)
        except BaseException:
            # Whoever wakes is refused at once until it can be opened, and does not wait for nobody.
            if self._listening is not None:
                self._listening.close()
                self._listening = None
            raise
        listening, self._listening = self._listening, None
        if listening is not None:
            server = await asyncio.start_server(self._serve, sock=listening, limit=HEAD_LIMIT)
        else:
            server = await asyncio.start_server(self._serve, *self._address, limit=HEAD_LIMIT)
        self.port = server.sockets[0].getsockname()[1]
        try:
            # It serves. serve_forever() would, when cancelled, wait for the connections to end by themselves.
            await asyncio.Event().wait()
        finally:
            server.close()
            for connection in list(self._connections):
                connection.cancel()

    async def looked(self) -> None:
        await self._spool.ready()

    def seen(self) -> Sequence[Notice]:
        return self._spool.seen()

    def handlers(self) -> Mapping[type[Request], Handler]:
        return self._spool.handlers()

    # --- HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            if len(self._connections) <= CONNECTIONS:
                status, answer = await self._answered(reader, writer)
                writer.write(_response(status, answer))
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # Whoever asked has gone, or the worker ends; nothing comes after this.
        finally:
            self._connections.discard(connection)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, DoorAnswer]:
        try:
            async with asyncio.timeout(SECONDS):
                headers, body = await _request(reader, writer)
            kept = self._kept(headers, body)
            await self._spool.put(kept)
        except Refused as exc:
            return exc.status, DoorAnswer(ok=False, error=exc.sentence)
        except TimeoutError:
            return 400, DoorAnswer(ok=False, error="The request did not come to its end.")
        except Full:
            return 429, DoorAnswer(ok=False, error="Too many wakes wait already for the agent's machine; try later.")
        except Broken as exc:
            return 507, DoorAnswer(ok=False, error=f"The wake could not be stored ({exc}); make room.")
        except Exception:
            log.exception("a wake failed")
            return 500, DoorAnswer(ok=False, error="The worker failed; its log has the reason.")
        return 200, DoorAnswer(ok=True, mode=kept.mode, id=f"{self._workspace}.{kept.id}")

    def _kept(self, headers: Mapping[str, str], body: bytes) -> Kept:
        try:
            given: Any = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Refused(400, 'The body is no JSON; send {"text": "…", "mode": "now"}.') from None
        text = given.get("text") if isinstance(given, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise Refused(400, TEXT_REQUIRED)
        if len(text.encode(errors="replace")) > TEXT_LIMIT:
            raise Refused(413, f"The text has more than {TEXT_LIMIT:,} bytes; put it into a file, and send its name.")
        later = given.get("mode") == WakeMode.NEXT_HEARTBEAT
        key, task = headers.get("idempotency-key"), headers.get(TASK_HEADER, "")
        return Kept(
            id=f"w-{hashlib.sha256(key.encode()).hexdigest()[:20] if key else secrets.token_hex(8)}",
            text=text.encode(errors="replace").decode(),
            mode=WakeMode.NEXT_HEARTBEAT if later else WakeMode.NOW,
            at=now(),
            task=task if TASK.fullmatch(task) else None,
        )


async def _request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[dict[str, str], bytes]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise Refused(413, "The request's headers are too long.") from None
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if path != WAKE_PATH:
        raise Refused(404, f"There is only POST {WAKE_PATH} here.")
    if method != "POST":
        raise Refused(405, f"There is only POST {WAKE_PATH} here.")
    if headers.get("origin") or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise Refused(403, "A web page may not wake anybody.")
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()):
        raise Refused(411, "Say how long the body is, with Content-Length.")
    if len(length) > 9 or int(length) > DOOR_LIMIT:
        raise Refused(413, f"The body has more than {DOOR_LIMIT:,} bytes; send less.")
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return headers, await reader.readexactly(int(length))


def _response(status: int, answer: DoorAnswer) -> bytes:
    body = msgspec.json.encode(answer)
    again = "Retry-After: 60\r\n" if status == 429 else ""
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n{again}\r\n"
    ).encode() + body
