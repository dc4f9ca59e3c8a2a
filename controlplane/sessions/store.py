"""What is kept of sessions and their messages. Functions of a connection, to be run by :class:`SessionsDatabase`."""

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from controlplane.sessions import fulltext
from controlplane.sessions.aggregate import (
    Facts,
    Key,
    Row,
    counts,
    facts_of,
    line,
    message_of,
    millis,
    moment,
    status_of,
    title_of,
)
from controlplane.sessions.masking import Mask
from protocol.sessions import Block, Message, MessageRole
from protocol.worker import Page, SessionSeen

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


class Prepared(msgspec.Struct, frozen=True):
    """A page within bounds and without secrets, and each of its messages' blocks as JSON."""

    page: Page
    messages: list[Message]
    blocks: list[bytes]
    mask: Mask


class Stored(msgspec.Struct, frozen=True):
    """What came of a page: the session as it is now, which messages are new or other, by how many bytes it has grown.

    ``anew``: all messages that it had are void.
    """

    row: Row
    ordinals: tuple[int, ...]
    grown: int
    anew: bool


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
            _doom(db, row)
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
                (number, key.agent, key.session_id, status, now if at is None else at, _new_body(db)),
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


def prepared(page: Page, mask: Mask, now: int) -> Prepared:
    """What can be done of a page before it is its turn to be written."""
    told = {found.ordinal: found for each in page.messages if (found := message_of(each, mask, now)) is not None}
    messages = list(told.values())
    return Prepared(page, messages, [_encode(message.blocks) for message in messages], mask)


def add_page(
    db: sqlite3.Connection, row_id: int, given: Prepared, seen: SessionSeen, cursor: str | None, now: int, room: int
) -> Stored | None:
    """Keep a page that was asked for from ``cursor``. None where that is not any more how far it was read.

    ``seen`` is what was told of the session last. ``room`` is how many bytes more its workspace may have; what does
    not fit is left out.
    """
    row = get(db, row_id)
    if row is None:
        return None
    held = db.execute("SELECT bytes, cursor FROM sessions WHERE id = ?", (row_id,)).fetchone()
    if held["cursor"] != cursor:
        return None
    page, body, count, size = given.page, row.body, row.messages, held["bytes"]
    facts, title = row.facts, row.title
    if page.reset or cursor is None:
        # Read from the beginning: what was there is void.
        if size or count:
            _doom(db, row)
            body = _new_body(db)
        count = size = 0
        facts, title = Facts(), title if facts.named else ""
    room += held["bytes"] - size
    scope = fulltext.scope_of(row.number, row.agent)
    before = _before(db, body, given.messages) if size else {}
    ordinals: list[int] = []
    rows: list[tuple[object, ...]] = []
    for message, blocks in zip(given.messages, given.blocks, strict=True):
        old = before.get(message.ordinal)
        grows = len(blocks) - (0 if old is None else len(old["blocks"].encode()))
        if grows > max(room, 0):
            continue
        room -= grows
        size += grows
        count += counts(message.role) - (old is not None and counts(old["role"]))
        number = body << 24 | message.ordinal
        if old is not None:
            fulltext.take_out(db, number, old["role"], old["blocks"], scope)
        at = None if message.at is None else int(message.at.timestamp() * 1000)
        rows.append((number, message.id, message.role, at, message.model, blocks.decode()))
        ordinals.append(message.ordinal)
    db.executemany("INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?, ?, ?)", rows)
    db.executemany("INSERT OR IGNORE INTO pending VALUES (?)", [row[:1] for row in rows])
    known = facts_of(page.facts, facts, given.mask, now)
    activity = (millis(page.facts.last_activity, now), millis(seen.last_activity, now))
    db.execute(
        "UPDATE sessions SET title = ?, facts = ?, parent = ?, status = ?, last_activity = ?, body = ?, messages = ?, "
        "bytes = ?, mark = ?, cursor = ?, forgotten = 0 WHERE id = ?",
        (
            title_of(page.facts, given.messages, title, facts.named, given.mask),
            _encode(known).decode(),
            line(page.facts.parent, 256) or row.parent,
            status_of(seen.status),
            max((at for at in activity if at is not None), default=row.last_activity),
            body,
            count,
            size,
            None if page.more else page.mark,
            page.cursor,
            row_id,
        ),
    )
    after = get(db, row_id)
    assert after is not None
    return Stored(after, tuple(ordinals), size - held["bytes"], body != row.body)


