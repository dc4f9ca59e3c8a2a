"""What coding agents have in common whose sessions are files of JSON records, one each."""

import errno
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Final

from protocol.sessions import SessionStatus, Tokens
from protocol.worker import Page, SessionFacts
from worker.opening import NotRegular, open_below
from worker.sessions import transcript
from worker.sessions.agent import Found, Known, Looked, Place
from worker.sessions.blocks import moment
from worker.sessions.lines import Unreadable
from worker.sessions.liveness import Processes

ID: Final = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,127}")

GLANCES: Final = (8 << 10, 256 << 10)
"""Bytes at a file's end where its last turn is looked for; the second where the first did not tell."""

STALE_SECONDS: Final = 600
"""Without a file's being written, a turn is taken to be over where nobody says that it is not."""


class Turn(Enum):
    """What the end of a file says of the last turn. It says nothing of whether anybody is still at it."""

    RUNNING = "running"
    ASKING = "asking"
    """A person is asked something."""
    TO_BE_ALLOWED = "to be allowed"
    """It is about to do what a person has to allow before, or does it already."""
    DONE = "done"
    FAILED = "failed"


class Transcripts(ABC):
    """Sessions below one folder, each a file."""

    name: ClassVar[str]
    form: ClassVar[transcript.Format]
    depth: ClassVar[int]
    """Levels of folders below ``root`` in which there are sessions."""

    def __init__(self, root: Path, processes: Processes) -> None:
        self.root = root
        self.processes = processes

    @abstractmethod
    def session_of(self, path: str) -> str | None:
        """The id of the session that a file is, by its name; None where it is none. Pure, unless the id is inside."""

    @abstractmethod
    def turn(self, record: Any) -> Turn | None:
        """What one of the last records says of the last turn; None where nothing."""

    @abstractmethod
    def resume(self, session_id: str) -> list[str] | None:
        """The command that opens a session again."""

    def busy(self, path: str, session_id: str, turn: Turn, written: float) -> SessionStatus:
        """What a session is doing whose last turn is not over, if its process is still there. Never busy for ever."""
        recent = abs(time.time() - written) < STALE_SECONDS
        return SessionStatus.BUSY if recent and self.processes.named(*self.programs()) else SessionStatus.IDLE

    def programs(self) -> tuple[str, ...]:
        """What the agent's processes are called."""
        return (self.name,)

    def places(self) -> Sequence[Place]:
        return [Place(self.root, self.depth)]

    def concerns(self, path: str) -> bool:
        return path.endswith(".jsonl") and path.startswith(f"{self.root}/")

    def enters(self, folder: str, depth: int) -> bool:
        """Whether there can be sessions in a folder, so many levels below the root. Pure."""
        return True

    def look(self, paths: Collection[str] | None, known: Known) -> Looked:
        looked = Looked(everything=paths is None)
        for path in self._files(looked) if paths is None else paths:
            self.glance(path, looked)
        return looked

    def glance(self, path: str, looked: Looked) -> None:
        """One file, as it is now."""
        try:
            session_id = self.session_of(path)
            if session_id is None or not ID.fullmatch(session_id):
                return
            fd = open_below(self.root, path)
        except (FileNotFoundError, NotRegular):
            looked.gone.append(path)
            return
        except OSError as error:
            missed(looked, path, error)
            return
        try:
            now = os.fstat(fd)
            status = self.status(path, session_id, self.last_turn(fd, now.st_size), now.st_mtime)
        except OSError as error:
            missed(looked, path, error)
            return
        finally:
            os.close(fd)
        looked.found.append(Found(path, session_id, self.mark(session_id, now), status, now.st_mtime))

    def status(self, path: str, session_id: str, turn: Turn | None, written: float) -> SessionStatus:
        """What a session is doing."""
        match turn:
            case Turn.RUNNING | Turn.ASKING | Turn.TO_BE_ALLOWED:
                return self.busy(path, session_id, turn, written)
            case Turn.FAILED:
                return SessionStatus.ERROR
            case _:
                return SessionStatus.IDLE

    def mark(self, session_id: str, now: os.stat_result) -> str:
        """Another one whenever a file was written. Without its device: that may change when a container starts."""
        return f"{now.st_ino}:{now.st_size}:{now.st_mtime_ns}"

    def last_turn(self, fd: int, size: int) -> Turn | None:
        """What the end of a file says."""
        for reach in GLANCES:
            lines = os.pread(fd, reach, max(0, size - reach)).split(b"\n")
            # The first may be the end of a longer one.
            for line in reversed(lines if reach >= size else lines[1:]):
                if not line.endswith(b"}") or not self.form.wants(line):
                    continue
                try:
                    turn = self.turn(self.form.decode(line))
                except Unreadable:
                    continue
                if turn is not None:
                    return turn
            if reach >= size:
                break
        return None

    def read(self, found: Found, cursor: str | None, limit: int) -> Page:
        fd = open_below(self.root, found.key)
        try:
            mark = self.mark(found.session_id, os.fstat(fd))
            reading = self.page_of(fd, found, cursor, limit)
        finally:
            os.close(fd)
        return Page(
            messages=reading.messages,
            facts=self.facts(found, reading.state),
            cursor=reading.cursor,
            mark=mark,
            more=reading.more,
            reset=reading.reset,
            skipped=reading.skipped,
        )

    def page_of(self, fd: int, found: Found, cursor: str | None, limit: int) -> transcript.Reading:
        """A page of the opened file of a session."""
        return transcript.read(fd, self.form, cursor, limit)

    def facts(self, found: Found, state: transcript.State) -> SessionFacts:
        """What is known of a session."""
        tokens = state.tokens
        return SessionFacts(
            title=state.title,
            cwd=state.cwd,
            model=state.model,
            parent=state.parent,
            created=moment(state.created),
            last_activity=moment(state.last),
            tokens=Tokens(input=tokens[0], output=tokens[1], cache_read=tokens[2], cache_write=tokens[3])
            if tokens
            else None,
            cost=state.cost,
            resume=self.resume(found.session_id),
        )

    def _files(self, looked: Looked) -> Iterator[str]:
        """Every file that may be a session."""
        folders = [(str(self.root), 0)]
        while folders:
            folder, depth = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if depth < self.depth and self.enters(entry.path, depth):
                                folders.append((entry.path, depth + 1))
                        elif self.concerns(entry.path):
                            yield entry.path
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                missed(looked, folder, error)


def missed(looked: Looked, path: str, error: OSError) -> None:
    """A file or folder could not be read."""
    looked.unseen.append(path)
    looked.problem = cannot(path, error)


def cannot(path: str, error: OSError) -> str:
    """A sentence about a file or folder that cannot be read."""
    why = {
        errno.EACCES: "its permissions do not allow it",
        errno.EPERM: "its permissions do not allow it",
        errno.EIO: "the disk cannot be read there",
    }
    return f"{path!r} cannot be read: {why.get(error.errno or 0, (error.strerror or str(error)).lower())}."
