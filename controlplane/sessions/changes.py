"""What has changed of sessions, for those who follow. Telling never waits for anybody.

Of each session only the latest change is kept: a follower that is slow hears less often of one that changes often, and
misses none. Everything here belongs to one event loop; the ideas are those of :mod:`controlplane.events.bus`.
"""

import secrets
from collections.abc import Callable
from typing import Final

import msgspec

from controlplane.sessions.aggregate import Key
from protocol.sessions import SessionChanged, SessionDeleted, SessionInfo

KEPT: Final = 20_000
"""Sessions whose latest change is kept."""

_encode: Final = msgspec.json.Encoder().encode


class Name(msgspec.Struct, frozen=True):
    """A session, by what people know it by."""

    workspace: str
    key: Key


class _Change(msgspec.Struct, frozen=True):
    seq: int
    frame: str


class News(msgspec.Struct, frozen=True):
    """Messages of a session are new or other; ``reset`` where all others are void."""

    name: Name
    ordinals: tuple[int, ...]
    reset: bool


class Changes:
    """The changes of this run of the control plane. ``epoch`` tells runs apart."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self.epoch = secrets.token_hex(8)
        self.seq = 0
        self.closed = False
        self._kept = kept
        self._latest: dict[Name, _Change] = {}
        self._forgotten = 0
        self._followers: dict[object, tuple[Callable[[], None], Callable[[News], None]]] = {}

    def changed(self, session: SessionInfo) -> None:
        """A session is new, or other."""
        self.seq += 1
        self._keep(
            Name(session.workspace, Key(session.agent, session.session_id)),
            _encode(SessionChanged(seq=self.seq, session=session)),
        )

    def deleted(self, workspace: str, key: Key) -> None:
        """A session is gone."""
        self.seq += 1
        gone = SessionDeleted(seq=self.seq, workspace=workspace, agent=key.agent, session_id=key.session_id)
        self._keep(Name(workspace, key), _encode(gone))

    def _keep(self, name: Name, frame: bytes) -> None:
        self._latest.pop(name, None)
        self._latest[name] = _Change(self.seq, frame.decode())
        if len(self._latest) > self._kept:
            oldest = next(iter(self._latest))
            self._forgotten = self._latest.pop(oldest).seq
        for notify, _ in self._followers.values():
            notify()

    def said(self, news: News) -> None:
        """Messages were stored."""
        for _, hear in self._followers.values():
            hear(news)

    def has_after(self, epoch: str | None, seq: int | None) -> bool:
        """Whether all that came after a change is still known."""
        return epoch == self.epoch and seq is not None and self._forgotten <= seq <= self.seq

    def after(self, seq: int, workspace: str | None, limit: int) -> tuple[list[str], int]:
        """Frames of what came after a change, the oldest first, and the change that they reach to."""
        found: list[_Change] = []
        for name, change in reversed(self._latest.items()):
            if change.seq <= seq:
                break
            if workspace is None or name.workspace == workspace:
                found.append(change)
        found.reverse()
        reached = self.seq if len(found) <= limit else found[limit - 1].seq
        return [change.frame for change in found[:limit]], reached

    @property
    def followers(self) -> int:
        """How many follow now."""
        return len(self._followers)

    def follow(self, who: object, notify: Callable[[], None], hear: Callable[[News], None]) -> None:
        """Have ``notify`` called for each change, and ``hear`` with all that is said. Neither may wait."""
        self._followers[who] = (notify, hear)

    def leave(self, who: object) -> None:
        self._followers.pop(who, None)

    def close(self) -> None:
        """The control plane stops."""
        self.closed = True
        for notify, _ in list(self._followers.values()):
            notify()
