"""Messages that are kept, read. Functions of a connection, like those of :mod:`store`."""

import sqlite3
from collections.abc import Sequence

import msgspec

from controlplane.sessions.aggregate import moment
from protocol.sessions import Block, Message, MessageRole

_blocks: msgspec.json.Decoder[list[Block]] = msgspec.json.Decoder(list[Block])


def between(
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


def at(db: sqlite3.Connection, body: int, ordinals: Sequence[int], size: int) -> tuple[list[Message], bool]:
    """The messages of these ordinals that there are, in their order; whether not all of them, because of their size."""
    marks = ", ".join("?" * len(ordinals))
    rows = db.execute(
        f"SELECT * FROM messages WHERE id IN ({marks}) ORDER BY id", [body << 24 | ordinal for ordinal in ordinals]
    )
    found: list[Message] = []
    for row in rows:
        size -= len(row["blocks"])
        if found and size < 0:
            return found, True
        found.append(_message(row))
    return found, False


def has_any(db: sqlite3.Connection, body: int, first: int, last: int) -> bool:
    values = (body << 24 | max(first, 0), body << 24 | min(last, (1 << 24) - 1))
    return first <= last and bool(
        db.execute("SELECT 1 FROM messages WHERE id BETWEEN ? AND ? LIMIT 1", values).fetchone()
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
