"""What the one who waits is told when a batch has ended. Pure.

What agents said, reasons (many come out of workspaces) and items that are titles are somebody else's words: quoted.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from controlplane.batches.state import Record
from controlplane.quoting import clean, quoted
from protocol.batches import BatchEntry, ItemState
from protocol.tasks import RemoveWhen

LINE: Final = 240
ITEM: Final = 80
FAILURES: Final = 50
SUCCESSES: Final = 50
"""Of so many at most a line each; the rest is a count."""

GOOD: Final = ItemState.SUCCEEDED

_PLAIN: Final = re.compile(rf"[\w@%+=.,/#-]{{1,{ITEM}}}")
"""An item that needs no quotes. Others may be titles, which strangers wrote."""


def text(record: Record, entries: Sequence[BatchEntry]) -> str:
    """How many came to what, a line for each, which workspaces stay, and how to look further."""
    counts = Counter(entry.state for entry in entries)
    counted = ", ".join(f"{count} {state}" for state, count in sorted(counts.items(), key=lambda each: each[0] != GOOD))
    how = "was cancelled" if record.cancelled else "is done"
    lines = [f"Batch {record.id} ({len(entries)} item{'s' * (len(entries) > 1)}) {how}: {counted}."]
    bad = [entry for entry in entries if entry.state != GOOD]
    lines += _listed(bad, FAILURES)
    lines += _listed([entry for entry in entries if entry.state == GOOD], SUCCESSES)
    if stay := _staying(entries):
        lines.append(stay)
    if record.wishes.remove_when == RemoveWhen.SUCCESS and any(entry.failed_there for entry in entries):
        lines.append("The workspaces of items that failed or were cancelled stay.")
    lines.append(
        f"Look further: `perry batches show {record.id}`; all results as files: `perry batches collect {record.id}`."
    )
    return "\n".join(lines)


def _listed(entries: Sequence[BatchEntry], most: int) -> list[str]:
    lines = [_line(entry) for entry in entries[:most]]
    return lines + ([f"- and {len(entries) - most} more"] if len(entries) > most else [])


def _line(entry: BatchEntry) -> str:
    item = entry.item if _PLAIN.fullmatch(entry.item) else quoted(entry.item, ITEM)
    line = f"- {item}: {entry.state}"
    if entry.task is None:
        # Nothing of it ran: the reason is ours.
        return clean(f"{line}: {entry.reason}")[:LINE] if entry.reason else line
    if entry.state != GOOD and entry.reason:
        return _with(f"{line}: ", entry.reason)
    return _with(f"{line}, and said ", entry.said) if entry.said else line


def _with(begins: str, words: str) -> str:
    return begins + quoted(words, LINE - len(begins) - 2)


def _staying(entries: Sequence[BatchEntry]) -> str:
    """Workspaces that were to go and did not, each with its reason."""
    kept = [entry for entry in entries if entry.removal is not None and entry.removal != "deleted"]
    lines = [_with(f"- {entry.workspace}: ", str(entry.removal)) for entry in kept[:FAILURES]]
    return "\n".join(["Workspaces that were to go, and stay:", *lines]) if lines else ""
