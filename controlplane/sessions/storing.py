"""How pages of messages get into the index: those that come while others are written are written together, since a
transaction of its own for each would cost more than what is in it.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

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
    session by now."""

    row: int
    page: Page
    cursor: str | None
    seen: Callable[[], SessionSeen]


class _Waiting(msgspec.Struct):
    """``stored`` is what came of each page, None where it came too late; or all have ``failed``."""

    given: Sequence[Given]
    prepared: list[pages.Prepared]
    done: bool = False
    stored: list[pages.Stored | None] = msgspec.field(default_factory=list)
    failed: Exception | None = None


class Storing:
    """The pages of one workspace. ``size`` are the bytes of all its messages."""

    def __init__(self, database: SessionsDatabase, mask: Callable[[], Mask], size: int = 0) -> None:
        self._db = database
        self._mask = mask
        self._turn = anyio.Lock()
        self._waiting: list[_Waiting] = []
        self.size = size

    @property
    def full(self) -> bool:
        """Whether the workspace has as much as is kept of one."""
        return self.size >= TEXT_LIMIT

    async def add(self, given: Sequence[Given], *, urgent: bool = True) -> list[pages.Stored | None]:
        """Keep pages. Errors are those of :meth:`SessionsDatabase.write`; then nothing of them is kept.

        ``urgent``: somebody may be waiting to see them.
        """
        # While others are written, and not in its turn.
        waiting = _Waiting(given, await anyio.to_thread.run_sync(self._prepare, given))
        self._waiting.append(waiting)
        with self._db.hurrying() if urgent else nullcontext():
            async with self._turn:
                if not waiting.done:
                    batch, self._waiting = self._waiting, []
                    await self._write(batch)
        if waiting.failed is not None:
            raise waiting.failed
        return waiting.stored

    def _prepare(self, given: Sequence[Given]) -> list[pages.Prepared]:
        mask, now = self._mask(), _now()
        return [pages.prepared(each.page, mask, now) for each in given]

    async def _write(self, batch: list[_Waiting]) -> None:
        # An agent may have come to an end since its page was asked for, and to say so no page is needed. Between here
        # and its turn to be written nothing is waited for.
        all_ = [
            (given, prepared, given.seen())
            for waiting in batch
            for given, prepared in zip(waiting.given, waiting.prepared, strict=True)
        ]
        now = _now()

        def work(db: sqlite3.Connection) -> list[pages.Stored | None]:
            found, room = [], TEXT_LIMIT - self.size
            for given, prepared, seen in all_:
                stored = pages.add(db, given.row, prepared, seen, given.cursor, now, room)
                room -= 0 if stored is None else stored.grown
                found.append(stored)
            return found

        try:
            results = iter(await self._db.write(work))
            for waiting in batch:
                waiting.stored = [next(results) for _ in waiting.given]
                self.size += sum(0 if stored is None else stored.grown for stored in waiting.stored)
        except Exception as exc:
            for waiting in batch:
                waiting.failed = exc
        finally:
            for waiting in batch:
                waiting.done = True


def _now() -> int:
    return int(time.time() * 1000)
