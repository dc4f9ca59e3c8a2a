"""Reads the sessions of one workspace: what its worker tells is noted, and what has changed is asked for.

Each session takes its turn, a page at a time: one that is large, or that never ends, delays the others by no more than
a page. What changes now comes before what is read for the first time.
"""

import heapq
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from controlplane.errors import PerryError, WorkerError, WorkerUnavailable
from controlplane.ports import WorkerLink
from controlplane.sessions import store
from controlplane.sessions.aggregate import TEXT_LIMIT, Key, Row, info, key_of, millis, status_of
from controlplane.sessions.changes import Changes, Name, News
from controlplane.sessions.database import Damaged, SessionsDatabase
from controlplane.sessions.masking import Mask
from protocol.worker import SESSIONS_LIMIT, Event, Page, ReadSession, SessionGone, SessionSeen, SnapshotEnd

log = logging.getLogger(__name__)

LANES: Final = 3
"""Pages that are under way at once: one is read while another is stored."""

PACE: Final = 0.025
"""Seconds between two pages of a session that changes all the time."""

ASK_SECONDS: Final = 60.0
LONGEST_PAUSE: Final = 60.0
EMPTY_PAGES: Final = 1_000
"""Pages in a row that add nothing, before a session is read slowly."""

_BATCH: Final = 500
_LIVE_TURNS: Final = 4
"""Of so many turns one is of what is read for the first time."""


class _Known(msgspec.Struct):
    """How far a session was read. ``pause`` is in seconds; no page is asked for before ``due``."""

    row: int
    status: str
    last_activity: int
    mark: str | None
    cursor: str | None
    pause: float = 0.0
    due: float = 0.0
    empty: int = 0


