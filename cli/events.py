"""The stream of changes (``/events``), which survives a lost connection."""

import contextlib
import time
from types import TracebackType
from typing import Final, Self

import msgspec
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection

from cli.client import Client
from cli.errors import CliError, Lost, NotAuthorised
from cli.sockets import UNKNOWN_TOKEN, is_not_authorised, opened
from protocol.events import Event, Later, Snapshot, event_decoder

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 2.0
PATIENCE: Final = 300.0
"""Seconds of trying to reach a control plane again before giving up."""


class Events:
    """Events as they come. After a lost connection it goes on where it stopped, or begins with a new snapshot."""

    def __init__(self, client: Client, *, patience: float = PATIENCE) -> None:
        self._client = client
        self._patience = patience
        self._open = contextlib.ExitStack()
        self._socket: ClientConnection | None = None
        self._epoch: str | None = None
        self._seq = 0
        self._pause = FIRST_PAUSE
        self._next_try = 0.0
        self._lost_at = 0.0
        self.away = False
        """Whether the control plane did not answer when it was last tried to reach it again."""

    def __enter__(self) -> Self:
        try:
            self._socket = self._connect()
        except (OSError, WebSocketException) as exc:
            raise self._client.unreachable(exc) from exc
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def receive(self, seconds: float) -> Event | None:
        """The next event; None where none came in that time. Lost where the control plane stays away."""
        if self._socket is None:
            self._reconnect(seconds)
            return None
        try:
            frame = self._socket.recv(timeout=seconds)
            event = _known(frame)
        except TimeoutError:
            return None
        except ConnectionClosed as exc:
            self._socket = None
            self._open.close()
            if is_not_authorised(exc):
                raise NotAuthorised(UNKNOWN_TOKEN) from exc
            self._lost_at, self._pause, self._next_try = time.monotonic(), FIRST_PAUSE, 0.0
            return None
        except msgspec.DecodeError as exc:
            raise CliError(f"The agent sent an event that this perry does not understand: {exc}.") from exc
        if isinstance(event, Later):
            self._seq = event.seq
            return None
        if isinstance(event, Snapshot):
            self._epoch = event.epoch
        self._seq = event.seq
        return event

    def _reconnect(self, seconds: float) -> None:
        now = time.monotonic()
        if now < self._next_try:
            time.sleep(min(seconds, self._next_try - now))
            return
        try:
            self._socket = self._connect()
            self.away = False
        except (OSError, WebSocketException) as exc:
            if now - self._lost_at > self._patience:
                raise Lost(
                    f"The agent at {self._client.target.url} has not answered for {self._patience:.0f} s; "
                    "what was begun goes on when it is back: look with `perry list`."
                ) from exc
            self.away = True
            self._next_try = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, LONGEST_PAUSE)

    def _connect(self) -> ClientConnection:
        place = f"?epoch={self._epoch}&after={self._seq}" if self._epoch is not None else ""
        return self._open.enter_context(opened(self._client, f"/events{place}"))


def _known(frame: str | bytes) -> Event | Later:
    """The event; its number alone where it is of a kind that only a newer agent knows."""
    try:
        return event_decoder.decode(frame)
    except msgspec.ValidationError:
        if msgspec.json.decode(frame, type=_Kind).type in KINDS:
            raise
        return msgspec.json.decode(frame, type=Later)


class _Kind(msgspec.Struct):
    type: str


KINDS: Final = frozenset({"snapshot", "workspace", "workspaceDeleted"})
