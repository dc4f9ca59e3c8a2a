"""Watches the sources, so that what changes on this machine is in running workspaces a moment later."""

import logging
import os
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Final, Protocol

import anyio
from watchfiles import awatch

from controlplane.errors import PerryError

log = logging.getLogger(__name__)

QUIET_MS: Final = 60
DEBOUNCE_MS: Final = 400
LOOK_MS: Final = 10_000
"""Without news we look all the same: a folder may be on a file system that tells nothing."""
FOLDERS: Final = 2000
AFTER_ERROR_SECONDS: Final = 5.0


class Watched(Protocol):
    """What is done about it; see :class:`controlplane.credentials.service.Credentials`."""

    def watched(self) -> list[Path]: ...

    async def fingerprint(self) -> str: ...

    async def sync_running(self) -> None: ...


async def watch_for_ever(credentials: Watched) -> None:
    """Bring what changes into all running workspaces. A source that cannot be read is no reason to end."""
    known: str | None = None
    ending = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(_tell, ending)
        while True:
            try:
                known = await _watch(credentials, known, ending)
            except (PerryError, OSError) as exc:
                log.warning("the sources of credentials are not watched for now: %s", exc)
                await anyio.sleep(AFTER_ERROR_SECONDS)


async def _tell(ending: anyio.Event) -> None:
    """Set it when we are cancelled: the thread that watches hears of nothing else, and would be waited for."""
    try:
        await anyio.sleep_forever()
    finally:
        ending.set()


async def _watch(credentials: Watched, known: str | None, ending: anyio.Event) -> str | None:
    """Until what is to be watched is something else; then what is known by now."""
    paths = await anyio.to_thread.run_sync(credentials.watched)
    folders = await anyio.to_thread.run_sync(folders_of, paths)
    concerns = await anyio.to_thread.run_sync(Concerns, paths)
    # Files are watched through their folder: an editor replaces a file, and a watch on it would stay with the old one.
    changes = awatch(
        *folders,
        watch_filter=lambda _, path: concerns(path),
        debounce=DEBOUNCE_MS,
        step=QUIET_MS,
        rust_timeout=LOOK_MS,
        yield_on_timeout=True,
        stop_event=ending,
        recursive=False,
        ignore_permission_denied=True,
    )
    known = await _bring(credentials, known)
    async with aclosing(changes):
        async for _ in changes:
            known = await _bring(credentials, known)
            now = await anyio.to_thread.run_sync(credentials.watched)
            if now != paths or await anyio.to_thread.run_sync(folders_of, now) != folders:
                return known
    return known


async def _bring(credentials: Watched, known: str | None) -> str:
    now = await credentials.fingerprint()
    if known is not None and now != known:
        await credentials.sync_running()
    return now


def folders_of(paths: Iterable[Path]) -> list[Path]:
    """The folders that tell of changes in these files and folders; where one is missing, the next above it."""
    found: set[Path] = set()
    for path in paths:
        for each in {path, path.resolve()}:
            if each.is_dir():
                found.update(Path(parent) for parent, _, _ in os.walk(each))
            folder = each.parent
            while not folder.is_dir() and folder != folder.parent:
                folder = folder.parent
            found.add(folder)
    return sorted(found)[:FOLDERS]


class Concerns:
    """Whether a change means something: it is of a source, in one, or of a folder that one may be in.

    Asked of each file that changes beside a source, as state.db does many times a second: it touches no disk.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        paths = list(paths)
        self._exactly = {str(each) for path in paths for each in (path, path.resolve(), *path.parents)}
        self._below = tuple(f"{path}/" for path in paths)

    def __call__(self, changed: str) -> bool:
        return changed in self._exactly or changed.startswith(self._below)