class Puller:
    """The sessions of a workspace. It outlives the streams to its worker, one of which it has at a time."""

    def __init__(
        self,
        name: str,
        created: str,
        database: SessionsDatabase,
        changes: Changes,
        mask: Callable[[], Mask],
        stored: Callable[[], None],
    ) -> None:
        self.name = name
        self.created = created
        self._db = database
        self._changes = changes
        self._mask = mask
        self._stored = stored
        self._link: WorkerLink | None = None
        self._number = 0
        self._bytes = 0
        self._known: dict[Key, _Known] | None = None
        self._told: dict[Key, SessionSeen | SessionGone] = {}
        self._latest: dict[Key, SessionSeen] = {}
        self._seen: set[Key] | None = None
        self._all_told = False
        self._news = anyio.Event()
        self._complained: set[str] = set()
        self._begin()

    def _begin(self) -> None:
        """Nothing is to be read."""
        self._live: deque[Key] = deque()
        self._first: list[tuple[float, int, Key]] = []
        self._later: list[tuple[float, int, Key]] = []
        self._queued: set[Key] = set()
        self._under_way: set[Key] = set()
        self._order = itertools.count()
        self._turns = itertools.cycle(range(_LIVE_TURNS))
        self._ready = anyio.Event()

    @property
    def reads_first(self) -> bool:
        """Whether there is much that was never read."""
        return len(self._first) > LANES

    # --- what the worker tells; on the event loop

    def attach(self, link: WorkerLink) -> None:
        """A stream stands, from which on things are told."""
        self._link = link
        if not link.hello.resumed:
            self._told.clear()
            self._latest.clear()
            self._seen, self._all_told = set(), False

    def tell(self, event: Event) -> None:
        if isinstance(event, SnapshotEnd):
            self._all_told = True
            self._news.set()
            return
        if not isinstance(event, SessionSeen | SessionGone):
            return
        key = key_of(event)
        if key is None:
            return self._complain("tells of sessions whose names are none; they are left out")
        many = len(self._latest) + len(self._told) >= SESSIONS_LIMIT
        if many and key not in self._latest and key not in self._told:
            return self._complain(f"has more than {SESSIONS_LIMIT} sessions; the others are left out")
        if self._seen is not None:
            (self._seen.add if isinstance(event, SessionSeen) else self._seen.discard)(key)
        self._told[key] = event
        self._news.set()

    def start_over(self) -> None:
        """The index is empty: all that was told is to be read anew. Not while it runs."""
        self._known = None
        self._told = {**self._latest, **self._told}

    def forget(self, key: Key) -> None:
        """What was read of a session is no longer there; it is read from its beginning when it changes."""
        if self._known is not None and (known := self._known.get(key)) is not None:
            known.cursor = None

    def drop(self, key: Key) -> None:
        """A session was deleted here, and in its workspace."""
        if self._known is not None:
            self._known.pop(key, None)

    # --- work

    async def run(self) -> None:
        """Until the stream breaks (WorkerUnavailable) or the index turns out to be damaged (Damaged)."""
        self._begin()
        if self._known is None:
            await self._load()
        assert self._known is not None
        await self._tell_all()
        for key, event in self._latest.items():
            self._queue(key, event)
        self._news.set()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hear)
            for _ in range(LANES):
                tasks.start_soon(self._read)

    async def _load(self) -> None:
        self._number = await self._db.write(lambda db: store.workspace(db, self.name, self.created))
        readings, self._bytes = await self._db.read(lambda db: store.reading(db, self._number))
        self._known = {reading.row.key: _known(reading) for reading in readings}

    async def _tell_all(self) -> None:
        """Those who follow see that the workspace is followed now."""
        rows = await self._db.read(lambda db: store.of_workspace(db, self._number))
        for number, row in enumerate(rows):
            if not row.forgotten:
                self._changes.changed(info(row, live=True))
            if number % _BATCH == _BATCH - 1:
                await anyio.lowlevel.checkpoint()

    async def _hear(self) -> None:
        pause = 0.0
        while True:
            await self._news.wait()
            self._news = anyio.Event()
            try:
                while self._told:
                    await self._note()
                if self._all_told:
                    await self._end_of_snapshot()
                pause = 0.0
            except Damaged:
                raise
            except PerryError as exc:
                pause = self._failed(exc, pause)
                await anyio.sleep(pause)
                self._news.set()

    async def _note(self) -> None:
        """Take some of what was told. It is told still where it could not be kept."""
        known = self._loaded()
        batch = list(itertools.islice(self._told.items(), _BATCH))
        now = _now()
        gone = [known[key].row for key, event in batch if isinstance(event, SessionGone) and key in known]
        if gone:
            self._tell_gone(await self._db.write(lambda db: store.remove(db, gone)))
        fresh = [
            (key, event) for key, event in batch if isinstance(event, SessionSeen) and self._is_news(key, event, now)
        ]
        if fresh:
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
                self._queue(key, event)

    def _is_news(self, key: Key, event: SessionSeen, now: int) -> bool:
        known = self._loaded().get(key)
        if known is None or known.status != status_of(event.status):
            return True
        at = millis(event.last_activity, now)
        # With a change of its messages comes the time of them.
        return known.mark == event.mark and at is not None and at != known.last_activity

    async def _end_of_snapshot(self) -> None:
        self._all_told = False
        if self._seen is None:
            return
        known = self._loaded()
        gone = {key: entry.row for key, entry in known.items() if key not in self._seen}
        try:
            self._tell_gone(await self._db.write(lambda db: store.remove(db, gone.values())))
        except PerryError:
            self._all_told = True
            raise
        for key in gone:
            known.pop(key, None)
            self._latest.pop(key, None)
        self._seen = None

    def _tell_gone(self, rows: list[Row]) -> None:
        for row in rows:
            if not row.forgotten:
                self._changes.deleted(self.name, row.key)
        self._stored()

    async def _read(self) -> None:
        while True:
            key = await self._next()
            known, seen = self._loaded().get(key), self._latest.get(key)
            if known is None or seen is None:
                continue
            self._under_way.add(key)
            again = await self._pull(key, known, seen)
            self._under_way.discard(key)
            if self._loaded().get(key) is known and (latest := self._latest.get(key)) is not None:
                known.due = time.monotonic() + max(known.pause, 0.0 if again else PACE)
                if again or latest.mark != known.mark:
                    self._put(key, known, first=again)

    async def _pull(self, key: Key, known: _Known, seen: SessionSeen) -> bool:
        """One page of a session. Whether there is more to read at once."""
        assert self._link is not None
        cursor = known.cursor
        try:
            with anyio.fail_after(ASK_SECONDS):
                page = await self._link.ask(ReadSession(agent=key.agent, session_id=key.session_id, cursor=cursor))
        except WorkerUnavailable:
            raise
        except (WorkerError, TimeoutError) as exc:
            known.pause = self._failed(exc, known.pause)
            return False
        if not isinstance(page, Page):
            known.pause = self._failed(WorkerError("it answered something else than a page"), known.pause)
            return False
        room, now = TEXT_LIMIT - self._bytes, _now()
        try:
            # While another page is written, and not in its turn.
            given = await anyio.to_thread.run_sync(lambda: store.prepared(page, self._mask(), now))
            # Its agent may have come to an end since the page was asked for, and to say so no page is needed. Between
            # here and its turn to be written nothing is waited for.
            told = self._told.get(key, self._latest.get(key))
            last = told if isinstance(told, SessionSeen) else seen
            stored = await self._db.write(lambda db: store.add_page(db, known.row, given, last, cursor, now, room))
        except Damaged:
            raise
        except PerryError as exc:
            known.pause = self._failed(exc, known.pause)
            return False
        if stored is None:
            # It was deleted here meanwhile, so what follows the page's cursor would be without its beginning.
            known.mark = known.cursor = None
            known.pause = max(known.pause, 0.5)
            return False
        self._bytes += stored.grown
        if room <= 0:
            self._complain(f"has {TEXT_LIMIT >> 30} GB of messages; what comes is listed, and not kept")
        known.cursor, known.mark = page.cursor, None if page.more else page.mark
        known.status, known.last_activity = stored.row.status, stored.row.last_activity
        self._slow_down(known, page, cursor, stored)
        self._changes.changed(info(stored.row, live=True))
        if stored.ordinals or stored.anew:
            self._changes.said(News(Name(self.name, key), stored.ordinals, stored.anew))
            self._stored()
        return page.more

    def _slow_down(self, known: _Known, page: Page, cursor: str | None, stored: store.Stored) -> None:
        """A session that is rewritten again and again, or has pages without end that add nothing, is read slowly."""
        known.empty = 0 if stored.grown > 0 and not stored.anew else known.empty + 1
        stuck = (page.more or stored.anew) and page.cursor == cursor
        if stuck or (stored.anew and known.empty > 3) or known.empty > EMPTY_PAGES:
            known.pause = min(max(known.pause * 2, 0.1), LONGEST_PAUSE)
        else:
            known.pause = 0.0

    # --- turns

    def _queue(self, key: Key, seen: SessionSeen) -> None:
        """Have it read if it has changed."""
        known = self._loaded().get(key)
        if known is not None and known.mark != seen.mark:
            self._put(key, known, first=self._seen is not None)

    def _put(self, key: Key, known: _Known, *, first: bool) -> None:
        if key in self._queued or key in self._under_way:
            return
        self._queued.add(key)
        if known.due > time.monotonic():
            heapq.heappush(self._later, (known.due, next(self._order), key))
        elif first:
            # The most recently active one first; one that was begun goes on when all others were.
            begun = 0 if known.cursor is not None and known.mark is None else -known.last_activity
            heapq.heappush(self._first, (begun, next(self._order), key))
        else:
            self._live.append(key)
        self._ready.set()

    async def _next(self) -> Key:
        while True:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                self._live.append(heapq.heappop(self._later)[2])
            if self._live or self._first:
                first = self._first and (not self._live or next(self._turns) == 0)
                key = heapq.heappop(self._first)[2] if first else self._live.popleft()
                self._queued.discard(key)
                return key
            if self._ready.is_set():
                # One for all lanes: each of them waits for the same.
                self._ready = anyio.Event()
            with anyio.move_on_after(self._later[0][0] - now if self._later else None):
                await self._ready.wait()

    def _loaded(self) -> dict[Key, _Known]:
        assert self._known is not None
        return self._known

    def _failed(self, exc: Exception, pause: float) -> float:
        """How long to wait after another failure, in seconds."""
        self._complain(f"has sessions that could not be read: {exc or 'it does not answer'}")
        return min(max(pause * 2, 0.5), LONGEST_PAUSE)

    def _complain(self, sentence: str) -> None:
        """Once each: a workspace must not fill the log."""
        if sentence not in self._complained and len(self._complained) < 20:
            self._complained.add(sentence)
            log.warning("workspace %s %s", self.name, sentence[:500])


def _known(reading: store.Reading) -> _Known:
    row = reading.row
    return _Known(row.id, row.status, row.last_activity, reading.mark, reading.cursor)


def _now() -> int:
    return int(time.time() * 1000)
