"""The only place that prints: sentences, tables and JSON.

What comes from a server or a workspace loses its control characters before it reaches a terminal. Colours are for
terminals only, and never where ``NO_COLOR`` is set.
"""

import functools
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Container, Sequence
from datetime import UTC, datetime
from typing import IO, Any, Final

import msgspec

RESET: Final = "\033[0m"
STYLES: Final = {
    "plain": "",
    "bold": "\033[1m",
    "dim": "\033[2m",
    "red": "\033[31m",
    "green": "\033[32m",
    "yellow": "\033[33m",
    "cyan": "\033[36m",
    "match": "\033[1;33m",
}
LEAST_TEXT: Final = 28
"""Columns that a sentence in a table has at least; else it gets a line of its own."""
Style = str
"""A key of ``STYLES``."""


def colours(stream: IO[str]) -> bool:
    """Whether to colour what goes there."""
    return not os.environ.get("NO_COLOR") and is_terminal(stream)


def is_terminal(stream: IO[str]) -> bool:
    """Whether a person looks at it, on something that understands cursor movements."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def styled(text: str, style: Style, stream: IO[str] | None = None) -> str:
    """The text in a style, where the stream (stdout) shows colours."""
    return f"{STYLES[style]}{text}{RESET}" if STYLES[style] and colours(stream or sys.stdout) else text


def clean(text: str) -> str:
    """One line that does nothing to a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def clean_lines(text: str) -> list[str]:
    """Its lines, none of which does anything to a terminal. Tabs are four spaces."""
    return [clean(each.expandtabs(4)) for each in text.replace("\r\n", "\n").split("\n")]


def harmless(text: str) -> str:
    """A text as it was printed: lines and tabs stay, and what else would move the cursor goes."""
    return "".join(c if c.isprintable() or c in "\n\t" else "" for c in text)


def is_one_line(text: str) -> bool:
    """Whether it is one already."""
    return text.isprintable()


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


def columns(text: str) -> int:
    """Columns that a line takes on a terminal: some characters take two, and some none."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, most: int | None) -> str:
    """The text, shortened to so many columns."""
    if most is None or columns(text) <= most:
        return text
    return _begin(text, most - 1) + "…" if most > 0 else ""


def _begin(text: str, most: int) -> str:
    used = 0
    for i, character in enumerate(text):
        used += _columns(character)
        if used > most:
            return text[:i]
    return text


def wrapped(text: str, most: int) -> list[str]:
    """A line as several of so many columns, broken between words where they are short enough."""
    lines: list[str] = []
    while columns(text) > most:
        begin = _begin(text, most) or text[0]
        space = begin.rfind(" ")
        at = space + 1 if space > 0 and not text[len(begin)].isspace() else len(begin)
        lines.append(text[:at].rstrip())
        text = text[at:].lstrip()
    return [*lines, text] if text or not lines else lines


def _padded(text: str, size: int, right: bool) -> str:
    space = " " * (size - columns(text))
    return space + text if right else text + space


def table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    below: Sequence[str | None] = (),
    *,
    least: int = 0,
    right: Container[int] = (),
    style: Callable[[int, int], Style] = lambda row, column: "plain",
) -> None:
    """Aligned columns on stdout. ``below`` has a remark for each row; the last column is cut to the terminal.

    ``least`` is what the last column has to have there; else its cells stand below their rows. ``right`` are the
    columns that end at the same place, ``style`` says how a cell of a row and a column looks.
    """
    head, blocks = laid_out_with_room(headings, rows, width(), least, right=right, style=style)
    line(head)
    for i, texts in enumerate(blocks):
        for text in texts:
            line(text)
        if i < len(below) and (remark := below[i]):
            line(styled(f"  └ {clean(remark)}", "yellow"))


def laid_out_with_room(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    most: int | None,
    least: int,
    *,
    right: Container[int] = (),
    style: Callable[[int, int], Style] = lambda row, column: "plain",
) -> tuple[str, list[list[str]]]:
    """The headings, and the lines of each row: one, or a second with its last cell, where that would have less than
    ``least`` of the terminal's ``most`` columns."""
    taken = sum(2 + max(columns(row[i]) for row in (headings, *rows)) for i in range(len(headings) - 1))
    if most is None or most - taken >= least:
        head, *lines = laid_out(headings, rows, most, right=right, style=style)
        return head, [[each] for each in lines]
    head, *lines = laid_out(headings[:-1], [row[:-1] for row in rows], most, right=right, style=style)
    return head, [
        [each, *([cut(f"  {clean(row[-1])}", most)] if row[-1] else [])] for each, row in zip(lines, rows, strict=True)
    ]


def laid_out(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    most: int | None,
    *,
    right: Container[int] = (),
    style: Callable[[int, int], Style] = lambda row, column: "plain",
) -> list[str]:
    """The lines of such a table, the headings first, none longer than ``most`` columns."""
    cells = [list(headings), *([clean(cell) or "-" for cell in row] for row in rows)]
    widths = [max(columns(row[i]) for row in cells) for i in range(len(headings))]
    return [
        _row(row, widths, most, right, (lambda column: "bold") if i == 0 else functools.partial(style, i - 1))
        for i, row in enumerate(cells)
    ]


def _row(
    cells: Sequence[str], widths: Sequence[int], most: int | None, right: Container[int], style: Callable[[int], Style]
) -> str:
    parts: list[str] = []
    left = most
    for i, (cell, size) in enumerate(zip(cells, widths, strict=True)):
        last = i == len(cells) - 1
        text = _padded(cell, size, i in right)
        text = cut(text.rstrip() if last else f"{text}  ", left)
        if left is not None:
            left = max(left - columns(text), 0)
        parts.append(styled(text, style(i)) if text.strip() else text)
    return "".join(parts).rstrip()


def pairs(rows: Sequence[tuple[str, str | None]]) -> None:
    """Names and values on stdout; what has no value is left out, and further lines of a value stand under its first."""
    present = [(name, value) for name, value in rows if value]
    size = max((len(name) for name, _ in present), default=0)
    for name, value in present:
        first, *more = clean_lines(value.rstrip("\n"))
        line(f"{styled(name.ljust(size), 'bold')}  {first}")
        for each in more:
            line(f"{' ' * size}  {each}".rstrip())


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
