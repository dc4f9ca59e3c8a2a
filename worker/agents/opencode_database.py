"""OpenCode's SQLite database, read while OpenCode writes it.

It is in WAL mode: right after a run everything may be in ``opencode.db-wal``, and the file itself be almost empty; so
it is opened as a database and never copied, its time of change means nothing, and the folder has to be writable for us.
Transactions are as short as one question: a long one would keep OpenCode from giving its log back. The table ``event``
holds everything that ever happened, is never emptied and has many gigabytes; it is not touched.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from worker.agents.opencode_messages import Row, is_message
from worker.sessions.lines import LINE_LIMIT, Unreadable

BUSY_SECONDS: Final = 2.0

PAGE_ROWS: Final = 200

SHORT: Final = 256 << 10

WAL_AT: Final = slice(18, 20)
WAL: Final = b"\2\2"
"""Where a database's header says that it is in WAL mode, and how (https://sqlite.org/fileformat.html)."""

FACTS: Final = (
    "parent_id",
    "directory",
    "title",
    "model",
    "cost",
    "tokens_input",
    "tokens_output",
    "tokens_reasoning",
    "tokens_cache_read",
    "tokens_cache_write",
    "time_created",
    "time_updated",
)
"""Columns of a session; those that a version does not have are NULL."""


class Unusable(Exception):
    """The database cannot be read now; a sentence."""


class Stamp(msgspec.Struct, frozen=True):
    """A session's row, as far as it tells of changes."""

    session_id: str
    table: str
    updated: int
    sequence: int
    directory: str


