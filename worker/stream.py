"""The stream: a WebSocket that control planes open, each with its own place in the journal.

Nothing piles up for one that reads slowly: what changes meanwhile is told when it has read, and only as it is then.
"""

import asyncio
import hmac
import http
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve, unix_serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from protocol.worker import FRAME_LIMIT, PROTOCOL, STREAM_PATH, Ask, Follow, FromControlPlane, Hello, SnapshotEnd
from worker.journal import Journal
from worker.ports import Notice
from worker.requests import AT_ONCE, Requests, refusal

log = logging.getLogger(__name__)

CONNECTIONS = 8
"""Control planes at once; one is usual, and a second while a network breaks."""

FOLLOW_SECONDS = 10.0
"""How long a control plane may take to say what it follows."""

PACE_SECONDS = 0.01
"""Between two looks for news: what changes in between is told once."""

POLICY = 1008
TRY_AGAIN = 1013

LIVELINESS_SECONDS = 20.0
"""How often the other end is asked for a sign of life, and how long it has for that."""


class _Unread(msgspec.Struct):
    """A frame that we do not know, as far as it has to be read to refuse it."""

    type: str = ""
    id: int = 0


class Stream:
    """Serves the stream.

    ``looked`` returns when all that was there at the start was seen, ``seen`` is all that stands now; ``secret_file``
    is read anew for each connection.
    """

    def __init__(
        self,
        *,
        version: str,
        journal: Journal,
        requests: Requests,
        looked: Callable[[], Awaitable[None]],
        seen: Callable[[], Sequence[Notice]],
        secret_file: Path,
    ) -> None:
        self._version = version
        self._journal = journal
        self._requests = requests
        self._looked = looked
        self._seen = seen
        self._secret_file = secret_file
        self._connections: set[ServerConnection] = set()
        self._decoder = msgspec.json.Decoder(FromControlPlane)
        self._unread = msgspec.json.Decoder(_Unread)

    async def listen(self, host: str, port: int, listening: socket.socket | None = None) -> Server:
        """On TCP, for those who know the secret. Port 0 takes any; ``listening`` does so already."""
        where: dict[str, Any] = {"host": host, "port": port} if listening is None else {"sock": listening}
        return await serve(self._serve, process_request=self._admit, **where, **_OPTIONS)

    async def listen_inside(self, path: Path) -> Server:
        """On a unix socket, for those who may enter its folder."""
        # What a killed predecessor left.
        await asyncio.to_thread(path.unlink, missing_ok=True)
        return await unix_serve(self._serve, str(path), process_request=_only_the_stream, **_OPTIONS)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        try:
            secret = self._secret_file.read_bytes().strip()
        except OSError as exc:
            log.warning("nobody is let in: %s cannot be read (%s)", self._secret_file, exc.strerror)
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "The worker has no secret.\n")
        words = [word.encode() for word in request.headers.get_all("Authorization")]
        if not secret or len(words) != 1 or not hmac.compare_digest(words[0], b"Bearer " + secret):
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "The secret is wrong.\n")
        return _only_the_stream(connection, request)

    async def _serve(self, connection: ServerConnection) -> None:
        if len(self._connections) >= CONNECTIONS:
            await connection.close(TRY_AGAIN, "too many connections")
            return
        self._connections.add(connection)
        try:
            await self._converse(connection)
        except* ConnectionClosed:
            pass
        finally:
            self._connections.discard(connection)

    async def _converse(self, connection: ServerConnection) -> None:
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                follow = self._decoder.decode(await connection.recv())
        except (TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
            await connection.close(POLICY, "the first frame has to be follow")
            return
        if not isinstance(follow, Follow):
            await connection.close(POLICY, "the first frame has to be follow")
            return
        both = {
            asyncio.create_task(self._tell(connection, follow)),
            asyncio.create_task(self._listen(connection)),
        }
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        for task in done:
            task.result()

    async def _tell(self, connection: ServerConnection, follow: Follow) -> None:
        """Hello, then all that stands unless that is known, then what changes."""
        journal = self._journal
        news = journal.since(follow.after) if follow.epoch == journal.epoch and follow.after is not None else None
        resumed = news is not None
        after = journal.seq
        hello = Hello(version=self._version, protocol=PROTOCOL, epoch=journal.epoch, seq=after, resumed=resumed)
        await _send(connection, hello)
        if news is None:
            # What has not been looked at yet would be taken for gone.
            await self._looked()
            # Taken together: what changes from here on has a greater number.
            after = journal.seq
            news = [msgspec.structs.replace(notice, seq=after) for notice in self._seen()]
        await self._send_all(connection, news)
        if not resumed:
            await _send(connection, SnapshotEnd(seq=after))
        del news
        while True:
            await journal.beyond(after)
            fresh = journal.since(after)
            if fresh is None:
                await connection.close(TRY_AGAIN, "too slow: what happened meanwhile is forgotten")
                return
            after = journal.seq
            await self._send_all(connection, fresh)
            await asyncio.sleep(PACE_SECONDS)

    async def _send_all(self, connection: ServerConnection, notices: Iterable[Notice]) -> None:
        for sent, notice in enumerate(notices):
            await _send(connection, notice)
            if sent % 100 == 99:
                # Sending to one that keeps up never waits; everybody else should have a turn.
                await asyncio.sleep(0)

    async def _listen(self, connection: ServerConnection) -> None:
        """Answer what is asked, a few questions side by side; further ones wait on the wire."""
        turns = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as answers:
            async for frame in connection:
                await turns.acquire()
                try:
                    ask = self._decoder.decode(frame)
                except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                    turns.release()
                    if not await self._refuse(connection, frame, exc):
                        return
                    continue
                if not isinstance(ask, Ask):
                    turns.release()
                    await connection.close(POLICY, "follow has been said")
                    return
                answers.create_task(self._answer(connection, ask, turns))

    async def _answer(self, connection: ServerConnection, ask: Ask, turns: asyncio.Semaphore) -> None:
        try:
            await connection.send(await self._requests.answer(ask), text=True)
        except ConnectionClosed:
            pass
        finally:
            turns.release()

    async def _refuse(self, connection: ServerConnection, frame: str | bytes, why: Exception) -> bool:
        """Whether the conversation goes on: a newer control plane may ask for what is not known here."""
        try:
            unread = self._unread.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError):
            await connection.close(POLICY, "that is no frame")
            return False
        if unread.type == "ask":
            sentence = f"This worker does not understand that request ({why}); `perry sync` brings a newer one."
            await connection.send(refusal(unread.id, "unknown", sentence), text=True)
        return True


_OPTIONS: Mapping[str, Any] = {
    "max_size": FRAME_LIMIT,
    "max_queue": 4,
    "compression": None,
    "open_timeout": FOLLOW_SECONDS,
    "ping_interval": LIVELINESS_SECONDS,
    "ping_timeout": LIVELINESS_SECONDS,
    "close_timeout": 2,
    "server_header": None,
    "logger": logging.getLogger("worker.websockets"),
}


def _only_the_stream(connection: ServerConnection, request: Request) -> Response | None:
    if request.path != STREAM_PATH:
        return connection.respond(http.HTTPStatus.NOT_FOUND, "There is nothing here.\n")
    return None


async def _send(connection: ServerConnection, frame: msgspec.Struct) -> None:
    await connection.send(msgspec.json.encode(frame), text=True)
