"""Holds OpenCode's well-known port on loopback, whether the server runs or not: who connects and says something has it
started, and is passed on to it, byte for byte."""

import asyncio
import logging
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping, Sequence
from typing import Final

from protocol.worker import Request
from worker.opencode.client import PORT, Unusable
from worker.opencode.server import Server
from worker.ports import Handler, Notice, Told

log = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 5.0
"""How often the port is tried where a program of the workspace has it."""
SILENT_SECONDS: Final = 60.0
"""Who connects has so long to say something."""
LINGER_SECONDS: Final = 30.0
"""How long a caller may stay who was told everything."""
REFUSED_SECONDS: Final = 0.1
MOST: Final = 256
"""Connections at once."""
PIECE: Final = 64 << 10


class OpenCode:
    """OpenCode's server and its port, as a part of the worker (:class:`worker.ports.Part`)."""

    def __init__(self, server: Server, port: int = PORT) -> None:
        """``port`` is 0 for any; ``self.port`` is the one it has then."""
        self.port = port
        self.problem: str | None = None
        """Why the port is not held, in a sentence."""
        self._server = server
        self._connections: set[asyncio.Task[None]] = set()

    async def run(self, told: Told) -> None:
        """For ever. Connections end with it; the server does not."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._server.run())
            tasks.create_task(self._hold())

    async def looked(self) -> None:
        pass

    def seen(self) -> Sequence[Notice]:
        return []

    def handlers(self) -> Mapping[type[Request], Handler]:
        return {}

    async def _hold(self) -> None:
        while True:
            try:
                listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=PIECE)
            except OSError as exc:
                sentence = (
                    f"Port {self.port} of the workspace leads to a program of its own, and not to Perry's OpenCode "
                    f"({exc.strerror or exc}); end that one, or give it another port."
                )
                if self.problem is None:
                    log.warning(sentence)
                self.problem = sentence
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self.problem = None
            self.port = listener.sockets[0].getsockname()[1]
            try:
                # It serves. serve_forever() would, when cancelled, wait for the connections to end by themselves.
                await asyncio.Event().wait()
            finally:
                listener.close()
                for connection in list(self._connections):
                    connection.cancel()

    async def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        serving = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(serving)
        try:
            await asyncio.wait({serving})
        finally:
            serving.cancel()
            self._connections.discard(serving)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            if len(self._connections) <= MOST:
                await self._lead(reader, writer)
            await _close(writer)
        except (OSError, TimeoutError):
            pass  # It went away, or had nothing to say.
        finally:
            writer.transport.abort()

    async def _lead(self, reader: StreamReader, writer: StreamWriter) -> None:
        # One who only looks whether the port is open has nothing started.
        async with asyncio.timeout(SILENT_SECONDS):
            first = await reader.read(PIECE)
        if not first:
            return
        while True:
            try:
                async with self._server.use() as port:
                    there, back = await asyncio.open_connection("127.0.0.1", port, limit=PIECE)
                    try:
                        back.write(first)
                        await _carry(reader, back, there, writer)
                    finally:
                        back.transport.abort()
                return
            except ConnectionRefusedError:
                await asyncio.sleep(REFUSED_SECONDS)  # It has just ended; there will be another one.
            except Unusable as exc:
                await _say(reader, writer, str(exc))
                return


async def _carry(reader: StreamReader, back: StreamWriter, there: StreamReader, writer: StreamWriter) -> None:
    """Until both sides have ended, or one has broken off."""
    asking = asyncio.ensure_future(_pass_on(reader, back))
    answering = asyncio.ensure_future(_pass_on(there, writer))
    try:
        await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() and asking.exception() is None:
            # Who has asked everything waits for the answer for as long as it takes.
            await asyncio.wait({answering})
        elif not answering.done() or answering.exception() is None:
            # The server may answer before it has heard everything, and then hear no more.
            await asyncio.wait({asking, answering}, timeout=LINGER_SECONDS)
    finally:
        asking.cancel()
        answering.cancel()
        await asyncio.gather(asking, answering, return_exceptions=True)


async def _pass_on(source: StreamReader, sink: StreamWriter) -> None:
    """Everything, no faster than it is taken, and then its end."""
    while piece := await source.read(PIECE):
        sink.write(piece)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


async def _say(reader: StreamReader, writer: StreamWriter, sentence: str) -> None:
    """Answer an HTTP client that there is no server. What it still sends is taken, else it would not read this."""
    body = f"{sentence}\n".encode()
    writer.write(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
        b"Retry-After: 5\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    await writer.drain()
    writer.write_eof()
    async with asyncio.timeout(LINGER_SECONDS):
        while await reader.read(PIECE):
            pass


async def _close(writer: StreamWriter) -> None:
    """Returns when what is on its way has arrived, or was not read for too long."""
    writer.close()
    async with asyncio.timeout(LINGER_SECONDS):
        await writer.wait_closed()
