"""Tasks in state.db."""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice

import msgspec

from controlplane.db import Database
from controlplane.tasks.state import SHOWN, Record, Wishes
from controlplane.workspaces.repository import upload_ids
from protocol.tasks import TaskState
from protocol.worker import TaskOutcome

_COLUMNS = (
    "number, id, workspace, request, substr(text, 1, ?) AS text, state, created, started, ended, exit_code, reason, "
    "session_id, last_message, waits, wake_id, outcome, removal, stalls, checks, settled"
)


class Store:
    """The table ``tasks``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(self, id_: str, workspace: str, wishes: Wishes, text: str, key: str | None, now: datetime) -> Record:
        """A new task, queued; or the one that this key has made before."""
        with self._db.transaction():
            if key is not None and (before := self.of_key(key)) is not None:
                return before
            self._db.run(
                "INSERT INTO tasks (id, key, workspace, request, text, state, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (id_, key, workspace, msgspec.json.encode(wishes).decode(), text, TaskState.QUEUED, _time(now)),
            )
            return self._select("id = ?", (id_,))[0]

    def get(self, id_: str) -> Record | None:
        found = self._select("id = ?", (id_,))
        return found[0] if found else None

    def of_key(self, key: str) -> Record | None:
        """The task that this key has made before."""
        return next(iter(self._select("key = ?", (key,))), None)

    def text(self, id_: str) -> str:
        """All of a task's text."""
        return str(self._db.rows("SELECT text FROM tasks WHERE id = ?", (id_,))[0]["text"])

    def page(self, *, workspace: str | None, state: str | None, before: int | None, limit: int) -> list[Record]:
        """The newest first."""
        wheres = {"workspace = ?": workspace, "state = ?": state, "number < ?": before}
        given = {where: value for where, value in wheres.items() if value is not None}
        return self._select(" AND ".join(given) or "1", tuple(given.values()), f"ORDER BY number DESC LIMIT {limit:d}")

    def works_in(self, workspace: str, session_id: str) -> bool:
        """Whether a task works, or has worked, in that session."""
        where = "workspace = ? AND session_id = ?"
        return bool(self._db.rows(f"SELECT 1 FROM tasks WHERE {where} LIMIT 1", (workspace, session_id)))

    def is_at(self, workspace: str, id_: str) -> bool:
        """Whether a task is, or was, a workspace's."""
        return bool(self._db.rows("SELECT 1 FROM tasks WHERE id = ? AND workspace = ?", (id_, workspace)))

    def going_on(self, keys: str, but: str) -> str | None:
        """The id of one that has not ended and whose key begins with ``keys``, and is not ``but``."""
        rows = self._db.rows(
            "SELECT id FROM tasks WHERE settled = 0 AND ended IS NULL AND substr(key, 1, ?) = ? AND key <> ? LIMIT 1",
            (len(keys), keys, but),
        )
        return rows[0]["id"] if rows else None

    def forget(self, before: datetime, but: Callable[[str], bool], most: int) -> int:
        """Remove tasks that ended before and are done with, ``but`` those (ids); so many at most. How many it were."""
        with self._db.transaction():
            rows = self._db.rows(
                "SELECT id FROM tasks WHERE settled = 1 AND ended < ? ORDER BY ended", (_time(before),)
            )
            ids = list(islice((str(row["id"]) for row in rows if not but(row["id"])), most))
            for id_ in ids:
                self._db.run("DELETE FROM tasks WHERE id = ?", (id_,))
        return len(ids)

    def uploads(self) -> set[str]:
        """The uploads that tasks which have not begun have yet to clone, by their ids."""
        rows = self._db.rows(
            "SELECT DISTINCT json_extract(request, '$.clone') AS clone FROM tasks WHERE settled = 0 AND state = ?",
            (TaskState.QUEUED,),
        )
        return upload_ids(row["clone"] for row in rows)

    def unsettled(self) -> list[Record]:
        """What is not done with, in order: queued, under way, or ended with something still owed."""
        return self._select("settled = 0", (), "ORDER BY number")

    def looks(self) -> dict[str, str]:
        """What the latest look at each task that is not done with has left."""
        rows = self._db.rows("SELECT id, look FROM tasks WHERE settled = 0 AND look IS NOT NULL")
        return {row["id"]: row["look"] for row in rows}

    def save_looks(self, looks: Mapping[str, str]) -> None:
        """In one step."""
        with self._db.transaction():
            for id_, look in looks.items():
                self._db.run("UPDATE tasks SET look = ? WHERE id = ?", (look, id_))

    def save(self, record: Record) -> None:
        """Write down all that changes in the life of a task."""
        values = {
            "state": record.state,
            "started": _time(record.started),
            "ended": _time(record.ended),
            "exit_code": record.exit_code,
            "reason": record.reason,
            "session_id": record.session_id,
            "last_message": record.last_message,
            "waits": record.waits,
            "wake_id": record.wake_id,
            "outcome": msgspec.json.encode(record.outcome).decode() if record.outcome else None,
            "removal": record.removal,
            "stalls": record.stalls,
            "checks": record.checks,
            "settled": int(record.settled),
        }
        sets = ", ".join(f"{name} = ?" for name in values)
        self._db.run(f"UPDATE tasks SET {sets} WHERE id = ?", (*values.values(), record.id))

    def _select(self, where: str, values: Iterable[object], rest: str = "") -> list[Record]:
        rows = self._db.rows(f"SELECT {_COLUMNS} FROM tasks WHERE {where} {rest}", (SHOWN, *values))
        return [_record(row) for row in rows]


def _record(row: sqlite3.Row) -> Record:
    return Record(
        number=row["number"],
        id=row["id"],
        workspace=row["workspace"],
        wishes=msgspec.json.decode(row["request"], type=Wishes),
        text=row["text"],
        state=TaskState(row["state"]),
        created=datetime.fromisoformat(row["created"]),
        started=_read_time(row["started"]),
        ended=_read_time(row["ended"]),
        exit_code=row["exit_code"],
        reason=row["reason"],
        session_id=row["session_id"],
        last_message=row["last_message"],
        waits=row["waits"],
        wake_id=row["wake_id"],
        outcome=msgspec.json.decode(row["outcome"], type=TaskOutcome) if row["outcome"] else None,
        removal=row["removal"],
        stalls=row["stalls"],
        checks=row["checks"],
        settled=bool(row["settled"]),
    )


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds")


def _read_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
