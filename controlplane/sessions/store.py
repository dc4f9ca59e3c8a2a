"""What is kept of workspaces and their sessions. Functions of a connection, to be run by :class:`SessionsDatabase`."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from controlplane.sessions import fulltext
from controlplane.sessions.aggregate import (
    Facts,
    Key,
    Row,
    millis,
    status_of,
)
from protocol.sessions import Block
from protocol.worker import SessionSeen

_facts = msgspec.json.Decoder(Facts)
_blocks: msgspec.json.Decoder[list[Block]] = msgspec.json.Decoder(list[Block])
_encode: Final = msgspec.json.Encoder().encode

SELECT: Final = (
    "SELECT sessions.*, workspaces.name, workspaces.deleted FROM sessions "
    "JOIN workspaces ON workspaces.id = sessions.workspace"
)


class Reading(msgspec.Struct, frozen=True):
    """How far a session was read. ``mark`` is None where that was not all."""

    row: Row
    mark: str | None
    cursor: str | None


# --- workspaces


def workspace(db: sqlite3.Connection, name: str, created: str) -> int:
    """The workspace's number; the first time it gets one."""
    db.execute("INSERT OR IGNORE INTO workspaces (name, created) VALUES (?, ?)", (name, created))
    return int(db.execute("SELECT id FROM workspaces WHERE name = ? AND created = ?", (name, created)).fetchone()[0])


def set_keep(db: sqlite3.Connection, name: str, keep: bool) -> None:
    """What shall become of its sessions when the workspace is deleted."""
    db.execute("UPDATE workspaces SET keep = ? WHERE name = ? AND NOT deleted", (keep, name))


def end_others(db: sqlite3.Connection, there: Collection[tuple[str, str]], left: Collection[str]) -> list[Row]:
    """Do what was asked for with sessions of workspaces that are gone: all but those of these names and creations, and
    those of the names in ``left``. What has changed by that, as it was before.
    """
    gone = [
        row
        for row in db.execute("SELECT id, name, created, keep FROM workspaces WHERE NOT deleted").fetchall()
        if (row["name"], row["created"]) not in there and row["name"] not in left
    ]
    return [row for workspace_ in gone for row in _end(db, workspace_["id"], keep=bool(workspace_["keep"]))]


def end_workspace(db: sqlite3.Connection, name: str) -> list[Row]:
    """The same for every workspace of a name."""
    gone = db.execute("SELECT id, keep FROM workspaces WHERE name = ? AND NOT deleted", (name,)).fetchall()
    return [row for workspace_ in gone for row in _end(db, workspace_["id"], keep=bool(workspace_["keep"]))]


def _end(db: sqlite3.Connection, number: int, *, keep: bool) -> list[Row]:
    rows = of_workspace(db, number)
    if keep:
        db.execute("UPDATE workspaces SET deleted = 1 WHERE id = ?", (number,))
        db.execute("DELETE FROM sessions WHERE workspace = ? AND forgotten", (number,))
        db.execute(
            "UPDATE sessions SET status = 'unknown' WHERE workspace = ? AND status IN ('busy', 'waiting')", (number,)
        )
    else:
        for row in rows:
            doom(db, row)
        db.execute("DELETE FROM sessions WHERE workspace = ?", (number,))
        db.execute("DELETE FROM workspaces WHERE id = ?", (number,))
    return [row for row in rows if not row.forgotten]


def of_workspace(db: sqlite3.Connection, number: int) -> list[Row]:
    """All its sessions, the most recently active first."""
    rows = db.execute(f"{SELECT} WHERE sessions.workspace = ? ORDER BY last_activity DESC, sessions.id DESC", (number,))
    return [row_of(row) for row in rows]


def of_name(db: sqlite3.Connection, name: str) -> list[Row]:
    """All of the workspace of that name that there is, or was last seen."""
    rows = db.execute(f"{SELECT} WHERE workspaces.name = ? AND NOT workspaces.deleted", (name,))
    return [row_of(row) for row in rows]


def reading(db: sqlite3.Connection, number: int) -> tuple[list[Reading], int]:
    """How far each session of a workspace was read, and the bytes that all have."""
    rows = db.execute(f"{SELECT} WHERE sessions.workspace = ?", (number,)).fetchall()
    return [_reading(row) for row in rows], sum(row["bytes"] for row in rows)


# --- what the worker tells


