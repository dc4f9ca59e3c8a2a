"""Bodies that clients send ahead (git bundles), as files in the config folder."""

import contextlib
import errno
import logging
import re
import secrets
import time
from collections.abc import AsyncIterable, Callable, Collection
from pathlib import Path
from typing import BinaryIO, Final

import anyio
import anyio.to_thread

from controlplane.errors import InvalidInput, OutOfSpace, TooLarge

log = logging.getLogger(__name__)

KEPT_SECONDS: Final = 24 * 3600
"""How long an upload that nobody takes is kept."""

_SWEEP_EVERY = 600
_ID = re.compile(r"[a-z0-9]{16,64}")
_BUFFER = 1 << 20


class UploadFolder:
    """The uploads, one file each, for their owner alone. Implements :class:`controlplane.ports.Uploads`."""

    def __init__(self, folder: Path, *, limit: int) -> None:
        """``limit`` is the most bytes that one upload may have."""
        self.limit = limit
        self._folder = folder
        self._needed: Callable[[], Collection[str]] = tuple
        self._taken: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep_while(self, needed: Callable[[], Collection[str]]) -> None:
        """What is ``needed`` (ids) stays, however old it is and whoever has taken it. Asked on the event loop."""
        self._needed = needed

    def path(self, upload_id: str) -> Path | None:
        """Where a complete upload lies; None where there is none."""
        if not _ID.fullmatch(upload_id):
            return None
        file = self._folder / upload_id
        return file if file.is_file() else None

    def discard(self, upload_id: str) -> None:
        """One who needed an upload has taken it: it goes, at once or with the first sweep after nobody needs it any
        more. Nothing happens where there is none."""
        if not _ID.fullmatch(upload_id):
            return
        if upload_id in self._needed():
            self._taken.add(upload_id)
        else:
            (self._folder / upload_id).unlink(missing_ok=True)

    async def receive(self, upload_id: str, body: AsyncIterable[bytes], announced: int | None) -> None:
        """Keep a body under an id of the client's choice; it is there whole or not at all, and replaces an older one.

        InvalidInput for an id that is none, TooLarge, or OutOfSpace.
        """
        if not _ID.fullmatch(upload_id):
            raise InvalidInput("The id of an upload is 16 to 64 lower-case letters and digits; choose another.")
        if announced is not None and announced > self.limit:
            raise self._too_large()
        draft = self._folder / f".{upload_id}.{secrets.token_hex(4)}"
        try:
            with await anyio.to_thread.run_sync(_create, draft) as file:
                await self._write(file, body)
            await anyio.to_thread.run_sync(draft.rename, self._folder / upload_id)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise OutOfSpace(f"No space is left in {self._folder}; make room and try again.") from exc
            raise
        finally:
            draft.unlink(missing_ok=True)

    async def _write(self, file: BinaryIO, body: AsyncIterable[bytes]) -> None:
        size = 0
        buffer = bytearray()
        async for chunk in body:
            size += len(chunk)
            if size > self.limit:
                raise self._too_large()
            buffer += chunk
            if len(buffer) >= _BUFFER:
                await anyio.to_thread.run_sync(file.write, bytes(buffer))
                buffer.clear()
        await anyio.to_thread.run_sync(file.write, bytes(buffer))

    def _too_large(self) -> TooLarge:
        return TooLarge(f"An upload may have {self.limit} bytes; send less, or raise uploads.limit.")

    async def sweep(self) -> None:
        """Remove what was taken, what nobody has taken for a day, and what broken transfers left, but for what is
        needed."""
        needed = frozenset(self._needed())
        taken, self._taken = self._taken - needed, self._taken & needed
        await anyio.to_thread.run_sync(self._sweep, needed, taken)

    def _sweep(self, needed: Collection[str], taken: Collection[str]) -> None:
        deadline = time.time() - KEPT_SECONDS
        for file in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if file.name in needed or not file.is_file():
                    continue
                if file.name in taken or file.stat().st_mtime < deadline:
                    file.unlink()

    async def sweep_for_ever(self) -> None:
        """Sweep now and every few minutes."""
        while True:
            try:
                await self.sweep()
            except Exception:
                # Such as a disk, or a state.db, that cannot be read just now: what is needed is not known then.
                log.exception("old uploads could not be swept")
            await anyio.sleep(_SWEEP_EVERY)


def _create(file: Path) -> BinaryIO:
    file.touch(mode=0o600, exist_ok=False)
    return file.open("wb", buffering=0)
