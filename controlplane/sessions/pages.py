"""How a page of messages that a worker gave is kept. Functions of a connection, like those of :mod:`store`."""

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from controlplane.sessions import fulltext, store
from controlplane.sessions.aggregate import (
    Facts,
    Row,
    counts,
    facts_of,
    line,
    message_of,
    millis,
    status_of,
    title_of,
)
from controlplane.sessions.masking import Mask
from protocol.sessions import Message
from protocol.worker import Page, SessionSeen

_encode: Final = msgspec.json.Encoder().encode


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


def prepared(page: Page, mask: Mask, now: int) -> Prepared:
    """What can be done of a page before it is its turn to be written."""
    told = {found.ordinal: found for each in page.messages if (found := message_of(each, mask, now)) is not None}
    messages = list(told.values())
    return Prepared(page, messages, [_encode(message.blocks) for message in messages], mask)


def add(
    db: sqlite3.Connection, row_id: int, given: Prepared, seen: SessionSeen, cursor: str | None, now: int, room: int
) -> Stored | None:
    """Keep a page that was asked for from ``cursor``. None where that is not any more how far it was read.

    ``seen`` is what was told of the session last. ``room`` is how many bytes more its workspace may have; what does
    not fit is left out.
    """
    row = store.get(db, row_id)
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
            store.doom(db, row)
            body = store.new_body(db)
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
    after = store.get(db, row_id)
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
