"""How pages of messages get into the index: those that come while others are written are written together, since a
transaction of its own for each would cost more than what is in it.
"""

import sqlite3
import time
from collections.abc import Callable

import anyio
import anyio.to_thread
import msgspec

from controlplane.sessions import pages
from controlplane.sessions.aggregate import TEXT_LIMIT
from controlplane.sessions.database import SessionsDatabase
from controlplane.sessions.masking import Mask
from protocol.worker import Page, SessionSeen


class Given(msgspec.Struct):
    """A page of the session of that row, which was asked for from ``cursor``. ``seen`` gives what is told of the
    session by now. ``stored`` is what came of it, None where it came too late; or it ``failed``."""

    row: int
    cursor: str | None
    prepared: pages.Prepared
    seen: Callable[[], SessionSeen]
    done: bool = False
    stored: pages.Stored | None = None
    failed: Exception | None = None


class Storing:
    """The pages of one workspace. ``size`` are the bytes of all its messages."""

    def __init__(self, database: SessionsDatabase, mask: Callable[[], Mask], size: int = 0) -> None:
        self._db = database
        self._mask = mask
        self._turn = anyio.Lock()
        self._waiting: list[Given] = []
        self.size = size

    @property
    def full(self) -> bool:
        """Whether the workspace has as much as is kept of one."""
        return self.size >= TEXT_LIMIT

    async def add(
        self, row: int, page: Page, cursor: str | None, seen: Callable[[], SessionSeen]
    ) -> pages.Stored | None:
        """Keep a page. Errors are those of :meth:`SessionsDatabase.write`; then nothing of it is kept."""
        # While others are written, and not in its turn.
        prepared = await anyio.to_thread.run_sync(lambda: pages.prepared(page, self._mask(), _now()))
        given = Given(row, cursor, prepared, seen)
        self._waiting.append(given)
        async with self._turn:
            if not given.done:
                batch, self._waiting = self._waiting, []
                await self._write(batch)
        if given.failed is not None:
            raise given.failed
        return given.stored

    async def _write(self, batch: list[Given]) -> None:
        # An agent may have come to an end since its page was asked for, and to say so no page is needed. Between here
        # and its turn to be written nothing is waited for.
        seen = [given.seen() for given in batch]
        now = _now()

        def work(db: sqlite3.Connection) -> list[pages.Stored | None]:
            found, room = [], TEXT_LIMIT - self.size
            for given, last in zip(batch, seen, strict=True):
                stored = pages.add(db, given.row, given.prepared, last, given.cursor, now, room)
                room -= 0 if stored is None else stored.grown
                found.append(stored)
            return found

        try:
            for given, stored in zip(batch, await self._db.write(work), strict=True):
                given.stored = stored
                self.size += 0 if stored is None else stored.grown
        except Exception as exc:
            for given in batch:
                given.failed = exc
        finally:
            for given in batch:
                given.done = True


def _now() -> int:
    return int(time.time() * 1000)
