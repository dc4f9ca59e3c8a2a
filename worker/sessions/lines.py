"""From a file of JSON records to its lines, in bounded memory: the records may be torn, spliced or enormous."""

import functools
import json
import os
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

LINE_LIMIT: Final = 16 << 20
"""Bytes of one line, at most; a longer one is passed over and counted. Images in prompts make lines of several MB."""

CHUNK: Final = 256 << 10

SALVAGE_LIMIT: Final = 2 * LINE_LIMIT
"""Characters that are looked at for the records of one broken line, at most; each attempt counts a thousand more."""

_lenient: Final = json.JSONDecoder(strict=False)


class Line(NamedTuple):
    """``data`` is None where the line is too long. ``ended`` says whether its newline is there; ``end`` is after it."""

    start: int
    end: int
    data: bytes | None
    ended: bool


def lines(fd: int, start: int, *, inside: bool = False) -> Iterator[Line]:
    """The lines from ``start`` to the end of the file. With ``inside``, what comes before the first newline is the rest
    of a line that is too long."""
    pieces: list[bytes] = []
    begin = offset = start
    size, long = 0, inside
    while chunk := os.pread(fd, CHUNK, offset):
        offset += len(chunk)
        parts = chunk.split(b"\n")
        last = parts.pop()
        for part in parts:
            size += len(part)
            if long or size > LINE_LIMIT:
                data = None
            elif pieces:
                pieces.append(part)
                data = b"".join(pieces)
            else:
                data = part
            end = begin + size + 1
            yield Line(begin, end, data, True)
            begin, size, long, pieces = end, 0, False, []
        size += len(last)
        if long or size > LINE_LIMIT:
            long, pieces = True, []
        elif last:
            pieces.append(last)
    if size:
        yield Line(begin, offset, None if long else b"".join(pieces), False)


def salvage(data: bytes, *, ended: bool = True) -> Iterator[dict[str, Any]]:
    """The records of a line that is none: several in a row, one behind the beginning of another, or with bytes that no
    JSON has. What is no record is passed over. Its work is bounded (:data:`SALVAGE_LIMIT`).

    Of a line that is not ``ended``, those that stay what they are whatever comes after."""
    text = data.replace(b"\0", b"").decode("utf-8", "replace")
    at, work = text.find("{"), 0
    while at >= 0 and work < SALVAGE_LIMIT:
        try:
            record, after = _lenient.raw_decode(text, at)
        except json.JSONDecodeError as error:
            if not ended:
                return
            # An unterminated string was looked through to its end.
            work += len(text) - at if error.msg.startswith("Unterminated") else error.pos - at
            after = at + 1
        except RecursionError:
            return
        else:
            if isinstance(record, dict):
                yield record
        work += 1000
        at = text.find("{", after)


def plain(value: object, limit: int) -> str | None:
    """A short text of a record, on one line, for a fact like a title or a folder; None where there is none."""
    if not isinstance(value, str) or not value:
        return None
    cut = value[: limit * 2].encode("utf-8", "replace").decode()
    return " ".join("".join(c if c.isprintable() else " " for c in cut).split())[:limit] or None


@functools.lru_cache(maxsize=256)
def word(value: str) -> str | None:
    """The same for what is said again and again, like a model's name."""
    return plain(value, 128)


def count(value: object) -> int:
    """A number of tokens; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else 0


Unreadable = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a line can raise."""