class Database:
    """A connection that is kept. For one thread at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._version = -1

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def changed(self) -> bool:
        """Whether somebody has written since this was asked last. Costs microseconds."""
        with self._asking() as connection:
            version = int(connection.execute("PRAGMA data_version").fetchone()[0])
            if version == self._version:
                return False
            self._version = version
            return True

    def stamps(self) -> list[Stamp]:
        """Every session once; one that is in both layouts, from the newer."""
        with self._asking() as connection:
            tables = _tables(connection)
            found: dict[str, Stamp] = {}
            layouts = [table for table in ("session", "session_v2") if table in tables]
            if not layouts:
                raise Unusable(f"{str(self.path)!r} has no table of sessions (yet).")
            sequences = "event_sequence" in tables
            for table in layouts:
                joined = f"{table} s LEFT JOIN event_sequence e ON e.aggregate_id = s.id" if sequences else f"{table} s"
                sequence = "coalesce(e.seq, 0)" if sequences else "0"
                question = f"SELECT s.id, s.time_updated, {sequence}, s.directory FROM {joined}"
                for id, updated, seq, directory in connection.execute(question):
                    found[str(id)] = Stamp(str(id), table, _number(updated), _number(seq), str(directory or ""))
            return list(found.values())

    def facts(self, table: str, session_id: str) -> dict[str, Any] | None:
        """A session's row; None where there is none any more."""
        with self._asking() as connection:
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            wanted = ", ".join(name if name in columns else f"NULL AS {name}" for name in FACTS)
            row = connection.execute(f"SELECT {wanted} FROM {table} WHERE id = ?", (session_id,)).fetchone()
            return None if row is None else dict(zip(FACTS, row, strict=True))

    def last(self, table: str, session_id: str) -> Row | None:
        """The last message of a session, without its parts."""
        with self._asking() as connection:
            order = "seq DESC" if table == "session_v2" else "time_created DESC, id DESC"
            for row in connection.execute(f"{_select(table)} ORDER BY {order} LIMIT 5", (session_id, -1, -1, "")):
                found = _row(row)
                if table == "session" or is_message(found.kind):
                    return found
        return None

    def last_parts(self, message: str) -> list[dict[str, Any]]:
        """The latest parts of a message (V1) that are not long: a tool that runs has given nothing back yet."""
        with self._asking() as connection:
            question = (
                f"SELECT data FROM part WHERE message_id = ? AND length(data) < {SHORT} ORDER BY id DESC LIMIT 16"
            )
            return [part for (data,) in connection.execute(question, (message,)) if (part := _object(data)) is not None]

    def count(self, table: str, session_id: str, key: tuple[int, str]) -> int:
        """Messages up to and with that key, which has to be one of them; -1 where it is not."""
        with self._asking() as connection:
            if table == "session_v2":
                where, last = f"{_V2_MESSAGE} AND seq <= ?", "seq = ?"
                known = connection.execute(
                    f"SELECT 1 FROM session_message WHERE session_id = ? AND {last} AND id = ?", (session_id, *key)
                )
                arguments: tuple[Any, ...] = (session_id, key[0])
                question = f"SELECT count(*) FROM session_message WHERE session_id = ? AND {where}"
            else:
                known = connection.execute(
                    "SELECT 1 FROM message WHERE session_id = ? AND time_created = ? AND id = ?", (session_id, *key)
                )
                arguments = (session_id, *key)
                question = "SELECT count(*) FROM message WHERE session_id = ? AND (time_created, id) <= (?, ?)"
            if known.fetchone() is None:
                return -1
            return int(connection.execute(question, arguments).fetchone()[0])

    def rows(self, table: str, session_id: str, after: tuple[int, str]) -> list[Row]:
        """The next messages, without their parts; at most PAGE_ROWS."""
        with self._asking() as connection:
            order = "seq" if table == "session_v2" else "time_created, id"
            question = f"{_select(table)} ORDER BY {order} LIMIT {PAGE_ROWS}"
            return [_row(row) for row in connection.execute(question, (session_id, after[0], after[0], after[1]))]

    def fill(self, row: Row) -> None:
        """The parts of a message (V1), and when one of them was written last."""
        with self._asking() as connection:
            question = f"SELECT time_updated, {_BOUNDED} FROM part WHERE message_id = ? ORDER BY id"
            for updated, data in connection.execute(question, (row.id,)):
                row.updated = max(row.updated, _number(updated))
                row.parts.append(_object(data))

    def rename(self, table: str, session_id: str, title: str) -> None:
        """In one transaction of its own."""
        with self._translated(), contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS)) as connection:
            now = int(time.time() * 1000)
            with connection:
                connection.execute(
                    f"UPDATE {table} SET title = ?, time_updated = max(time_updated + 1, ?) WHERE id = ?",
                    (title, now, session_id),
                )

    @contextlib.contextmanager
    def _asking(self) -> Iterator[sqlite3.Connection]:
        with self._translated():
            yield self._open()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self.close()
            raise Unusable(f"{str(self.path)!r} cannot be read now: {error}.") from error

    def _open(self) -> sqlite3.Connection:
        try:
            inode = os.stat(self.path).st_ino
        except OSError as error:
            self.close()
            raise Unusable(f"{str(self.path)!r} is not there: {error.strerror}.") from error
        if self._connection is not None and inode != self._inode:
            self.close()
        if self._connection is None:
            self._must_be_in_wal_mode()
            self._connection = sqlite3.connect(
                f"{self.path.as_uri()}?mode=ro",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            self._connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            self._connection.execute("PRAGMA query_only = 1")
            self._inode, self._version = inode, -1
        return self._connection

    def _must_be_in_wal_mode(self) -> None:
        """Unusable where it is not, yet: OpenCode is just making it, and to look into it then, at the moment in which
        that goes over to WAL mode, ends OpenCode with "database is locked". Not while a connection is open: closing the
        file would let go of that one's locks."""
        try:
            with self.path.open("rb") as file:
                header = file.read(WAL_AT.stop)
        except OSError as error:
            raise Unusable(f"{str(self.path)!r} cannot be read: {error.strerror}.") from error
        if header[WAL_AT] != WAL:
            raise Unusable(f"{str(self.path)!r} is not in WAL mode (yet).")


_BOUNDED: Final = f"CASE WHEN length(data) > {LINE_LIMIT} THEN NULL ELSE data END"

_V2_MESSAGE: Final = "type IN ('user', 'assistant', 'shell', 'system', 'synthetic', 'compaction')"


def _select(table: str) -> str:
    """The messages of a session behind a key, which is given as three values."""
    if table == "session_v2":
        return (
            f"SELECT seq, id, time_updated, type, {_BOUNDED} FROM session_message"
            f" WHERE session_id = ? AND {_V2_MESSAGE} AND (seq > ? OR (seq = ? AND id > ?))"
        )
    return (
        f"SELECT time_created, id, time_updated, NULL, {_BOUNDED} FROM message"
        " WHERE session_id = ? AND (time_created > ? OR (time_created = ? AND id > ?))"
    )


def _row(row: tuple[Any, ...]) -> Row:
    order, id, updated, kind, data = row
    decoded = _object(data)
    return Row(
        key=(_number(order), str(id)),
        id=str(id),
        updated=_number(updated),
        kind=str(kind if kind is not None else (decoded or {}).get("role")),
        data=decoded,
    )


def _object(data: Any) -> dict[str, Any] | None:
    try:
        decoded = msgspec.json.decode(data) if isinstance(data, str | bytes) else None
    except (*Unreadable, UnicodeEncodeError):
        return None
    return decoded if isinstance(decoded, dict) else None


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
