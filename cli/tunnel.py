"""Connections to ports of a workspace through its agent: one command there (:mod:`cli.relay`) carries all of them."""

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from cli import relay
from cli.client import Client
from cli.errors import CliError, Lost, NotAuthorised, server_said
from cli.output import clean
from cli.sockets import UNKNOWN_TOKEN, is_not_authorised, opened_async
from protocol.errors import WireError
from protocol.exec import FRAME_LIMIT, WINDOW, ClientFrame, Exited, Failed, Run, Started, Stream, Taken, server_frames

# Read to its end and no further: what follows on standard input is the connections'.
LOADER: Final = """\
import os, sys
left, source = int(sys.argv[1]), b""
while left > len(source):
    piece = os.read(0, left - len(source))
    if not piece:
        sys.exit(1)
    source += piece
exec(compile(source, "relay", "exec"))
"""
SOURCE: Final = resources.files("cli").joinpath("relay.py").read_bytes()
STDERR_KEPT: Final = 2000


class Tunnel:
    """An open one. ``say`` hears what the person should know while it goes on."""

    def __init__(self, client: Client, name: str, say: Callable[[str], None]) -> None:
        self._client = client
        self._name = name
        self._say = say
        self._said: dict[int, str] = {}
        self._numbers = itertools.count(1)
        self._connections: dict[int, relay.Connection] = {}
        self._opening: dict[int, asyncio.Future[str | None]] = {}
        self._received = bytearray()
        self._credit = WINDOW
        self._more = asyncio.Event()
        self._sending = asyncio.Lock()
        self._socket: ClientConnection | None = None
        self._stderr = b""
        self.ready = asyncio.Event()

    async def run(self) -> None:
        """Until it ends; the error says why."""
        loader = ["/usr/bin/python3", "-I", "-S", "-c", LOADER, str(len(SOURCE))]
        try:
            async with opened_async(self._client, f"/exec/{self._name}") as socket:
                self._socket = socket
                await self._order(Run(command=loader))
                await self._receive(socket)
        except ConnectionClosed as exc:
            if is_not_authorised(exc):
                raise NotAuthorised(UNKNOWN_TOKEN) from exc
            raise Lost(
                f"The connection to the agent at {self._client.target.url} broke, and with it what it carried."
            ) from exc
        except (OSError, WebSocketException) as exc:
            raise self._client.unreachable(exc) from exc
        finally:
            for connection in self._connections.values():
                connection.broke()
            for opening in self._opening.values():
                if not opening.done():
                    opening.set_result("the tunnel has ended")

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        """A connection that somebody made here, to a port there."""
        number = next(self._numbers)
        connection = self._connections[number] = relay.Connection(number, self._send)
        opening = self._opening[number] = asyncio.get_running_loop().create_future()
        relay.quick(writer)
        try:
            await self._send(relay.OPEN, number, port, b"")
            if (why := await opening) is not None:
                self._refused(port, why)
                writer.transport.abort()
                return
            await connection.carry(reader, writer)
        except (ConnectionClosed, OSError):
            writer.transport.abort()  # The tunnel ends, and says why.
        finally:
            del self._connections[number]
            self._opening.pop(number, None)

    def _refused(self, port: int, why: str) -> None:
        """Once for each reason, and not for each of a browser's attempts."""
        if self._said.get(port) != why:
            self._said[port] = why
            self._say(
                f"Port {port} of {self._name} does not answer ({why}); `perry ports {self._name}` shows which do."
            )

    # --- what comes

    async def _receive(self, socket: ClientConnection) -> None:
        unsaid = 0
        async for frame in socket:
            if isinstance(frame, str):
                self._control(frame)
                continue
            if frame[:1] == bytes([Stream.STDERR]):
                self._stderr = (self._stderr + frame[1:])[-STDERR_KEPT:]
            else:
                self._received += memoryview(frame)[1:]
                for kind, number, value, data in self._frames():
                    self._frame(kind, number, value, data)
            unsaid += len(frame) - 1
            if unsaid >= WINDOW // 4:
                await self._order(Taken(bytes=unsaid))
                unsaid = 0
        raise Lost(f"The agent at {self._client.target.url} ended the connection.")

    def _control(self, frame: str) -> None:
        try:
            said = server_frames.decode(frame)
        except msgspec.ValidationError:
            return  # A newer agent says more than this perry knows.
        if isinstance(said, Started):
            task = asyncio.ensure_future(self._begin())
            self._beginning = task
        elif isinstance(said, Taken):
            self._credit += said.bytes
            self._more.set()
        elif isinstance(said, Failed):
            raise server_said(
                WireError(defined=False, code=said.code, status=said.status, message=said.message, data=said.data)
            )
        elif isinstance(said, Exited):
            words = said.message or clean(self._stderr.decode(errors="replace").strip()[-300:])
            raise CliError(
                f"What carries the ports in {self._name} has ended ({words or f'exit code {said.code}'}); run it again."
            )

    async def _begin(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            await self._send_bytes(SOURCE)
            self.ready.set()

    def _frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Those that have come whole."""
        at, size = 0, relay.HEADER.size
        while len(self._received) - at >= size:
            kind, number, value = relay.HEADER.unpack_from(self._received, at)
            length = value if kind in relay.WITH_BYTES else 0
            if length > relay.WINDOW:
                raise self._broken("a frame above its bound")
            if len(self._received) - at < size + length:
                break
            yield kind, number, value, bytes(memoryview(self._received)[at + size : at + size + length])
            at += size + length
        del self._received[:at]

    def _frame(self, kind: int, number: int, value: int, data: bytes) -> None:
        opening = self._opening.get(number)
        if kind in (relay.OPENED, relay.REFUSED):
            if opening is not None and not opening.done():
                words = clean(data.decode(errors="replace"))[:200] or "no reason given"
                opening.set_result(None if kind == relay.OPENED else words)
        elif (connection := self._connections.get(number)) is not None:
            try:
                relay.hear(connection, kind, value, data)
            except relay.Broken as exc:
                raise self._broken(str(exc)) from exc

    def _broken(self, why: str) -> CliError:
        return CliError(f"What carries the ports in {self._name} does not keep to its rules ({why}); the tunnel ended.")

    # --- what goes

    async def _send(self, kind: int, number: int, value: int, data: bytes) -> None:
        await self._send_bytes(relay.HEADER.pack(kind, number, value) + data)

    async def _send_bytes(self, data: bytes) -> None:
        assert self._socket is not None
        view = memoryview(data)
        async with self._sending:
            while view:
                while self._credit == 0:
                    self._more.clear()
                    await self._more.wait()
                count = min(self._credit, len(view), FRAME_LIMIT)
                self._credit -= count
                await self._socket.send(b"".join((bytes([Stream.STDIN]), view[:count])))
                view = view[count:]

    async def _order(self, frame: ClientFrame) -> None:
        assert self._socket is not None
        await self._socket.send(msgspec.json.encode(frame).decode())
