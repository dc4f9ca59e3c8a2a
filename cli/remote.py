"""One command in a workspace, with the streams of this process (:mod:`protocol.exec`)."""

import contextlib
import os
import queue
import select
import shutil
import signal
import termios
import threading
import time
import tty
from collections.abc import Iterator
from types import FrameType
from typing import Final

import msgspec
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection

from cli import output
from cli.client import Client
from cli.errors import Interrupted, Lost, NotAuthorised, server_said
from cli.sockets import UNKNOWN_TOKEN, is_not_authorised, opened
from protocol.errors import WireError
from protocol.exec import (
    FRAME_LIMIT,
    WINDOW,
    ClientFrame,
    EndInput,
    ExecSignal,
    Exited,
    Failed,
    Resize,
    Run,
    SendSignal,
    Stream,
    Taken,
    TerminalSize,
    server_frames,
)

TIMED_OUT: Final = 124
BROKEN_PIPE: Final = 141
INTERRUPTED: Final = 130
GRACE_SECONDS: Final = 5.0
"""Between asking a command to end, as its time is over, and killing it."""
ENOUGH: Final = 3
"""Ctrl-C so often ends perry itself."""

_PASSED_ON: Final = {
    signal.SIGINT: ExecSignal.INT,
    signal.SIGTERM: ExecSignal.TERM,
    signal.SIGHUP: ExecSignal.HUP,
    signal.SIGQUIT: ExecSignal.QUIT,
}


class OutputClosed(Exception):
    """Whoever read our output has gone."""


class Remote:
    """Runs a command. ``stdin`` says whether it gets ours, ``seconds`` how long it may take."""

    def __init__(self, client: Client, name: str, wanted: Run, *, stdin: bool, seconds: float | None) -> None:
        self._client = client
        self._name = name
        self._wanted = wanted
        self._stdin = stdin
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._seconds = seconds
        self._timed_out = False
        self._orders: queue.SimpleQueue[ClientFrame] = queue.SimpleQueue()
        self._credit = WINDOW
        self._more = threading.Condition()
        self._interrupts = 0

    def run(self) -> int:
        """Its exit code. CliErrors where it could not be run, or not to its end."""
        try:
            with opened(self._client, f"/exec/{self._name}", waiting=None) as socket:
                self._send(socket, self._wanted)
                with self._signals(), _raw(self._wanted.tty is not None):
                    threading.Thread(target=self._obey, args=(socket,), daemon=True).start()
                    threading.Thread(target=self._feed, args=(socket,), daemon=True).start()
                    return self._show(socket)
        except OutputClosed:
            return BROKEN_PIPE
        except ConnectionClosed as exc:
            if is_not_authorised(exc):
                raise NotAuthorised(UNKNOWN_TOKEN) from exc
            raise Lost(
                f"The connection to the agent at {self._client.target.url} broke, and the command was ended with it."
            ) from exc
        except (OSError, WebSocketException) as exc:
            raise self._client.unreachable(exc) from exc

    # --- what comes

    def _show(self, socket: ClientConnection) -> int:
        unsaid = 0
        while True:
            try:
                frame = socket.recv(timeout=self._left())
            except TimeoutError:
                self._time_is_over(socket)
                continue
            if isinstance(frame, bytes):
                _write(2 if frame[:1] == bytes([Stream.STDERR]) else 1, memoryview(frame)[1:])
                unsaid += len(frame) - 1
                if unsaid >= WINDOW // 4:
                    # It may have ended by now, with the rest of its output still to be read.
                    with contextlib.suppress(ConnectionClosed):
                        self._send(socket, Taken(bytes=unsaid))
                    unsaid = 0
                continue
            try:
                said = server_frames.decode(frame)
            except msgspec.ValidationError:
                continue  # A newer agent says more than this perry knows.
            if isinstance(said, Exited):
                return self._ended(said)
            if isinstance(said, Failed):
                raise server_said(
                    WireError(defined=False, code=said.code, status=said.status, message=said.message, data=said.data)
                )
            if isinstance(said, Taken):
                with self._more:
                    self._credit += said.bytes
                    self._more.notify()

    def _ended(self, exited: Exited) -> int:
        if exited.message is not None:
            output.error(exited.message)
        if self._timed_out:
            output.warn(f"The command had not ended after {self._seconds:g} s, so it was ended.")
            return TIMED_OUT
        return exited.code

    def _left(self) -> float | None:
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0)

    def _time_is_over(self, socket: ClientConnection) -> None:
        self._send(socket, SendSignal(signal=ExecSignal.KILL if self._timed_out else ExecSignal.TERM))
        self._timed_out = True
        self._deadline = time.monotonic() + GRACE_SECONDS

    # --- what goes

    def _feed(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            if self._stdin:
                self._send_stdin(socket)
            self._send(socket, EndInput())

    def _send_stdin(self, socket: ClientConnection) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(0, FRAME_LIMIT):
                while data:
                    count = self._may_send(len(data))
                    socket.send(bytes([Stream.STDIN]) + data[:count])
                    data = data[count:]

    def _may_send(self, most: int) -> int:
        with self._more:
            while self._credit == 0:
                self._more.wait()
            count = min(most, self._credit)
            self._credit -= count
            return count

    def _obey(self, socket: ClientConnection) -> None:
        """Sends what signal handlers have asked for; those must not send, as they may interrupt a sending."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._send(socket, self._orders.get())

    @staticmethod
    def _send(socket: ClientConnection, frame: ClientFrame) -> None:
        socket.send(msgspec.json.encode(frame).decode())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass on what this process is told."""

        def pass_on(number: int, _: FrameType | None) -> None:
            self._interrupts += number == signal.SIGINT
            if self._interrupts >= ENOUGH:
                raise Interrupted(f"Ended; the command in {self._name} is ended with its connection.")
            self._orders.put(SendSignal(signal=_PASSED_ON[signal.Signals(number)]))

        def resize(*_: object) -> None:
            columns, rows = shutil.get_terminal_size()
            self._orders.put(Resize(columns=columns, rows=rows))

        before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
        if self._wanted.tty is not None:
            before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def terminal() -> TerminalSize:
    """The terminal of this process. Fits what the protocol takes, whatever it says of itself."""
    columns, rows = shutil.get_terminal_size()
    kind = os.environ.get("TERM", "")
    try:
        return msgspec.convert({"columns": columns, "rows": rows, "term": kind}, TerminalSize)
    except msgspec.ValidationError:
        return TerminalSize(columns=80, rows=24)


@contextlib.contextmanager
def _raw(wanted: bool) -> Iterator[None]:
    """The terminal's keys as they are typed, ctrl-C too."""
    if not wanted:
        yield
        return
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _write(handle: int, data: memoryview) -> None:
    while data:
        try:
            data = data[os.write(handle, data) :]
        except BlockingIOError:
            select.select([], [handle], [])
        except BrokenPipeError as exc:
            raise OutputClosed from exc
