"""Reads files that are compressed (Zstandard): unpacked once, into a file that nobody else sees, and read there."""

import os
import sys
import tempfile
import threading
from typing import Final

from worker.sessions.agent import NotPossible

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

UNPACKED_LIMIT: Final = 1 << 30
"""Bytes that a file may have unpacked: one of a few kilobytes can be made to become any size."""

WINDOW_LIMIT: Final = 27
"""The memory that unpacking may take, as a power of two: what the format's own tools allow."""

CHUNK: Final = 256 << 10

_Version = tuple[int, int, int]


class Unpacked:
    """The file that was unpacked last: a session is read page by page. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: _Version | None = None
        self._fd = -1
        self._failed: tuple[_Version, str] | None = None

    def open(self, packed: int, name: str) -> int:
        """A descriptor of what is in the file of a descriptor, for the caller to close. NotPossible where that is
        damaged, or too large."""
        now = os.fstat(packed)
        version = (now.st_ino, now.st_size, now.st_mtime_ns)
        with self._lock:
            if self._failed is not None and self._failed[0] == version:
                raise NotPossible(self._failed[1])  # It is asked for again and again.
            if self._of != version:
                self._forget()
                try:
                    self._fd, self._of = _unpack(packed, name), version
                except NotPossible as failed:
                    self._failed = version, str(failed)
                    raise
            return os.dup(self._fd)

    def forget(self) -> None:
        """Give the space back."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        if self._of is not None:
            os.close(self._fd)
            self._of = None


def _unpack(packed: int, name: str) -> int:
    target, path = tempfile.mkstemp(prefix="perry-")
    os.unlink(path)
    size = 0
    try:
        with os.fdopen(os.dup(packed), "rb") as file, zstd.open(file, "rb", options=_options()) as content:
            while chunk := content.read(CHUNK):
                size += len(chunk)
                if size > UNPACKED_LIMIT:
                    raise NotPossible(f"{name!r} is larger than {UNPACKED_LIMIT >> 20} MB unpacked: it is not read.")
                os.write(target, chunk)
    except (zstd.ZstdError, EOFError) as error:
        os.close(target)
        raise NotPossible(f"{name!r} is damaged, or not written to its end: {error}.") from error
    except BaseException:
        os.close(target)
        raise
    return target


def _options() -> dict[int, int]:
    return {zstd.DecompressionParameter.window_log_max: WINDOW_LIMIT}
