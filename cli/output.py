"""The only place that prints: sentences, tables and JSON.

What comes from a server or a workspace loses its control characters before it reaches a terminal. Colours are for
terminals only, and never where ``NO_COLOR`` is set.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, Any, Final

import msgspec

RESET: Final = "\033[0m"
STYLES: Final = {"bold": "\033[1m", "dim": "\033[2m", "red": "\033[31m", "green": "\033[32m", "yellow": "\033[33m"}


def colours(stream: IO[str]) -> bool:
    """Whether to colour what goes there."""
    return not os.environ.get("NO_COLOR") and is_terminal(stream)


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person looks at it, on something that understands cursor movements."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def styled(text: str, style: str, stream: IO[str] | None = None) -> str:
    """The text in a style (a key of ``STYLES``), where the stream (stdout) shows colours."""
    return f"{STYLES[style]}{text}{RESET}" if colours(stream or sys.stdout) else text


def clean(text: str) -> str:
    """One line that does nothing to a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def line(text: str = "", *, now: bool = False) -> None:
    """One line on stdout; ``now`` also into a pipe."""
    print(text, flush=now)


def note(text: str) -> None:
    """A word to the person, which is no part of the data: on stderr."""
    print(text, file=sys.stderr)


def warn(text: str) -> None:
    """Something to know, on stderr."""
    print(f"{styled('Warning:', 'yellow', sys.stderr)} {clean(text)}", file=sys.stderr)


def error(text: str) -> None:
    """Why it failed, on stderr."""
    print(f"{styled('Error:', 'red', sys.stderr)} {clean(text)}", file=sys.stderr)


def data(value: Any) -> None:
    """A wire value as JSON on stdout."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def data_line(value: Any) -> None:
    """A wire value as one line of JSON on stdout, at once."""
    print(msgspec.json.encode(value).decode(), flush=True)


def width(stream: IO[str] | None = None) -> int | None:
    """Columns of the terminal; None where the output goes elsewhere, and nothing is cut."""
    return shutil.get_terminal_size().columns if is_terminal(stream or sys.stdout) else None


def cut(text: str, columns: int | None) -> str:
    """The text, shortened to so many columns."""
    if columns is None or len(text) <= columns:
        return text
    return text[: max(columns - 1, 0)] + "…"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], below: Sequence[str | None] = ()) -> None:
    """Aligned columns on stdout. ``below`` has a remark for each row; the last column is cut to the terminal."""
    cells = [[clean(cell) or "-" for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [headings, *cells]) for i in range(len(headings))]
    columns = width()

    def laid_out(row: Sequence[str]) -> str:
        return "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()

    line(styled(cut(laid_out(headings), columns), "bold"))
    for i, row in enumerate(cells):
        line(cut(laid_out(row), columns))
        if i < len(below) and (remark := below[i]):
            line(styled(f"  └ {clean(remark)}", "yellow"))


def pairs(rows: Sequence[tuple[str, str | None]]) -> None:
    """Names and values on stdout; what has no value is left out."""
    present = [(name, value) for name, value in rows if value]
    size = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        line(f"{styled(name.ljust(size), 'bold')}  {clean(value)}")


def age(since: str, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was, in its largest unit."""
    try:
        seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(since)).total_seconds()
    except (ValueError, TypeError):
        return "?"
    return duration(max(seconds, 0))


def duration(seconds: float) -> str:
    """Seconds in their largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def size(count: int) -> str:
    """Bytes, for people."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
