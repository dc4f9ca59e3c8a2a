"""What there is to know about a coding agent: where its sessions are, and how they are read."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from protocol.sessions import SessionStatus
from protocol.worker import Page


class Place(msgspec.Struct, frozen=True):
    """A folder that is watched, with its subfolders down to ``depth`` levels. It may come into being later."""

    path: Path
    depth: int = 0


class Found(msgspec.Struct, frozen=True, gc=False):
    """A session, as cheaply as it can be known. No content of it.

    ``key`` is where it is: a path, or whatever else is its agent's own. ``mark`` changes with its messages and facts.
    ``last_activity`` is in seconds since 1970. Of two of the same ``session_id`` the more recent one counts.
    """

    key: str
    session_id: str
    mark: str
    status: SessionStatus
    last_activity: float


class Looked(msgspec.Struct):
    """What was seen: sessions that are there, and keys of such that are not. With ``everything`` there are no others,
    but for what is in ``unseen``: files and folders that could not be read, of which ``problem`` says why.
    ``settled``: there is no problem any more, although this was not a look at everything."""

    found: list[Found] = msgspec.field(default_factory=list)
    gone: list[str] = msgspec.field(default_factory=list)
    everything: bool = False
    unseen: list[str] = msgspec.field(default_factory=list)
    problem: str | None = None
    settled: bool = False


class Known(Protocol):
    """What an agent may ask of the index of its sessions."""

    def key_of(self, session_id: str) -> str | None:
        """Where a session is."""


class NotPossible(Exception):
    """What was asked of an agent's store cannot be done; a sentence for people that says what to do."""


class CodingAgent(Protocol):
    """One coding agent's store in a home folder. Its methods block, and are called in threads: ``look`` by one at a
    time, the others by any."""

    @property
    def name(self) -> str:
        """As in :data:`protocol.sessions.AgentName`."""

    def places(self) -> Sequence[Place]:
        """What to watch. Pure."""

    def concerns(self, path: str) -> bool:
        """Whether a session can have changed when that file has. Quick and pure: called for every event."""

    def look(self, paths: Collection[str] | None, known: Known) -> Looked:
        """What has become of the sessions whose files or keys these are; of all, where None."""

    def read(self, found: Found, cursor: str | None, limit: int) -> Page:
        """Messages from a cursor on. OSError or NotPossible where it cannot be read; FileNotFoundError where it is
        gone."""

    def rename(self, found: Found, title: str) -> None:
        """As the agent itself would do it; or NotPossible."""

    def delete(self, found: Found) -> None:
        """As the agent itself would do it, with its subagents; or NotPossible. Not there: done."""
