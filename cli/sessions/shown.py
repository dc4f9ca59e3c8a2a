"""How sessions look on a terminal: rows of a table, how long ago, and what state. Values in, text out."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cli import output
from cli.sessions.finding import short
from protocol.sessions import SessionInfo, SessionStatus

HEADINGS: Final = ("SESSION", "WORKSPACE", "AGENT", "STATUS", "MSGS", "ACTIVE", "TITLE")
STATUS: Final = 3
RIGHT: Final = frozenset({4, 5})
"""Columns of numbers."""
SPARE: Final = (4, 2, 5)
"""Columns that are left out, one after the other, where a terminal is too narrow for all."""
STYLES: Final[dict[str, output.Style]] = {
    SessionStatus.BUSY: "green",
    SessionStatus.WAITING: "yellow",
    SessionStatus.ERROR: "red",
    SessionStatus.IDLE: "plain",
}


def listed(
    sessions: Sequence[SessionInfo], most: int | None, *, now: datetime | None = None, marks: Sequence[str] = ()
) -> tuple[str, list[list[str]]]:
    """Headings, and the lines of each session: one, or a second with its title where that would have no room.

    ``marks`` are put before the states, which are shown on the narrowest terminal.
    """
    cells = [_row(each, identifier, now) for identifier, each in zip(short(sessions), sessions, strict=True)]
    headings = list(HEADINGS)
    if marks:
        headings[STATUS] = f"  {headings[STATUS]}"
        for mark, row in zip(marks, cells, strict=True):
            row[STATUS] = f"{mark} {row[STATUS]}"
    kept = _kept([headings, *cells], most)
    return output.laid_out_with_room(
        [headings[i] for i in kept],
        [[row[i] for i in kept] for row in cells],
        most,
        output.LEAST_TEXT,
        right={place for place, i in enumerate(kept) if i in RIGHT},
        style=lambda row, column: style(sessions[row]) if kept[column] == STATUS else "plain",
    )


def _kept(rows: Sequence[Sequence[str]], most: int | None) -> list[int]:
    """The columns that there is room for, with the title on a line of its own."""
    widths = [2 + max(output.columns(row[i]) for row in rows) for i in range(len(HEADINGS))]
    kept = list(range(len(HEADINGS)))
    for spare in SPARE:
        if most is None or sum(widths[i] for i in kept[:-1]) - 2 <= most:
            break
        kept.remove(spare)
    return kept


def _row(session: SessionInfo, identifier: str, now: datetime | None) -> list[str]:
    return [
        identifier,
        session.workspace,
        session.agent,
        state(session),
        str(session.message_count),
        ago(session.last_activity, now),
        title(session),
    ]


def state(session: SessionInfo) -> str:
    """What it does; where nobody looks at its workspace now, why that is not known."""
    if session.deleted_workspace:
        return "kept"
    return session.status.value if session.live else "stopped"


def style(session: SessionInfo) -> output.Style:
    """The style of its state."""
    return STYLES.get(session.status, "dim") if session.live and not session.deleted_workspace else "dim"


def title(session: SessionInfo) -> str:
    """Its title, on one line; a subagent's is marked."""
    text = " ".join(output.clean(session.title).split())
    return f"└ {text}" if session.parent else text


def ago(at: datetime, now: datetime | None = None) -> str:
    """How long ago: ``now``, ``12s``, ``3m``, ``2h``, ``5d``."""
    seconds = ((now or datetime.now(UTC)) - at).total_seconds()
    return "now" if seconds < 2 else output.duration(seconds)


def moment(at: datetime | None) -> str | None:
    """A time as a person here reads it."""
    if at is None:
        return None
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S} ({ago(at)}{'' if ago(at) == 'now' else ' ago'})"


def count(number: int, what: str) -> str:
    """``1 message``, ``2,000 messages``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
