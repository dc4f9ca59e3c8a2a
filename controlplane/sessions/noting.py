"""What a worker tells of its sessions is noted: which there are, how each is, which are gone."""

import itertools
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

import anyio
import anyio.lowlevel
import msgspec

from controlplane.errors import PerryError
from controlplane.sessions import store
from controlplane.sessions.aggregate import Key, Row, info, key_of, millis, status_of
from controlplane.sessions.changes import Changes
from controlplane.sessions.database import Damaged, SessionsDatabase
from protocol.worker import SESSIONS_LIMIT, Event, SessionGone, SessionSeen, SnapshotEnd, StoreSeen

log = logging.getLogger(__name__)

LONGEST_PAUSE: Final = 60.0

AGENTS: Final = 100
"""Whose stores a worker may call unreadable."""

_BATCH: Final = 500


class Known(msgspec.Struct):
    """How far a session was read. ``pause`` is in seconds; no page is asked for before ``due``."""

    row: int
    status: str
    last_activity: int
    mark: str | None
    cursor: str | None
    pause: float = 0.0
    due: float = 0.0
    empty: int = 0


class Complaints:
    """Sentences about one workspace in the log, once each and not many: a workspace must not fill it."""

    def __init__(self, workspace: str) -> None:
        self._workspace = workspace
        self._said: set[str] = set()

    def say(self, sentence: str) -> None:
        if sentence not in self._said and len(self._said) < 20:
            self._said.add(sentence)
            log.warning("workspace %s %s", self._workspace, sentence[:500])

    def failed(self, exc: Exception, pause: float) -> float:
        """How long to wait after another failure to read or keep something, in seconds."""
        self.say(f"has sessions that could not be read: {exc or 'it does not answer'}")
        return min(max(pause * 2, 0.5), LONGEST_PAUSE)


