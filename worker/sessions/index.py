"""Which sessions one coding agent has, and what has changed: values only."""

from collections.abc import Iterable, Set

import msgspec

from protocol.sessions import SessionStatus
from protocol.worker import SESSIONS_LIMIT
from worker.sessions.agent import Found, Looked

PREFERENCE_SECONDS = 60.0
"""By how much another file of the same session has to be newer, to be taken for it: two that are both written take no
turns."""

_RESTLESS = frozenset((SessionStatus.BUSY, SessionStatus.WAITING))


class Changes(msgspec.Struct):
    """Sessions that are new or different, and the ids of such that are gone."""

    seen: list[Found] = msgspec.field(default_factory=list)
    gone: list[str] = msgspec.field(default_factory=list)


class Index:
    """An agent's sessions, by where they are and by id."""

    def __init__(self, limit: int = SESSIONS_LIMIT) -> None:
        self._limit = limit
        self._by_key: dict[str, Found] = {}
        self._chosen: dict[str, str] = {}
        self._others: dict[str, set[str]] = {}
        """Further files of an id; hardly ever any."""
        self.restless: set[str] = set()
        """Keys of sessions that can change without a word, by their process's being gone."""
        self.left_out = 0
        """Sessions that were too many, at the last look at everything."""

    def __len__(self) -> int:
        return len(self._chosen)

    def key_of(self, session_id: str) -> str | None:
        return self._chosen.get(session_id)

    def get(self, session_id: str) -> Found | None:
        key = self._chosen.get(session_id)
        return None if key is None else self._by_key[key]

    def sessions(self) -> Iterable[Found]:
        """Every session once."""
        return (self._by_key[key] for key in self._chosen.values())

    def below(self, folders: Set[str]) -> set[str]:
        """The keys that are paths below one of these folders, or one of these."""
        return (
            {key for key in self._by_key if key in folders or not folders.isdisjoint(_parents(key))}
            if folders
            else set()
        )

    def take(self, looked: Looked) -> Changes:
        """Make what was seen one's own. A session whose file went and came again as another has only changed."""
        before: dict[str, Found | None] = {}
        if looked.everything:
            self.left_out = 0
            there = {found.key for found in looked.found} | self.below(set(looked.unseen))
            for key in [key for key in self._by_key if key not in there]:
                self._remove(key, before)
        for key in looked.gone:
            if key in self._by_key:
                self._remove(key, before)
        for found in looked.found:
            self._put(found, before)
        changes = Changes()
        for session_id, old in before.items():
            new = self.get(session_id)
            if new is None and old is not None:
                changes.gone.append(session_id)
            elif new is not None and new != old:
                changes.seen.append(new)
        return changes

    def _put(self, found: Found, before: dict[str, Found | None]) -> None:
        old = self._by_key.get(found.key)
        if old is not None and old.session_id != found.session_id:
            self._remove(found.key, before)
        session_id = found.session_id
        chosen = self._chosen.get(session_id)
        if chosen is None and len(self._chosen) >= self._limit:
            self.left_out += 1
            return
        before.setdefault(session_id, self.get(session_id))
        self._by_key[found.key] = found
        if found.status in _RESTLESS:
            self.restless.add(found.key)
        else:
            self.restless.discard(found.key)
        if chosen is None:
            self._chosen[session_id] = found.key
        elif chosen != found.key:
            newer = found.last_activity - self._by_key[chosen].last_activity > PREFERENCE_SECONDS
            self._others.setdefault(session_id, set()).add(chosen if newer else found.key)
            if newer:
                self._chosen[session_id] = found.key
                self._others[session_id].discard(found.key)

    def _remove(self, key: str, before: dict[str, Found | None]) -> None:
        session_id = self._by_key[key].session_id
        before.setdefault(session_id, self.get(session_id))
        del self._by_key[key]
        self.restless.discard(key)
        others = self._others.get(session_id, set())
        others.discard(key)
        if self._chosen[session_id] == key:
            if others:
                newest = max(others, key=lambda other: (self._by_key[other].last_activity, other))
                others.discard(newest)
                self._chosen[session_id] = newest
            else:
                del self._chosen[session_id]
        if not others:
            self._others.pop(session_id, None)


def _parents(path: str) -> list[str]:
    found = []
    while (at := path.rfind("/")) > 0:
        path = path[:at]
        found.append(path)
    return found
