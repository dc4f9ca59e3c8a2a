"""The items that ``--each`` names: ``86,87,88``, ``86-90``, or lines of standard input."""

import re
from collections.abc import Iterable
from typing import Final

from cli.errors import Misused
from protocol.batches import ITEM_LIMIT, ITEMS_LIMIT

_RANGE: Final = re.compile(r"(\d{1,9})-(\d{1,9})")


def items(each: str) -> list[str]:
    """What stands between commas, without the white space around it; a range is all of its numbers. Misused where
    there is nothing, or far too much."""
    return _checked(number for part in each.split(",") if part.strip() for number in _numbers(part.strip()))


def lines(text: str) -> list[str]:
    """One item a line, as it stands; empty lines are none."""
    return _checked(line.strip() for line in text.splitlines() if line.strip())


def check(item: str) -> None:
    """Misused for one that is none, or no short word any more."""
    if not item.strip():
        raise Misused("An item is empty; give it a name, or leave it out.")
    if len(item) > ITEM_LIMIT:
        raise Misused(
            f"The item {item[:40]!r}… has {len(item)} characters, and at most {ITEM_LIMIT} are taken; give it a short "
            "name, and a task of its own in a file."
        )


def _checked(found: Iterable[str]) -> list[str]:
    listed = list(found)
    if not listed:
        raise Misused("--each names no item; give some, such as `--each 86,87,88` or `--each 86-90`.")
    return listed


def _numbers(part: str) -> Iterable[str]:
    """``08-10`` is 08, 09 and 10; what is no range is itself."""
    if (match := _RANGE.fullmatch(part)) is None:
        return [part]
    first, last = int(match[1]), int(match[2])
    if last < first:
        raise Misused(f"The range {part!r} of --each runs backwards; write {last}-{first}.")
    if last - first >= ITEMS_LIMIT:
        raise Misused(f"The range {part!r} of --each has {last - first + 1} items; a batch takes {ITEMS_LIMIT}.")
    width = len(match[1]) if match[1].startswith("0") else 0
    return [str(number).zfill(width) for number in range(first, last + 1)]