class Noting:
    """The sessions of one workspace, as they are told. It outlives the streams to its worker.

    ``changed`` is called for each session that was told of, once that is kept; ``void`` when messages are.
    """

    def __init__(
        self,
        name: str,
        created: str,
        database: SessionsDatabase,
        changes: Changes,
        complaints: Complaints,
        *,
        changed: Callable[[Key, SessionSeen], None],
        void: Callable[[], None],
    ) -> None:
        self._name = name
        self._created = created
        self._db = database
        self._changes = changes
        self._complaints = complaints
        self._changed = changed
        self._void = void
        self._number = 0
        self._known: dict[Key, Known] | None = None
        self._told: dict[Key, SessionSeen | SessionGone] = {}
        self._latest: dict[Key, SessionSeen] = {}
        self._seen: set[Key] | None = None
        """What was told since the beginning of a snapshot, until it is known to be all that there is."""
        self._unsure: set[str] = set()
        """Agents of whom not all was told, since their stores cannot be looked at."""
        self._whole: set[str] = set()
        self._all_told = self.first = False
        """``first``: all sessions are told for the first time."""
        self._news = anyio.Event()

    # --- what the worker tells; on the event loop

    def begin(self, *, resumed: bool) -> None:
        """A stream stands. If it is not resumed, every session is told anew."""
        if not resumed:
            self._told.clear()
            self._latest.clear()
            self._unsure.clear()
            self._whole.clear()
            self._seen, self._all_told, self.first = set(), False, True

    def tell(self, event: Event) -> None:
        """To be noted in its turn."""
        if isinstance(event, SnapshotEnd):
            self._all_told = True
            self._news.set()
            return
        if isinstance(event, StoreSeen):
            return self._tell_of_store(event)
        if not isinstance(event, SessionSeen | SessionGone):
            return
        key = key_of(event)
        if key is None:
            return self._complaints.say("tells of sessions whose names are none; they are left out")
        many = len(self._latest) + len(self._told) >= SESSIONS_LIMIT
        if many and key not in self._latest and key not in self._told:
            return self._complaints.say(f"has more than {SESSIONS_LIMIT} sessions; the others are left out")
        if self._seen is not None:
            (self._seen.add if isinstance(event, SessionSeen) else self._seen.discard)(key)
        self._told[key] = event
        self._news.set()

    def _tell_of_store(self, event: StoreSeen) -> None:
        if not event.whole and self.first and len(self._unsure) < AGENTS:
            self._unsure.add(event.agent)
        elif event.whole and event.agent in self._unsure:
            self._whole.add(event.agent)
            self._news.set()

    def start_over(self) -> None:
        """The index is empty: all that was told is to be read anew. Not while it runs."""
        self._known = None
        self._told = {**self._latest, **self._told}

    # --- what is known

    @property
    def known(self) -> dict[Key, Known]:
        """The sessions by what is kept of them; none before :meth:`load`."""
        return {} if self._known is None else self._known

    @property
    def latest(self) -> dict[Key, SessionSeen]:
        """What was noted of each last."""
        return self._latest

    def now(self, key: Key, otherwise: SessionSeen) -> SessionSeen:
        """What was told of a session last, noted or not."""
        told = self._told.get(key, self._latest.get(key))
        return told if isinstance(told, SessionSeen) else otherwise

    async def load(self) -> int | None:
        """Know what is kept of the workspace: the bytes of its messages. None where that is known."""
        size = None
        if self._known is None:
            self._number = await self._db.write(lambda db: store.workspace(db, self._name, self._created))
            readings, size = await self._db.read(lambda db: store.reading(db, self._number))
            self._known = {reading.row.key: _known(reading) for reading in readings}
        rows = await self._db.read(lambda db: store.of_workspace(db, self._number))
        # Those who follow see that the workspace is followed now.
        for number, row in enumerate(rows):
            if not row.forgotten:
                self._changes.changed(info(row, live=True))
            if number % _BATCH == _BATCH - 1:
                await anyio.lowlevel.checkpoint()
        return size

    # --- work

    async def run(self) -> None:
        """Until the index turns out to be damaged (Damaged)."""
        self._news.set()
        pause = 0.0
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            try:
                while self._told:
                    await self._note()
                if self._all_told:
                    await self._end_of_snapshot()
                if self._whole and not self.first:
                    await self._end_of_stores()
                pause = 0.0
            except Damaged:
                raise
            except PerryError as exc:
                pause = self._complaints.failed(exc, pause)
                await anyio.sleep(pause)
                self._news.set()

    async def _note(self) -> None:
        """Take some of what was told. It is told still where it could not be kept."""
        known = self.known
        batch = list(itertools.islice(self._told.items(), _BATCH))
        now = _now()
        gone = [known[key].row for key, event in batch if isinstance(event, SessionGone) and key in known]
        if gone:
            self._tell_gone(await self._db.write(lambda db: store.remove(db, gone)))
        fresh = [
            (key, event) for key, event in batch if isinstance(event, SessionSeen) and self._is_news(key, event, now)
        ]
        if fresh:
            with nullcontext() if self.first else self._db.hurrying():
                noted = await self._db.write(lambda db: store.note(db, self._number, fresh, now))
            for reading, news in noted:
                key = reading.row.key
                if (before := known.get(key)) is None:
                    known[key] = _known(reading)
                else:
                    before.status, before.last_activity = reading.row.status, reading.row.last_activity
                if news:
                    self._changes.changed(info(reading.row, live=True))
        for key, event in batch:
            if self._told.get(key) is event:
                del self._told[key]
            if isinstance(event, SessionGone):
                known.pop(key, None)
                self._latest.pop(key, None)
            else:
                self._latest[key] = event
                self._changed(key, event)

    def _is_news(self, key: Key, event: SessionSeen, now: int) -> bool:
        known = self.known.get(key)
        if known is None or known.status != status_of(event.status):
            return True
        at = millis(event.last_activity, now)
        # With a change of its messages comes the time of them.
        return known.mark == event.mark and at is not None and at != known.last_activity

    async def _end_of_snapshot(self) -> None:
        self._all_told = False
        if self._seen is None:
            return
        try:
            await self._remove_unseen(lambda agent: agent not in self._unsure)
        except PerryError:
            self._all_told = True
            raise
        self.first = False
        if not self._unsure:
            self._seen = None

    async def _end_of_stores(self) -> None:
        """Stores could be looked at that could not before: what was not told of them is gone."""
        whole, self._whole = self._whole, set()
        try:
            await self._remove_unseen(whole.__contains__)
        except PerryError:
            self._whole |= whole
            raise
        self._unsure -= whole
        if not self._unsure:
            self._seen = None

    async def _remove_unseen(self, of: Callable[[str], bool]) -> None:
        """Sessions of these agents that were not told are gone."""
        seen = self._seen or set()
        gone = {key: entry.row for key, entry in self.known.items() if key not in seen and of(key.agent)}
        self._tell_gone(await self._db.write(lambda db: store.remove(db, gone.values())))
        for key in gone:
            self.known.pop(key, None)
            self._latest.pop(key, None)

    def _tell_gone(self, rows: list[Row]) -> None:
        for row in rows:
            if not row.forgotten:
                self._changes.deleted(self._name, row.key)
        self._void()


def _known(reading: store.Reading) -> Known:
    row = reading.row
    return Known(row.id, row.status, row.last_activity, reading.mark, reading.cursor)


def _now() -> int:
    return int(time.time() * 1000)
