"""Reads the sessions of one workspace: what its worker tells is noted, and what has changed is asked for, a page at a
time: one session that is large, or that never ends, delays the others by no more than a page. What is read for the
first time is asked for several sessions at once, in lanes of their own: what changes now never waits for it.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import anyio
import msgspec

from controlplane.errors import PerryError, WorkerError, WorkerUnavailable
from controlplane.ports import WorkerLink
from controlplane.sessions import pages
from controlplane.sessions.aggregate import TEXT_LIMIT, Key, info
from controlplane.sessions.changes import Changes, Name, News
from controlplane.sessions.database import Damaged, SessionsDatabase
from controlplane.sessions.masking import Mask
from controlplane.sessions.noting import LONGEST_PAUSE, Complaints, Known, Noting
from controlplane.sessions.storing import Given, Storing
from controlplane.sessions.turns import Turns
from protocol.worker import Event, Page, Pages, ReadSession, ReadSessions, Refused, SessionSeen, Unread

LANES: Final = 6
"""Pages that are under way at once of sessions that have changed."""

FIRST_LANES: Final = 4
"""The same of those that are read for the first time: some are read while others are stored."""

SEVERAL: Final = 32
"""Sessions that are asked for at once then, at most."""

SEVERAL_BYTES: Final = 512 << 10
"""Of all their pages: what is stored at once should not take long, since others wait."""

PACE: Final = 0.025
"""Seconds between two pages of a session that changes all the time."""

ASK_SECONDS: Final = 60.0
EMPTY_PAGES: Final = 1_000
"""Pages in a row that add nothing, before a session is read slowly."""


class _Wanted(msgspec.Struct, frozen=True):
    """A session whose turn it is, and how it stood then."""

    key: Key
    known: Known
    seen: SessionSeen
    cursor: str | None


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
        self._several = True
        """Whether its worker knows how to read several sessions at once."""
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
        self._several = True
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
            for lane in range(LANES + FIRST_LANES):
                tasks.start_soon(partial(self._read, first=lane >= LANES))

    async def _read(self, *, first: bool) -> None:
        noting = self._noting
        while True:
            most = 0 if not first else SEVERAL if self._several else 1
            wanted: list[_Wanted] = []
            keys, is_first = await self._turns.next(most)
            for key in keys:
                known, seen = noting.known.get(key), noting.latest.get(key)
                if known is None or seen is None:
                    self._turns.done(key)
                else:
                    wanted.append(_Wanted(key, known, seen, known.cursor))
            if wanted:
                await self._pull(wanted, urgent=not is_first)

    def _next(self, wanted: _Wanted, again: bool | None) -> None:
        """Have it read on, if there is more or it has changed. ``again`` is None where it was not its turn yet."""
        key, known = wanted.key, wanted.known
        self._turns.done(key)
        if (latest := self._noting.latest.get(key)) is None:
            return
        if self._noting.known.get(key) is not known:
            self._queue(key, latest)  # It has gone and come back meanwhile; what was told then was not queued.
        elif again is None:
            self._put(key, known, first=True)
        else:
            known.due = time.monotonic() + max(known.pause, 0.0 if again else PACE)
            if again or latest.mark != known.mark:
                self._put(key, known, first=again)

    async def _pull(self, wanted: Sequence[_Wanted], *, urgent: bool) -> None:
        """A page of each that there is room for. Each may have its next turn as soon as its own is done.

        ``urgent``: somebody may be waiting to see them.
        """
        if len(wanted) == 1:
            self._next(wanted[0], await self._pull_one(wanted[0], urgent=urgent))
            return
        try:
            pages_ = await self._ask_several(wanted)
        except WorkerUnavailable:
            raise
        except (WorkerError, TimeoutError) as exc:
            if isinstance(exc, WorkerError) and (exc.data or {}).get("code") == "unknown":
                self._several = False
            # One of them may be the reason.
            for each in wanted:
                self._next(each, await self._pull_one(each, urgent=urgent))
            return
        found: list[bool | None] = [None] * len(wanted)
        read: list[tuple[int, Page]] = []
        for number, page in enumerate(pages_):
            if isinstance(page, Page):
                read.append((number, page))
            else:
                self._failed(wanted[number].known, WorkerError(page.message[:500]))
                found[number] = False
        if read:
            stored = await self._store([(wanted[number], page) for number, page in read], urgent=urgent)
            for (number, _), more in zip(read, stored, strict=True):
                found[number] = more
        for each, again in zip(wanted, found, strict=True):
            self._next(each, again)

    async def _pull_one(self, wanted: _Wanted, *, urgent: bool) -> bool:
        assert self._link is not None
        key = wanted.key
        try:
            with anyio.fail_after(ASK_SECONDS):
                asked = ReadSession(agent=key.agent, session_id=key.session_id, cursor=wanted.cursor)
                page = await self._link.ask(asked)
            if not isinstance(page, Page):
                raise WorkerError("it answered something else than a page")
        except WorkerUnavailable:
            raise
        except (WorkerError, TimeoutError) as exc:
            self._failed(wanted.known, exc)
            return False
        return (await self._store([(wanted, page)], urgent=urgent))[0]

    async def _ask_several(self, wanted: Sequence[_Wanted]) -> list[Page | Refused]:
        assert self._link is not None
        asked = [Unread(agent=each.key.agent, session_id=each.key.session_id, cursor=each.cursor) for each in wanted]
        with anyio.fail_after(ASK_SECONDS):
            answer = await self._link.ask(ReadSessions(sessions=asked, limit=SEVERAL_BYTES))
        if not isinstance(answer, Pages) or not 0 < len(answer.pages) <= len(wanted):
            raise WorkerError("it answered something else than pages")
        return answer.pages

    def _failed(self, known: Known, exc: Exception) -> None:
        known.pause = self._complaints.failed(exc, known.pause)

    async def _store(self, read: Sequence[tuple[_Wanted, Page]], *, urgent: bool) -> list[bool]:
        """Keep what was read. Whether there is more to read at once, of each."""
        full = self._storing.full
        given = [
            Given(each.known.row, page, each.cursor, partial(self._noting.now, each.key, each.seen))
            for each, page in read
        ]
        try:
            stored = await self._storing.add(given, urgent=urgent)
        except Damaged:
            raise
        except PerryError as exc:
            for each, _ in read:
                self._failed(each.known, exc)
            return [False] * len(read)
        if full:
            self._complaints.say(f"has {TEXT_LIMIT >> 30} GB of messages; what comes is listed, and not kept")
        return [self._kept(each, page, found) for (each, page), found in zip(read, stored, strict=True)]

    def _kept(self, wanted: _Wanted, page: Page, stored: pages.Stored | None) -> bool:
        """What follows from a page that was kept, or came too late. Whether there is more to read at once."""
        key, known = wanted.key, wanted.known
        if stored is None:
            # It was deleted here meanwhile, so what follows the page's cursor would be without its beginning.
            known.mark = known.cursor = None
            known.pause = max(known.pause, 0.5)
            return False
        known.cursor, known.mark = page.cursor, None if page.more else page.mark
        known.status, known.last_activity = stored.row.status, stored.row.last_activity
        self._slow_down(known, page, wanted.cursor, stored)
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
