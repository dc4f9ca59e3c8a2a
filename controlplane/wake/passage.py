"""The way to gateways that only the tailnet reaches: by Perry's own node there.

The other end is ``sidecar/wayout.go``; what is said is in ``tests/contract/wayout``.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import httpcore
import msgspec

from controlplane.quoting import clean
from controlplane.wake.target import Target

CONNECT_SECONDS: Final = 15.0

ANSWER_SECONDS: Final = 30.0
"""The node gives a device ten seconds to take a connection."""

_HEAD_LIMIT: Final = 4096
_BODY_LIMIT: Final = 8192

_AWAY: Final = "Perry's node on the tailnet, which would reach it, is not there; `perry tailnet status` says more."


class NotThere(httpcore.ConnectError):
    """A gateway that is not connected to; a sentence says why. ``status`` is the node's, where it has said so."""

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class _Error(msgspec.Struct):
    message: str


class _Body(msgspec.Struct):
    json: _Error


class Passage:
    """Asks at ``socket`` for connections. ``file`` tells the node which it may make: ``places``, and no others."""

    def __init__(self, socket: Path, file: Path, places: Callable[[], Iterable[str]]) -> None:
        self._socket = socket
        self._file = file
        self._places = places
        self._told: list[str] | None = None
        self._backend = httpcore.AnyIOBackend()

    def tell(self) -> None:
        """Say which places there are now. OSError where that cannot be written."""
        places = sorted(set(self._places()))
        if places == self._told:
            return
        partial = self._file.with_suffix(".new")
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as opened:
            opened.write(msgspec.json.encode(places))
        partial.replace(self._file)
        self._told = places

    async def connect(self, target: Target) -> httpcore.AsyncNetworkStream:
        """A connection to a target, whose bytes are its own from the first on. NotThere says why there is none."""
        try:
            self.tell()
            with _short(self._socket) as path:
                stream = await self._backend.connect_unix_socket(path, timeout=CONNECT_SECONDS)
        except (OSError, httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
            raise NotThere(_AWAY) from exc
        try:
            await self._ask(stream, target.place)
        except BaseException as exc:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            if isinstance(exc, (httpcore.NetworkError, httpcore.TimeoutException)) and not isinstance(exc, NotThere):
                raise NotThere(_AWAY) from exc
            raise
        return stream

    async def _ask(self, stream: httpcore.AsyncNetworkStream, place: str) -> None:
        await stream.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode(), timeout=CONNECT_SECONDS)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            # A byte at a time: what follows the head is the gateway's.
            piece = await stream.read(1, timeout=ANSWER_SECONDS)
            if not piece or len(head) > _HEAD_LIMIT:
                raise NotThere(_AWAY)
            head += piece
        status = head.partition(b"\r\n")[0].split(b" ")[1:2]
        if status == [b"200"]:
            return
        body = b""
        while len(body) < _BODY_LIMIT and (piece := await stream.read(_BODY_LIMIT, timeout=ANSWER_SECONDS)):
            body += piece
        try:
            said = msgspec.json.decode(body, type=_Body).json.message
            raise NotThere(clean(said)[:500], int(status[0]))
        except (msgspec.DecodeError, ValueError, IndexError) as exc:
            raise NotThere(_AWAY) from exc


@contextmanager
def _short(socket: Path) -> Iterator[str]:
    """A path by which a socket is connected to, however long its own is. OSError where it is none.

    Its folder is open to the node's container, which may have put a link there.
    """
    folder = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found: Any = os.stat(socket.name, dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISSOCK(found.st_mode):
            raise FileNotFoundError(str(socket))
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)