def note(
    db: sqlite3.Connection, number: int, told: Sequence[tuple[Key, SessionSeen]], now: int
) -> list[tuple[Reading, bool]]:
    """Sessions are there, or do something else than before. How each stands now, and whether that is news."""
    found: list[tuple[Reading, bool]] = []
    for key, event in told:
        at = millis(event.last_activity, now)
        status = status_of(event.status)
        before = find(db, number, key)
        news = before is None or (status, at or before.last_activity) != (before.status, before.last_activity)
        if before is None:
            db.execute(
                "INSERT INTO sessions (workspace, agent, session_id, status, last_activity, title, body) "
                "VALUES (?, ?, ?, ?, ?, '', ?)",
                (number, key.agent, key.session_id, status, now if at is None else at, new_body(db)),
            )
        elif news:
            db.execute(
                "UPDATE sessions SET status = ?, last_activity = ? WHERE id = ?",
                (status, at or before.last_activity, before.id),
            )
        row = db.execute(
            f"{SELECT} WHERE sessions.workspace = ? AND agent = ? AND session_id = ?",
            (number, key.agent, key.session_id),
        ).fetchone()
        found.append((_reading(row), news and not row["forgotten"]))
    return found


def remove(db: sqlite3.Connection, row_ids: Iterable[int]) -> list[Row]:
    """Sessions are gone. Those that were there, as they were."""
    found: list[Row] = []
    for row_id in row_ids:
        row = get(db, row_id)
        if row is not None:
            doom(db, row)
            db.execute("DELETE FROM sessions WHERE id = ?", (row_id,))
            found.append(row)
    return found


def forget(db: sqlite3.Connection, row_id: int) -> None:
    """Leave a session out that is still in its workspace, until it changes."""
    row = get(db, row_id)
    if row is not None:
        doom(db, row)
        db.execute(
            "UPDATE sessions SET forgotten = 1, body = ?, messages = 0, bytes = 0, cursor = NULL WHERE id = ?",
            (new_body(db), row_id),
        )


def set_title(db: sqlite3.Connection, row_id: int, title: str) -> Row | None:
    db.execute("UPDATE sessions SET title = ? WHERE id = ?", (title, row_id))
    return get(db, row_id)


# --- what is asked


def get(db: sqlite3.Connection, row_id: int) -> Row | None:
    row = db.execute(f"{SELECT} WHERE sessions.id = ?", (row_id,)).fetchone()
    return None if row is None else row_of(row)


def find(db: sqlite3.Connection, number: int, key: Key) -> Row | None:
    where = "WHERE sessions.workspace = ? AND agent = ? AND session_id = ?"
    row = db.execute(f"{SELECT} {where}", (number, key.agent, key.session_id)).fetchone()
    return None if row is None else row_of(row)


def of_body(db: sqlite3.Connection, body: int) -> Row:
    """Whose messages these are; there must be one."""
    return row_of(db.execute(f"{SELECT} WHERE sessions.body = ?", (body,)).fetchone())


def find_named(db: sqlite3.Connection, name: str, key: Key) -> Row | None:
    """By its workspace's name: that of the workspace that there is before one of those that were deleted."""
    where = "WHERE workspaces.name = ? AND agent = ? AND session_id = ? AND NOT forgotten"
    order = "ORDER BY workspaces.deleted, workspaces.id DESC LIMIT 1"
    row = db.execute(f"{SELECT} {where} {order}", (name, key.agent, key.session_id)).fetchone()
    return None if row is None else row_of(row)


def row_of(row: sqlite3.Row) -> Row:
    return Row(
        id=row["id"],
        number=row["workspace"],
        workspace=row["name"],
        agent=row["agent"],
        session_id=row["session_id"],
        status=row["status"],
        last_activity=row["last_activity"],
        parent=row["parent"],
        title=row["title"],
        facts=_facts.decode(row["facts"]),
        body=row["body"],
        messages=row["messages"],
        deleted_workspace=bool(row["deleted"]),
        forgotten=bool(row["forgotten"]),
    )


def doom(db: sqlite3.Connection, row: Row) -> None:
    """Its messages are void from now on."""
    fulltext.doom(db, row.body, fulltext.scope_of(row.number, row.agent))


def _reading(row: sqlite3.Row) -> Reading:
    return Reading(row_of(row), row["mark"], row["cursor"])


def new_body(db: sqlite3.Connection) -> int:
    """A number for messages that none had before."""
    return int(db.execute("UPDATE bodies SET last = last + 1 RETURNING last").fetchone()[0])