def _before(db: sqlite3.Connection, body: int, messages: Sequence[Message]) -> dict[int, sqlite3.Row]:
    """Those of the messages that are there already, by their ordinal."""
    found: dict[int, sqlite3.Row] = {}
    for at in range(0, len(messages), 500):
        numbers = [body << 24 | message.ordinal for message in messages[at : at + 500]]
        query = f"SELECT id, role, blocks FROM messages WHERE id IN ({', '.join('?' * len(numbers))})"
        found.update({row["id"] & 0xFFFFFF: row for row in db.execute(query, numbers)})
    return found


def remove(db: sqlite3.Connection, row_ids: Iterable[int]) -> list[Row]:
    """Sessions are gone. Those that were there, as they were."""
    found: list[Row] = []
    for row_id in row_ids:
        row = get(db, row_id)
        if row is not None:
            _doom(db, row)
            db.execute("DELETE FROM sessions WHERE id = ?", (row_id,))
            found.append(row)
    return found


def forget(db: sqlite3.Connection, row_id: int) -> None:
    """Leave a session out that is still in its workspace, until it changes."""
    row = get(db, row_id)
    if row is not None:
        _doom(db, row)
        db.execute(
            "UPDATE sessions SET forgotten = 1, body = ?, messages = 0, bytes = 0, cursor = NULL WHERE id = ?",
            (_new_body(db), row_id),
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


def messages_between(
    db: sqlite3.Connection, body: int, first: int, last: int, limit: int, size: int, *, backwards: bool = False
) -> list[Message]:
    """Messages from one ordinal to another, both included; those nearest to the first, or to the last if ``backwards``.

    At most ``limit``, and no more than ``size`` bytes but for a single one.
    """
    order = "DESC" if backwards else "ASC"
    values = (body << 24 | max(first, 0), body << 24 | min(last, (1 << 24) - 1), limit)
    rows = db.execute(f"SELECT * FROM messages WHERE id BETWEEN ? AND ? ORDER BY id {order} LIMIT ?", values)
    found: list[Message] = []
    for row in rows:
        size -= len(row["blocks"])
        if found and size < 0:
            break
        found.append(_message(row))
    return found[::-1] if backwards else found


def messages_at(db: sqlite3.Connection, body: int, ordinals: Sequence[int], size: int) -> tuple[list[Message], bool]:
    """The messages of these ordinals that there are, in their order; whether not all of them, because of their size."""
    marks = ", ".join("?" * len(ordinals))
    rows = db.execute(f"SELECT * FROM messages WHERE id IN ({marks}) ORDER BY id", [body << 24 | at for at in ordinals])
    found: list[Message] = []
    for row in rows:
        size -= len(row["blocks"])
        if found and size < 0:
            return found, True
        found.append(_message(row))
    return found, False


def has_messages(db: sqlite3.Connection, body: int, first: int, last: int) -> bool:
    values = (body << 24 | max(first, 0), body << 24 | min(last, (1 << 24) - 1))
    return first <= last and bool(
        db.execute("SELECT 1 FROM messages WHERE id BETWEEN ? AND ? LIMIT 1", values).fetchone()
    )


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


def _message(row: sqlite3.Row) -> Message:
    return Message(
        ordinal=row["id"] & 0xFFFFFF,
        id=row["message_id"],
        role=MessageRole(row["role"]),
        blocks=_blocks.decode(row["blocks"]),
        at=None if row["at"] is None else moment(row["at"]),
        model=row["model"],
    )


def _doom(db: sqlite3.Connection, row: Row) -> None:
    fulltext.doom(db, row.body, fulltext.scope_of(row.number, row.agent))


def _reading(row: sqlite3.Row) -> Reading:
    return Reading(row_of(row), row["mark"], row["cursor"])


def _new_body(db: sqlite3.Connection) -> int:
    return int(db.execute("UPDATE bodies SET last = last + 1 RETURNING last").fetchone()[0])
