"""Many TCP connections over one pair of streams: what ``perry proxy`` runs in a workspace, and its own half of it.

As a program it knows nothing but Python's library, and connects to ports of the workspace's loopback. Its source goes
along with the command, so both halves are always of one version. Each frame is a kind, the number of a connection, a
value, and as many bytes as the value says where the kind has bytes.

Neither half sends more than :data:`WINDOW` bytes of a connection that the other has not reported as written. So a
reader that stops holds up its own connection and no other, and each half keeps no more than that.
"""

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

HEADER = struct.Struct(">BII")
OPEN, OPENED, REFUSED, DATA, END, TAKEN, RESET = range(1, 8)
"""Connect to the port that is the value; it stands; it does not, and why; bytes; no more of them this way; so many
bytes have been written; it has broken."""
WITH_BYTES = frozenset({REFUSED, DATA})

CHUNK = 1 << 16
WINDOW = 1 << 20
MOST_CONNECTIONS = 1024

Send = Callable[[int, int, int, bytes], Awaitable[None]]
"""Sends a frame whole. Waits while the other half does not read."""


class Broken(Exception):
    """The other half does not keep to this."""


class Connection:
    """One TCP connection: between a socket here and a socket at the other half."""

    def __init__(self, number: int, send: Send) -> None:
        self._number = number
        self._send = send
        self._credit = WINDOW
        self._news = asyncio.Event()
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._broken = False
        self._transport: Any = None

    def arrived(self, data: bytes) -> None:
        self._held += len(data)
        if self._held > WINDOW or self._ended:
            raise Broken("more came of a connection than may")
        self._waiting.append(data)
        self._news.set()

    def ended(self) -> None:
        self._ended = True
        self._news.set()

    def taken(self, count: int) -> None:
        self._credit += count
        if self._credit > WINDOW:
            raise Broken("more was reported as written than was sent")
        self._news.set()

    def broke(self) -> None:
        """At the other half, or there is no other half any more."""
        self._broken = True
        self._news.set()
        if self._transport is not None:
            self._transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways, each until its end."""
        self._transport = writer.transport
        if not self._broken:
            await asyncio.gather(self._out(reader), self._in(writer))
        if self._broken:
            writer.transport.abort()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _out(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(CHUNK):
                while data:
                    while self._credit == 0 and not self._broken:
                        await self._wait()
                    if self._broken:
                        return
                    count = min(self._credit, len(data))
                    self._credit -= count
                    await self._send(DATA, self._number, count, data[:count])
                    data = data[count:]
            if not self._broken:
                await self._send(END, self._number, 0, b"")
        except OSError:
            await self._break()

    async def _in(self, writer: asyncio.StreamWriter) -> None:
        unsaid = 0
        try:
            while not self._broken:
                if not self._waiting:
                    if self._ended:
                        if writer.can_write_eof():
                            writer.write_eof()
                        return
                    await self._wait()
                    continue
                data = self._waiting.popleft()
                writer.write(data)
                await writer.drain()
                self._held -= len(data)
                unsaid += len(data)
                if unsaid >= WINDOW // 4:
                    await self._send(TAKEN, self._number, unsaid, b"")
                    unsaid = 0
        except OSError:
            await self._break()

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _break(self) -> None:
        if not self._broken:
            self.broke()
            await self._send(RESET, self._number, 0, b"")


class Relay:
    """The half in the workspace."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._connections: dict[int, Connection] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def frame(self, kind: int, number: int, value: int, data: bytes) -> None:
        """Something came."""
        if kind == OPEN:
            self._begin(number, value)
        elif (connection := self._connections.get(number)) is not None:
            hear(connection, kind, value, data)

    def _begin(self, number: int, port: int) -> None:
        if number in self._connections:
            raise Broken("a connection was opened twice")
        connection = self._connections[number] = Connection(number, self._send)
        task = asyncio.ensure_future(self._carry(number, connection, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, number: int, connection: Connection, port: int) -> None:
        try:
            try:
                if len(self._connections) > MOST_CONNECTIONS:
                    raise OSError(f"more than {MOST_CONNECTIONS} connections at once")
                reader, writer = await connected(port)
            except OSError as exc:
                why = (os.strerror(exc.errno) if exc.errno else str(exc)).encode(errors="replace")[:200]
                await self._send(REFUSED, number, len(why), why)
                return
            quick(writer)
            await self._send(OPENED, number, 0, b"")
            await connection.carry(reader, writer)
        finally:
            del self._connections[number]


async def connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """With what listens on the loopback, of either family."""
    try:
        return await asyncio.open_connection("127.0.0.1", port, limit=CHUNK * 4)
    except OSError:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection("::1", port, limit=CHUNK * 4)
        raise


def hear(connection: Connection, kind: int, value: int, data: bytes) -> None:
    """What came for a connection that stands."""
    if kind == DATA:
        connection.arrived(data)
    elif kind == END:
        connection.ended()
    elif kind == TAKEN:
        connection.taken(value)
    elif kind == RESET:
        connection.broke()


def quick(writer: asyncio.StreamWriter) -> None:
    """Small writes go at once."""
    with contextlib.suppress(OSError, AttributeError):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def serve() -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK * 4)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", 0))
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(1, "wb", 0))
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    lock = asyncio.Lock()

    async def send(kind: int, number: int, value: int, data: bytes) -> None:
        async with lock:
            writer.write(HEADER.pack(kind, number, value) + data)
            await writer.drain()

    relay = Relay(send)
    try:
        while True:
            kind, number, value = HEADER.unpack(await reader.readexactly(HEADER.size))
            data = b""
            if kind in WITH_BYTES:
                if value > WINDOW:
                    raise Broken("a frame above its bound")
                data = await reader.readexactly(value)
            relay.frame(kind, number, value, data)
    except (asyncio.IncompleteReadError, OSError):
        pass
    except Broken as exc:
        sys.stderr.write(f"{exc}\n")
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(serve())
