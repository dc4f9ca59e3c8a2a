"""A WebSocket to a control plane that survives a lost connection, for as long as somebody has the patience."""

import contextlib
import time
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

import msgspec
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection

from cli.client import Client
from cli.errors import CliError, Lost, NotAuthorised
from cli.sockets import UNKNOWN_TOKEN, is_not_authorised, opened

F = TypeVar("F")

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 2.0
PATIENCE: Final = 300.0
"""Seconds of trying to reach a control plane again before giving up."""


class Reconnecting(Generic[F]):
    """Frames as they come. What is asked for after a lost connection is said by ``path`` and ``connected``."""

    hint = "look with `perry list`"
    """What to do when the control plane stays away."""

    def __init__(self, client: Client, *, patience: float = PATIENCE) -> None:
        self._client = client
        self._patience = patience
        self._open = contextlib.ExitStack()
        self._socket: ClientConnection | None = None
        self._pause = FIRST_PAUSE
        self._next_try = 0.0
        self._lost_at = 0.0
        self.away = False
        """Whether the control plane did not answer when it was last tried to reach it again."""

    def path(self) -> str:
        """Where to connect to, now."""
        raise NotImplementedError

    def connected(self) -> None:
        """There is a connection, a new one."""

    def decoded(self, frame: str | bytes) -> F | None:
        """A frame; None for what need not be known. msgspec.DecodeError where it is none."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self._connect()
        except (OSError, WebSocketException) as exc:
            raise self._client.unreachable(exc) from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def receive(self, seconds: float) -> F | None:
        """The next frame; None where none came in that time. Lost where the control plane stays away."""
        if self._socket is None:
            self._reconnect(seconds)
            return None
        try:
            return self.decoded(self._socket.recv(timeout=seconds))
        except TimeoutError:
            return None
        except ConnectionClosed as exc:
            self._lost(exc)
            return None
        except msgspec.DecodeError as exc:
            raise CliError(f"The agent sent an event that this perry does not understand: {exc}.") from exc

    def send(self, text: str) -> None:
        """Say something, if there is a connection: else ``connected`` has to say it again."""
        if self._socket is not None:
            try:
                self._socket.send(text)
            except ConnectionClosed as exc:
                self._lost(exc)

    def _lost(self, exc: ConnectionClosed) -> None:
        self._socket = None
        self._open.close()
        if is_not_authorised(exc):
            raise NotAuthorised(UNKNOWN_TOKEN) from exc
        self._lost_at, self._pause, self._next_try = time.monotonic(), FIRST_PAUSE, 0.0

    def _reconnect(self, seconds: float) -> None:
        now = time.monotonic()
        if now < self._next_try:
            time.sleep(min(seconds, self._next_try - now))
            return
        try:
            self._connect()
            self.away = False
        except (OSError, WebSocketException) as exc:
            if now - self._lost_at > self._patience:
                raise Lost(
                    f"The agent at {self._client.target.url} has not answered for {self._patience:.0f} s; {self.hint}."
                ) from exc
            self.away = True
            self._next_try = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _connect(self) -> None:
        self._socket = self._open.enter_context(opened(self._client, self.path()))
        self.connected()
