"""Hears from the kernel (inotify) which files have changed below folders, some of which come into being later.

inotify-simple was chosen: it hands over every event that the kernel has, at once and without waiting for more, says
when the kernel had to drop some, and keeps nothing in memory but what is kept here: a path for each folder. Libraries
that watch for a reloading web server wait for quiet first (50 ms and more), and pass over that events were dropped.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import inotify_simple
import msgspec

from worker.sessions.agent import Place

_flags = inotify_simple.flags

_FILES: Final = (
    _flags.CREATE
    | _flags.MODIFY
    | _flags.MOVED_TO
    | _flags.MOVED_FROM
    | _flags.DELETE
    | _flags.ONLYDIR
    | _flags.EXCL_UNLINK
)

_FOLDERS: Final = _flags.CREATE | _flags.MOVED_TO | _flags.MOVED_FROM | _flags.DELETE | _flags.ONLYDIR
"""For folders that are only on the way to a place: files in them are nobody's business."""


NO_MORE: Final = (
    "The kernel watches no more folders for this user: raise fs.inotify.max_user_watches on the agent machine."
)


class Heard(msgspec.Struct):
    """``files`` may have changed; of what is below ``folders`` anything may have. ``dropped``: so may everything."""

    files: set[str] = msgspec.field(default_factory=set)
    folders: set[str] = msgspec.field(default_factory=set)
    dropped: bool = False


class Watcher:
    """Watches places. Not for several threads. ``problem`` is a sentence, as long as something cannot be watched."""

    def __init__(self, places: Sequence[Place], home: Path) -> None:
        """``home`` is there, and stays. OSError where the kernel gives no inotify."""
        self._inotify = inotify_simple.INotify(nonblocking=True)
        self._places = places
        self._ways = {str(way) for place in places for way in _ways(place.path, home)}
        self._roots = self._ways | {str(place.path) for place in places}
        self._folders: dict[int, str] = {}
        self._numbers: dict[str, int] = {}
        self._depths: dict[str, int] = {}
        """How many levels below a watched folder are watched too; -1 where it is only on the way to a place."""
        self.problem: str | None = None

    def fileno(self) -> int:
        """Readable when there is something to hear."""
        return int(self._inotify.fileno())

    def close(self) -> None:
        """Nothing is watched any more."""
        self._inotify.close()

    @property
    def watched(self) -> int:
        """How many folders are."""
        return len(self._folders)

    def settle(self, *, anew: bool = False) -> Heard:
        """Watch whatever is there and is not watched yet. Tells the files that are in it: they may have come before.

        Folders that are watched are taken to be watched with all below them, unless ``anew``."""
        heard = Heard()
        anew = anew or self.problem is not None
        self.problem = None
        # First what is on the way: for folders that come, and for such that go and come again.
        for way in self._ways:
            if way not in self._depths and os.path.isdir(way):
                self._watch(way, -1)
        for place in self._places:
            path = str(place.path)
            if (anew or self._depths.get(path, -1) < place.depth) and os.path.isdir(path):
                self._watch_below(path, place.depth, heard)
        return heard

    def hear(self) -> Heard:
        """What has happened since. Does not wait."""
        heard = Heard()
        unsettled = False
        for event in self._inotify.read(timeout=0):
            if event.mask & _flags.Q_OVERFLOW:
                heard.dropped = True
                continue
            folder = self._folders.get(event.wd)
            if folder is None:
                continue
            if event.mask & _flags.IGNORED:
                self._forget(folder)
                heard.folders.add(folder)
                unsettled = True
                continue
            path = f"{folder}/{event.name}"
            depth = self._depths[folder]
            # Also where it is no folder: a link to one may stand in its place.
            unsettled |= path in self._roots
            if not event.mask & _flags.ISDIR:
                if depth >= 0:
                    heard.files.add(path)
            elif event.mask & _flags.MOVED_FROM:
                self._leave(path)
                heard.folders.add(path)
            elif event.mask & _flags.DELETE:
                heard.folders.add(path)
            elif depth > 0:
                self._watch_below(path, depth - 1, heard)
        if unsettled or heard.dropped:
            more = self.settle(anew=heard.dropped)
            heard.files |= more.files
        return heard

    def _watch_below(self, path: str, depth: int, heard: Heard) -> None:
        """A folder and those in it. First it is watched and then looked into: nothing slips through in between."""
        folders = [(path, depth)]
        while folders:
            folder, depth = folders.pop()
            if not self._watch(folder, depth):
                continue
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not entry.is_dir(follow_symlinks=False):
                            heard.files.add(entry.path)
                        elif depth > 0:
                            folders.append((entry.path, depth - 1))
            except OSError:
                continue

    def _watch(self, folder: str, depth: int) -> bool:
        mask = _FOLDERS if depth < 0 else _FILES
        if folder not in self._roots:
            mask |= _flags.DONT_FOLLOW
        try:
            number = self._inotify.add_watch(folder, mask)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self.problem = NO_MORE
            return False
        self._folders[number] = folder
        self._numbers[folder] = number
        self._depths[folder] = depth
        return True

    def _leave(self, path: str) -> None:
        """A folder went elsewhere, or is no more: what is watched below it is not there any more."""
        for folder in [f for f in self._numbers if f == path or f.startswith(f"{path}/")]:
            number = self._forget(folder)
            try:
                self._inotify.rm_watch(number)
            except OSError:
                continue

    def _forget(self, folder: str) -> int:
        number = self._numbers.pop(folder)
        self._folders.pop(number, None)
        self._depths.pop(folder, None)
        return number


def _ways(path: Path, home: Path) -> list[Path]:
    """The folders on the way to a place, from the home folder on; from the root where it is elsewhere."""
    return [way for way in path.parents if not home.is_relative_to(way) or way == home] or list(path.parents)
