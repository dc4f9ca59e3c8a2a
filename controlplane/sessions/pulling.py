"""Reads the sessions of one workspace: what its worker tells is noted, and what has changed is asked for, a page at a
time: one session that is large, or that never ends, delays the others by no more than a page.
"""

import time
from collections.abc import Callable
from typing import Final

import anyio

from controlplane.errors import PerryError, WorkerError, WorkerUnavailable
from controlplane.ports import WorkerLink
from controlplane.sessions import pages
from controlplane.sessions.aggregate import TEXT_LIMIT, Key, info
from controlplane.sessions.changes import Changes, Name, News
from controlplane.sessions.database import Damaged, SessionsDatabase
from controlplane.sessions.masking import Mask
from controlplane.sessions.noting import LONGEST_PAUSE, Complaints, Known, Noting
from controlplane.sessions.storing import Storing
from controlplane.sessions.turns import Turns
from protocol.worker import Event, Page, ReadSession, SessionSeen

LANES: Final = 8
"""Pages that are under way at once: some are read while others are stored, which is the cheaper the more there are."""

PACE: Final = 0.025
"""Seconds between two pages of a session that changes all the time."""

ASK_SECONDS: Final = 60.0
EMPTY_PAGES: Final = 1_000
"""Pages in a row that add nothing, before a session is read slowly."""


class Puller:
    """The sessions of a workspace. It outlives the streams to its worker, one of which it has at a time."""

    def __init__(
        self,
        name: str,
        created: str,
        database: SessionsDatabase,
        changes: Changes,
        mask: Callable[[], Mask],
        stored: Callable[[int], None],
    ) -> None:
        """``stored`` is told the bytes by which messages have grown; 0 where some are void."""
        self.name = name
        self.created = created
        self._db = database
        self._changes = changes
        self._mask = mask
        self._stored = stored
        self._link: WorkerLink | None = None
        self._complaints = Complaints(name)
        self._noting = Noting(
            name, created, database, changes, self._complaints, changed=self._queue, void=lambda: stored(0)
        )
        self._storing = Storing(database, mask)
        self._turns = Turns()

    @property
    def reads_first(self) -> bool:
        """Whether there is much that was never read."""
        return self._turns.first > LANES

    # --- what the worker tells; on the event loop

    def attach(self, link: WorkerLink) -> None:
        """A stream stands, from which on things are told."""
        self._link = link
        self._noting.begin(resumed=link.hello.resumed)

    def tell(self, event: Event) -> None:
        self._noting.tell(event)

    def start_over(self) -> None:
        """The index is empty: all that was told is to be read anew. Not while it runs."""
        self._noting.start_over()

    def forget(self, key: Key) -> None:
        """What was read of a session is no longer there; it is read from its beginning when it changes."""
        if (known := self._noting.known.get(key)) is not None:
            known.cursor = None

    def drop(self, key: Key) -> None:
        """A session was deleted here, and in its workspace."""
        self._noting.known.pop(key, None)

    # --- work

    async def run(self) -> None:
        """Until the stream breaks (WorkerUnavailable) or the index turns out to be damaged (Damaged)."""
        # What was queued, or on its way, when the last stream broke is not any more.
        self._turns, size = Turns(), self._storing.size
        loaded = await self._noting.load()
        self._storing = Storing(self._db, self._mask, size if loaded is None else loaded)
        for key, event in self._noting.latest.items():
            self._queue(key, event)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._noting.run)
            for _ in range(LANES):
                tasks.start_soon(self._read)

    async def _read(self) -> None:
        noting = self._noting
        while True:
            key = await self._turns.next()
            known, seen = noting.known.get(key), noting.latest.get(key)
            if known is None or seen is None:
                self._turns.done(key)
                continue
            again = await self._pull(key, known, seen)
            self._turns.done(key)
            if (latest := noting.latest.get(key)) is None:
                continue
            if noting.known.get(key) is not known:
                self._queue(key, latest)  # It has gone and come back meanwhile; what was told then was not queued.
            else:
                known.due = time.monotonic() + max(known.pause, 0.0 if again else PACE)
                if again or latest.mark != known.mark:
                    self._put(key, known, first=again)

    async def _pull(self, key: Key, known: Known, seen: SessionSeen) -> bool:
        """One page of a session. Whether there is more to read at once."""
        assert self._link is not None
        cursor = known.cursor
        try:
            with anyio.fail_after(ASK_SECONDS):
                page = await self._link.ask(ReadSession(agent=key.agent, session_id=key.session_id, cursor=cursor))
            if not isinstance(page, Page):
                raise WorkerError("it answered something else than a page")
        except WorkerUnavailable:
            raise
        except (WorkerError, TimeoutError) as exc:
            known.pause = self._complaints.failed(exc, known.pause)
            return False
        full = self._storing.full
        try:
            stored = await self._storing.add(known.row, page, cursor, lambda: self._noting.now(key, seen))
        except Damaged:
            raise
        except PerryError as exc:
            known.pause = self._complaints.failed(exc, known.pause)
            return False
        if stored is None:
            # It was deleted here meanwhile, so what follows the page's cursor would be without its beginning.
            known.mark = known.cursor = None
            known.pause = max(known.pause, 0.5)
            return False
        if full:
            self._complaints.say(f"has {TEXT_LIMIT >> 30} GB of messages; what comes is listed, and not kept")
        known.cursor, known.mark = page.cursor, None if page.more else page.mark
        known.status, known.last_activity = stored.row.status, stored.row.last_activity
        self._slow_down(known, page, cursor, stored)
        self._changes.changed(info(stored.row, live=True))
        if stored.ordinals or stored.anew:
            self._changes.said(News(Name(self.name, key), stored.ordinals, stored.anew))
            self._stored(max(stored.grown, 0))
        return page.more

    def _slow_down(self, known: Known, page: Page, cursor: str | None, stored: pages.Stored) -> None:
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
        known = self._noting.known.get(key)
        if known is not None and known.mark != seen.mark:
            self._put(key, known, first=self._noting.first)

    def _put(self, key: Key, known: Known, *, first: bool) -> None:
        # The most recently active one first; one that was begun goes on when all others were.
        begun = known.cursor is not None and known.mark is None
        order = 0 if begun else -known.last_activity
        self._turns.put(key, due=known.due, first=order if first else None)
