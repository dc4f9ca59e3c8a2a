"""The full text of messages, by SQLite's FTS5. Functions of a connection, like those of :mod:`store`.

A message enters the full text a moment after it was stored: one that grows while its model speaks is taken out once,
and comes back when it has settled. Each is found by its words under a number that begins with its time; so the newest
come first without sorting, however many there are.

What is asked for is looked for twice: in what people and models said, then in what tools were given and gave back.
"""

import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Final

import msgspec

from controlplane.sessions.query import BEGIN, END, words

BATCH_BYTES: Final = 4 << 20
"""Of messages that enter the full text in one transaction: about two tenths of a second, unless others are hurried."""

BATCH: Final = 4_000

LEAST_BYTES: Final = 512 << 10
"""Of messages that enter in one transaction however hurried others are: some hundredths of a second. Less would make
pieces that cost more to merge."""

LOOK: Final = 16
"""Messages between two looks at whether others are hurried."""

MERGED_PAGES: Final = 64
"""Of the full text that are merged at once: some hundredths of a second."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """Where a page of what was found ended: in what was said (0) or in tools (1), at a number."""

    part: int
    doc: int


class Found(msgspec.Struct, frozen=True):
    """A message that was found, and where."""

    body: int
    ordinal: int
    role: str
    at: int | None
    snippet: str
    place: Place


class Scope(msgspec.Struct, frozen=True):
    """Where to look: in workspaces of these numbers (None: in all), in what one agent did (None: any)."""

    workspaces: Sequence[int] | None = None
    agent: str | None = None


def put_in(db: sqlite3.Connection, hurried: Callable[[], bool]) -> bool:
    """Some of the messages that wait enter the full text: few where others are ``hurried``. Whether more wait."""
    void, entries = _waiting(db, hurried)
    done = size = 0

    def some() -> Iterator[tuple[int, str, str, str]]:
        nonlocal done, size
        for _, entry in entries:
            if done and done % LOOK == 0 and size >= LEAST_BYTES and hurried():
                return
            done += 1
            size += len(entry[1]) + len(entry[2])
            yield entry

    db.executemany("INSERT INTO texts (rowid, said, tools, scope) VALUES (?, ?, ?, ?)", some())
    db.executemany("DELETE FROM docs WHERE doc = ?", [entry[:1] for _, entry in entries[done:]])
    taken = [*void, *(message for message, _ in entries[:done])]
    db.executemany("DELETE FROM pending WHERE message = ?", [(message,) for message in taken])
    return bool(db.execute("SELECT 1 FROM pending LIMIT 1").fetchone())


def _waiting(
    db: sqlite3.Connection, hurried: Callable[[], bool]
) -> tuple[list[int], list[tuple[int, tuple[int, str, str, str]]]]:
    """Of the messages that wait, those that have nothing to enter with, and what the others enter with."""
    rows = db.execute(
        "SELECT pending.message AS id, messages.role, messages.at, messages.blocks, sessions.workspace, "
        "sessions.agent, sessions.last_activity FROM pending LEFT JOIN messages ON messages.id = pending.message "
        "LEFT JOIN sessions ON sessions.body = pending.message >> 24 ORDER BY pending.message LIMIT ?",
        (BATCH,),
    )
    void: list[int] = []
    entries: list[tuple[int, tuple[int, str, str, str]]] = []
    size = 0
    for count, row in enumerate(rows, 1):
        # Where there is nothing, it was rewritten or deleted before it was its turn.
        there = row["blocks"] is not None and row["workspace"] is not None
        found = words(row["role"], row["blocks"]) if there else ("", "")
        if any(found):
            doc = _number(db, row["id"], (row["at"] or row["last_activity"]) // 1000)
            entries.append((row["id"], (doc, *found, scope_of(row["workspace"], row["agent"]))))
        else:
            void.append(row["id"])
        size += len(row["blocks"]) if there else 0
        if size >= BATCH_BYTES or (count % LOOK == 0 and size >= LEAST_BYTES and hurried()):
            break
    # In their order, or each that goes back would be written as a piece of its own.
    entries.sort(key=itemgetter(1))
    return void, entries


def merge(db: sqlite3.Connection) -> bool:
    """Merge some of the pieces that the full text is in. Whether there is more to merge."""
    before = db.total_changes
    db.execute("INSERT INTO texts (texts, rank) VALUES ('merge', ?)", (MERGED_PAGES,))
    return db.total_changes - before > 1


def take_out(db: sqlite3.Connection, message: int, role: str, blocks: str, scope: str) -> None:
    """A message that is about to change leaves the full text. All as it was put in, or words of it would stay."""
    row = db.execute("DELETE FROM docs WHERE message = ? RETURNING doc", (message,)).fetchone()
    if row is not None:
        db.execute(
            "INSERT INTO texts (texts, rowid, said, tools, scope) VALUES ('delete', ?, ?, ?, ?)",
            (row["doc"], *words(role, blocks), scope),
        )


def doom(db: sqlite3.Connection, body: int, scope: str) -> None:
    """The messages of a body are void from now on; they are taken away by :func:`clear_doomed`."""
    db.execute("INSERT INTO doomed VALUES (?, ?)", (body, scope))


def clear_doomed(db: sqlite3.Connection) -> bool:
    """Take away some of the messages that are void. Whether there are more."""
    row = db.execute("SELECT body, scope FROM doomed LIMIT 1").fetchone()
    if row is None:
        return False
    first, last, size = row["body"] << 24, (row["body"] + 1 << 24) - 1, 0
    messages = db.execute(
        "SELECT id, role, blocks FROM messages WHERE id BETWEEN ? AND ? LIMIT ?", (first, last, BATCH)
    ).fetchall()
    for message in messages:
        take_out(db, message["id"], message["role"], message["blocks"], row["scope"])
        db.execute("DELETE FROM messages WHERE id = ?", (message["id"],))
        size += len(message["blocks"])
        if size >= BATCH_BYTES:
            return True
    if len(messages) == BATCH:
        return True
    db.execute("DELETE FROM doomed WHERE body = ?", (row["body"],))
    return bool(db.execute("SELECT 1 FROM doomed LIMIT 1").fetchone())


def search(db: sqlite3.Connection, expression: str, scope: Scope, after: Place | None, limit: int) -> list[Found]:
    """The best first: what was said before what is in tools, in each the newest first."""
    within = "".join(f" AND (scope : ({terms}))" for terms in _terms(scope))
    parts = (
        (f"(said : ({expression})){within}", 0, "said"),
        (f"(({{said tools}} : ({expression})){within}) NOT (said : ({expression}))", 1, "{said tools}"),
    )
    found: list[Found] = []
    for matching, part, columns in parts:
        if after is not None and part < after.part:
            continue
        below = after.doc if after is not None and part == after.part else (1 << 62)
        # What is void, and not yet taken away, is found too; so there may be more to look at than is asked for.
        rows = db.execute(
            "SELECT texts.rowid AS doc, docs.message FROM texts CROSS JOIN docs ON docs.doc = texts.rowid "
            "CROSS JOIN sessions ON sessions.body = docs.message >> 24 "
            "WHERE texts MATCH ? AND texts.rowid < ? ORDER BY texts.rowid DESC LIMIT ?",
            (matching, below, limit - len(found)),
        ).fetchall()
        for row in rows:
            message = db.execute("SELECT role, at FROM messages WHERE id = ?", (row["message"],)).fetchone()
            found.append(
                Found(
                    body=row["message"] >> 24,
                    ordinal=row["message"] & 0xFFFFFF,
                    role=message["role"],
                    at=message["at"],
                    snippet=_snippet(db, f"{columns} : ({expression})", row["doc"], part),
                    place=Place(part, row["doc"]),
                )
            )
        if len(found) >= limit:
            break
    return found


def _snippet(db: sqlite3.Connection, matching: str, doc: int, part: int) -> str:
    text = ""
    for column in (part, 0):
        row = db.execute(
            "SELECT snippet(texts, ?, ?, ?, '…', 24) AS snippet FROM texts WHERE texts MATCH ? AND rowid = ?",
            (column, BEGIN, END, matching, doc),
        ).fetchone()
        text = row["snippet"]
        if BEGIN in text:
            break
    return text


def _number(db: sqlite3.Connection, message: int, seconds: int) -> int:
    """A number that no other message has: the time, then the ordinal, or where that is taken anything."""
    number, spread = seconds << 16 | (message & 0xFFFF), 1 << 16
    while not db.execute("INSERT OR IGNORE INTO docs VALUES (?, ?)", (number, message)).rowcount:
        number = (seconds << 16) + random.randrange(spread)
        spread = min(spread * 2, 1 << 36)
    return number


def scope_of(workspace: int, agent: str) -> str:
    """Words that stand for where a message is, for a search in a part of all."""
    return f"w{workspace} a{agent.encode().hex()}"


def _terms(scope: Scope) -> Iterable[str]:
    if scope.workspaces is not None:
        yield " OR ".join(f"w{number}" for number in scope.workspaces)
    if scope.agent is not None:
        yield f"a{scope.agent.encode().hex()}"
