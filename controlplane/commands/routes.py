"""``/exec/<name>``: a command's streams over a WebSocket (:mod:`protocol.exec`)."""

from typing import Any, Final

import anyio
import msgspec
from litestar import WebSocket, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import WebsocketRouteHandler
from litestar.params import FromPath

from controlplane import problems
from controlplane.auth.guards import FIRST_FRAME_SECONDS, accept, identity_of, needs
from controlplane.auth.policy import Right, rights
from controlplane.auth.service import Tokens
from controlplane.commands.service import Command, Commands, NothingToRun
from controlplane.commands.window import Broken, Credit, Inbox
from controlplane.errors import NotFound, PerryError
from protocol import exec as wire
from protocol.errors import ErrorCode, WireError
from protocol.exec import FRAME_LIMIT, WINDOW, Exited, Failed, Run, ServerFrame, Started, Stream, Taken

Socket = WebSocket[Any, Any, Any]

NORMAL: Final = 1000
ORDERS_WAITING: Final = 32
"""Signals and new sizes that may wait; what comes above that is dropped."""

_CLOSING_SECONDS = 1.0
_STREAMS = {"stdout": bytes([Stream.STDOUT]), "stderr": bytes([Stream.STDERR])}
_STOPPING = "The control plane is stopping, and the command was ended; run it again when `perry agent status` answers."


def route(commands: Commands, tokens: Tokens) -> WebsocketRouteHandler:
    """Serve commands."""

    @websocket("/exec/{name:str}", name="exec", opt=needs(Right.MANAGE, first_frame=True))
    async def exec_(socket: Socket, name: FromPath[str]) -> None:
        if Right.MANAGE in rights(identity_of(socket)):
            try:
                commands.must_exist(name)
            except NotFound as exc:
                await problems.refuse(socket.scope, socket.receive, socket.send, exc)  # type: ignore[arg-type]
                return
        if not await accept(socket, tokens, Right.MANAGE):
            return
        try:
            await _serve(socket, commands, name)
        except (WebSocketDisconnect, OSError):
            return  # The client went; what ran has been ended.

    return exec_


async def _serve(socket: Socket, commands: Commands, name: str) -> None:
    try:
        with anyio.fail_after(FIRST_FRAME_SECONDS):
            wanted = msgspec.json.decode(await socket.receive_text(), type=Run)
    except (TimeoutError, msgspec.DecodeError) as exc:
        why = "none came in time" if isinstance(exc, TimeoutError) else str(exc)
        error = problems.wire(ErrorCode.BAD_REQUEST, f"The first frame must say what to run: {why}.")
        await _close(socket, _failed(error), wire.FAILED_TO_START)
        return
    try:
        async with commands.run(name, wanted) as command:
            await _send(socket, Started())
            frame, code = await _Relay(socket, command, commands.ended).run()
            if frame is not None:
                # Before a command that still runs is given its time to end.
                await _close(socket, frame, code)
    except NothingToRun as exc:
        await _close(socket, Exited(code=exc.code, message=exc.message), NORMAL)
    except PerryError as exc:
        await _close(socket, _failed(problems.of(exc, socket.scope)), wire.FAILED_TO_START)


class _Relay:
    """A command that runs and a client that is there, until one of them ends."""

    def __init__(self, socket: Socket, command: Command, stopping: anyio.Event) -> None:
        self._socket = socket
        self._command = command
        self._stopping = stopping
        self._credit = Credit()
        self._inbox = Inbox()
        self._outcome: tuple[ServerFrame | None, int] = (None, NORMAL)
        self._scope = anyio.CancelScope()

    async def run(self) -> tuple[ServerFrame | None, int]:
        """The last frame and the close code; no frame where the client has gone."""
        orders, waiting = anyio.create_memory_object_stream[wire.SendSignal | wire.Resize](ORDERS_WAITING)
        with self._scope:
            async with orders, waiting, anyio.create_task_group() as group:
                group.start_soon(self._listen, orders)
                group.start_soon(self._obey, waiting)
                group.start_soon(self._feed)
                group.start_soon(self._stop)
                await self._speak()
        return self._outcome

    def _end(self, frame: ServerFrame | None, code: int = NORMAL) -> None:
        self._outcome = (frame, code)
        self._scope.cancel()

    async def _speak(self) -> None:
        """Send its output, and how it ended."""
        try:
            while (chunk := await self._command.read()) is not None:
                stream, data = _STREAMS[chunk[0]], memoryview(chunk[1])
                while data:
                    count = await self._credit.take(min(len(data), FRAME_LIMIT))
                    await self._socket.send_bytes(stream + data[:count])
                    data = data[count:]
            self._end(Exited(code=await self._command.exit_code()), NORMAL)
        except PerryError as exc:
            self._end(_failed(problems.of(exc, self._socket.scope)), wire.STOPPED)
        except (WebSocketDisconnect, OSError):
            self._end(None)

    async def _listen(self, orders: Any) -> None:
        """Take what the client sends, always at once: a signal must not wait for stdin to be read."""
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] != "websocket.receive":
                    self._end(None)
                    return
                data, text = message.get("bytes"), message.get("text")
                if data is not None:
                    self._inbox.put(_stdin(data))
                elif text is not None:
                    self._hear(wire.client_frames.decode(text), orders)
        except (Broken, msgspec.DecodeError) as exc:
            error = problems.wire(ErrorCode.BAD_REQUEST, f"The client broke the rules of this connection: {exc}.")
            self._end(_failed(error), wire.BROKEN_RULES)

    def _hear(self, frame: wire.ClientFrame, orders: Any) -> None:
        match frame:
            case Taken():
                self._credit.give(frame.bytes)
            case wire.EndInput():
                self._inbox.end()
            case Run():
                raise Broken("a second command needs a connection of its own")
            case _:
                try:
                    orders.send_nowait(frame)
                except anyio.WouldBlock:
                    return

    async def _obey(self, waiting: Any) -> None:
        async for order in waiting:
            if isinstance(order, wire.Resize):
                await self._command.resize(order.columns, order.rows)
            else:
                await self._command.signal(order.signal)

    async def _feed(self) -> None:
        """Give the command its stdin, and let the client send more as that is taken."""
        unsaid = 0
        try:
            while (data := await self._inbox.get()) is not None:
                await self._command.write(data)
                self._inbox.taken(len(data))
                unsaid += len(data)
                if unsaid >= WINDOW // 4:
                    await _send(self._socket, Taken(bytes=unsaid))
                    unsaid = 0
            await self._command.end_input()
        except (WebSocketDisconnect, OSError):
            self._end(None)

    async def _stop(self) -> None:
        await self._stopping.wait()
        self._end(_failed(problems.wire(ErrorCode.SERVICE_UNAVAILABLE, _STOPPING)), wire.STOPPED)


def _stdin(data: bytes) -> bytes:
    if not data or data[0] != Stream.STDIN:
        raise Broken("a binary frame must begin with the byte 0, for stdin")
    return data[1:]


def _failed(error: WireError) -> Failed:
    return Failed(code=error.code, status=error.status, message=error.message, data=error.data)


async def _send(socket: Socket, frame: ServerFrame) -> None:
    await socket.send_text(msgspec.json.encode(frame).decode())


async def _close(socket: Socket, frame: ServerFrame, code: int) -> None:
    # A client that reads nothing would otherwise hold this for as long as its connection stands.
    with anyio.move_on_after(_CLOSING_SECONDS):
        await _send(socket, frame)
        await socket.close(code)
