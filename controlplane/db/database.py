"""Opening state.db, and one writer's access to it.

Statements run on the event loop's own thread: they touch a few rows of a local file, and this way no other task can
come between the statements of a transaction. What may take longer belongs in a thread and on a connection of its own.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from controlplane.db.migrate import migrate
from controlplane.errors import StateError


class Database:
    """An open state.db, migrated to this program's version."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, path: Path | None) -> "Database":
        """Open or make it; None is a database in memory. StateError says what to do with one that cannot be used."""
        with contextlib.ExitStack() as if_it_fails:
            try:
                connection = sqlite3.connect(path or ":memory:", isolation_level=None, timeout=5)
                if_it_fails.callback(connection.close)
                if path is not None:
                    path.chmod(0o600)
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA foreign_keys = ON")
                if (verdict := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
                    raise sqlite3.DatabaseError(verdict)
            except sqlite3.DatabaseError as exc:
                raise StateError(
                    f"{path} is damaged ({exc}); move it away and start again: the workspaces are found by their "
                    "labels."
                ) from exc
            database = cls(connection)
            migrate(connection, "controlplane.db.migrations", path, "the workspaces are found by their labels")
            if_it_fails.pop_all()
        return database

    def close(self) -> None:
        self._connection.close()

    def check(self) -> None:
        """Raise StateError when it cannot be read."""
        try:
            self._connection.execute("SELECT 1 FROM workspaces LIMIT 1").fetchall()
        except sqlite3.DatabaseError as exc:
            raise StateError(f"state.db cannot be read: {exc}") from exc

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Do not await inside."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        return self._connection.execute(sql, values).fetchall()

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; the number of rows that it changed."""
        return self._connection.execute(sql, values).rowcount
