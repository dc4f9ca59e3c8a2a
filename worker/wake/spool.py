"""The spool of wakes: a folder with a file for each, which stays until the control plane has the wake on its own disk.

A file is written, flushed to the disk, renamed into place, and the folder flushed: what was answered with success
survives whatever ends then. Files are numbered in the order in which the wakes came.
"""

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from protocol.worker import Done, Request, TakeWakes, WakeSpooled
from worker.ports import UNNUMBERED, Handler, Told

log = logging.getLogger(__name__)

KEPT: Final = 1_000
"""Wakes that wait for a control plane; more are refused."""

NAME: Final = re.compile(r"^(?P<number>[0-9]{12})\.json$")


class Full(Exception):
    """As many wakes wait as are kept."""


class Broken(Exception):
    """The disk does not take it; the message says why."""


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A wake as its file has it."""

    id: str
    text: str
    mode: str
    at: datetime
    task: str | None = None


class Spool:
    """The wakes of one home folder. For one event loop; ``told`` hears of each when it is safe."""

    def __init__(self, folder: Path, *, kept: int = KEPT) -> None:
        self._folder = folder
        self._kept = kept
        self._files: dict[str, tuple[Path, WakeSpooled]] = {}
        self._number = 0
        self._told: Told | None = None
        self._writing = asyncio.Lock()
        self._ready = asyncio.Event()

    async def open(self, told: Told) -> None:
        """Read what an earlier run has left, and tell of it."""
        self._told = told
        for number, kept, file in await asyncio.to_thread(self._read):
            self._number = max(self._number, number)
            self._add(kept, file)
        self._ready.set()

    async def ready(self) -> None:
        await self._ready.wait()

    def seen(self) -> Sequence[WakeSpooled]:
        """All that wait, in order."""
        return [wake for _, wake in self._files.values()]

    def handlers(self) -> Mapping[type[Request], Handler]:
        return {TakeWakes: self.take}

    async def put(self, kept: Kept) -> None:
        """Returns when the wake is on the disk. A known id is the same wake. Full, or Broken."""
        await self._ready.wait()
        async with self._writing:
            if kept.id in self._files:
                return
            if len(self._files) >= self._kept:
                raise Full
            self._number += 1
            file = self._folder / f"{self._number:012d}.json"
            try:
                # To its end, also where who asked has gone: half of it done is not known to anybody.
                await asyncio.shield(asyncio.to_thread(_write, file, msgspec.json.encode(kept)))
            except OSError as exc:
                raise Broken(exc.strerror or str(exc)) from exc
            self._add(kept, file)

    async def take(self, request: TakeWakes) -> Done:
        """The control plane has these: forget them."""
        for id_ in request.ids:
            file, _ = self._files.pop(id_, (None, None))
            if file is not None:
                file.unlink(missing_ok=True)
        return Done()

    def _add(self, kept: Kept, file: Path) -> None:
        wake = WakeSpooled(seq=UNNUMBERED, id=kept.id, text=kept.text, mode=kept.mode, at=kept.at, task=kept.task)
        self._files[kept.id] = (file, wake)
        if self._told is not None:
            self._told(wake)

    def _read(self) -> list[tuple[int, Kept, Path]]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        for entry in os.scandir(self._folder):
            file = Path(entry.path)
            match = NAME.fullmatch(entry.name)
            if match is None:
                # What was not renamed was not answered.
                with contextlib.suppress(OSError):
                    file.unlink()
                continue
            try:
                found.append((int(match["number"]), msgspec.json.decode(file.read_bytes(), type=Kept), file))
            except (OSError, msgspec.DecodeError):
                log.warning("%s holds no wake, and is left alone", file)
        return sorted(found, key=lambda each: each[0])


def now() -> datetime:
    return datetime.now(UTC)


def _write(file: Path, content: bytes) -> None:
    draft = file.with_suffix(".draft")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
