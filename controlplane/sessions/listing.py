"""Which sessions are asked for, in SQL. Functions of a connection, like those of :mod:`store`."""

import re
import sqlite3
from typing import Any, Final

from controlplane.errors import InvalidInput
from controlplane.sessions.aggregate import EARLIEST, Row, millis
from controlplane.sessions.store import SELECT, row_of
from protocol.sessions import ListSessions

_CURSOR = re.compile(r"(\d{1,18})\.(\d{1,18})")
_NEVER: Final = 1 << 53


def page(db: sqlite3.Connection, wanted: ListSessions) -> tuple[list[Row], str | None]:
    """The most recently active first, and where the next page begins."""
    where = ["NOT sessions.forgotten"]
    values: list[Any] = []

    def add(condition: str, *given: Any) -> None:
        where.append(condition)
        values.extend(given)

    if wanted.workspace is not None:
        numbers = of_name(db, wanted.workspace)
        add(f"sessions.workspace IN ({', '.join('?' * len(numbers))})", *numbers)
    if wanted.agent is not None:
        add("agent = ?", wanted.agent)
    if wanted.id_prefix is not None:
        add("substr(session_id, 1, ?) = ?", len(wanted.id_prefix), wanted.id_prefix)
    if wanted.status is not None:
        add("status = ?", wanted.status)
    if wanted.since is not None:
        add("last_activity >= ?", millis(wanted.since, _NEVER) or EARLIEST)
    if wanted.until is not None:
        add("last_activity <= ?", millis(wanted.until, _NEVER) or EARLIEST - 1)
    if wanted.parent is not None:
        add("parent = ?", wanted.parent)
    elif not wanted.subagents:
        add("parent IS NULL")
    if wanted.cursor is not None:
        place = _CURSOR.fullmatch(wanted.cursor)
        if place is None:
            raise InvalidInput("The cursor is none that a page ended with; leave it out to begin anew.")
        add("(last_activity, sessions.id) < (?, ?)", int(place[1]), int(place[2]))
    order = "ORDER BY last_activity DESC, sessions.id DESC LIMIT ?"
    rows = [
        row_of(row) for row in db.execute(f"{SELECT} WHERE {' AND '.join(where)} {order}", (*values, wanted.limit + 1))
    ]
    if len(rows) <= wanted.limit:
        return rows, None
    last = rows[wanted.limit - 1]
    return rows[: wanted.limit], f"{last.last_activity}.{last.id}"


def of_name(db: sqlite3.Connection, workspace: str) -> list[int]:
    """Numbers of the workspaces that have the name, or had it."""
    return [row["id"] for row in db.execute("SELECT id FROM workspaces WHERE name = ?", (workspace,))]
