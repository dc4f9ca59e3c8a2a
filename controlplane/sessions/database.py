"""sessions.db: one writer and several readers, each with a connection of its own and in a thread.

It is apart from state.db because it is large, and because nothing depends on it: what is lost of it is read again from
the workspaces. So it is written without waiting for the disk, and a damaged one is moved aside.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from controlplane.db.migrate import migrate
from controlplane.errors import NotReady, OutOfSpace, PerryError
from controlplane.sessions import query

log = logging.getLogger(__name__)

T = TypeVar("T")

READERS: Final = 2
SLOW_SECONDS: Final = 5.0
"""A question that takes longer is broken off: one client must not keep the others from asking."""

WAL_BYTES: Final = 64 << 20
"""Of what is not in the file itself yet; with more, it is put there, beside those who write and read."""

_WAL_PAGES: Final = 4 * WAL_BYTES // 4096
"""With so much, who writes has to wait for that."""

_STEPS: Final = 20_000
"""SQLite's instructions between two looks at the clock."""


class Damaged(NotReady):
    """The file is no database any more."""


class SessionsDatabase:
    """An open sessions.db, migrated. StateError where a newer Perry wrote it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writing = anyio.CapacityLimiter(1)
        self._reading = anyio.CapacityLimiter(READERS)
        self._idle: list[sqlite3.Connection] = []
        self._generation = 0
        self._hurrying = 0
        self._long = anyio.Event()
        self._writer = self._open()

    @contextlib.contextmanager
    def hurrying(self) -> Iterator[None]:
        """While the block lasts, somebody waits for a write: others should be short."""
        self._hurrying += 1
        try:
            yield
        finally:
            self._hurrying -= 1

    @property
    def hurried(self) -> bool:
        """Whether somebody waits. For any thread."""
        return self._hurrying > 0

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` in one transaction, in turn, in a thread; all or nothing.

        OutOfSpace and NotReady where it cannot be written, Damaged where it is broken.
        """

        def run() -> tuple[T, bool]:
            with self._told(), _transaction(self._writer):
                result = work(self._writer)
            return result, self._is_long()

        result, is_long = await anyio.to_thread.run_sync(run, limiter=self._writing)
        if is_long:
            self._long.set()
        return result

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on what was committed last, in a thread. Errors as ``write``."""

        def run() -> T:
            generation = self._generation
            with self._told():
                connection = self._idle.pop() if self._idle else self._connect(reader=True)
                try:
                    deadline = time.monotonic() + SLOW_SECONDS
                    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
                    return work(connection)
                finally:
                    if generation == self._generation:
                        self._idle.append(connection)
                    else:
                        connection.close()

        return await anyio.to_thread.run_sync(run, limiter=self._reading)

    async def keep_short(self) -> None:
        """Put what is written into the file itself, again and again: it takes long, and a writer that did it by the
        way would have everybody wait. Only cancellation ends it."""
        while True:
            await self._long.wait()
            self._long = anyio.Event()
            try:
                await anyio.to_thread.run_sync(self._checkpoint)
                # The rest, which came meanwhile: only when there is none is the log begun anew.
                await anyio.to_thread.run_sync(self._checkpoint, limiter=self._writing)
            except (PerryError, OSError) as exc:
                # OSError: the file was moved, or cannot be written to.
                log.warning("%s grows: %s", self.path, exc)
                await anyio.sleep(30)
            await anyio.sleep(0.5)

    async def replace(self) -> None:
        """Move the damaged file aside and begin anew."""

        def run() -> None:
            self.close()
            self._generation += 1
            self._move_aside()
            self._writer = self._open()

        await anyio.to_thread.run_sync(run, limiter=self._writing)

    def close(self) -> None:
        """Close every connection; nothing may be under way."""
        while self._idle:
            self._idle.pop().close()
        self._writer.close()

    def _is_long(self) -> bool:
        try:
            return self.path.with_name(self.path.name + "-wal").stat().st_size > WAL_BYTES
        except OSError:
            return False

    def _checkpoint(self) -> None:
        with self._told(), contextlib.closing(self._connect()) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _open(self) -> sqlite3.Connection:
        try:
            return self._migrated()
        except sqlite3.DatabaseError as exc:
            if not _is_damage(exc):
                raise _sentence(exc, self.path) from exc
        self._move_aside()
        return self._migrated()

    def _migrated(self) -> sqlite3.Connection:
        with contextlib.ExitStack() as if_it_fails:
            connection = self._connect()
            if_it_fails.callback(connection.close)
            migrate(
                connection,
                "controlplane.sessions.migrations",
                self.path,
                "sessions are read again from workspaces that run",
            )
            if_it_fails.pop_all()
        return connection

    def _connect(self, *, reader: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=5, check_same_thread=False)
        try:
            self.path.chmod(0o600)
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA cache_size = -32768")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
            if reader:
                connection.execute("PRAGMA query_only = ON")
            connection.create_function("said", 2, query.said, deterministic=True)
            connection.create_function("tools", 2, query.tools, deterministic=True)
        except BaseException:
            connection.close()
            raise
        return connection

    def _move_aside(self) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{int(time.time())}")
        for ending in ("-wal", "-shm"):
            self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
        self.path.replace(aside)
        log.warning(
            "%s was damaged and is now %s; sessions of workspaces that run are read again, those of stopped ones when "
            "they start",
            self.path,
            aside,
        )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as exc:
            raise _sentence(exc, self.path) from exc


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_damage(exc: sqlite3.DatabaseError) -> bool:
    return _code(exc) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(exc: sqlite3.DatabaseError) -> int:
    """SQLite's, without what is finer; 0 where the error is not its own."""
    return getattr(exc, "sqlite_errorcode", 0) & 0xFF


def _sentence(exc: sqlite3.DatabaseError, path: Path) -> PerryError:
    if _is_damage(exc):
        return Damaged(f"{path} is damaged; it is being made anew, ask again in a moment.")
    code = _code(exc)
    if code == sqlite3.SQLITE_FULL:
        return OutOfSpace(f"No space is left for {path}; free some, it goes on by itself.")
    if code == sqlite3.SQLITE_INTERRUPT:
        return NotReady("This took too long; search for more, or rarer, words, or in one workspace.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return NotReady(f"Another program holds {path}; end it, or wait until it is done.")
    return NotReady(f"{path} cannot be used ({exc}); mend what is wrong with it, or move it away.")
