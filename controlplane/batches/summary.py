"""What the one who waits is told when a batch has ended. Pure."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from controlplane.batches.state import Record
from protocol.batches import BatchEntry, ItemState

LINE: Final = 240
FAILURES: Final = 50
SUCCESSES: Final = 50
"""Of so many at most a line each; the rest is a count."""

GOOD: Final = ItemState.SUCCEEDED


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
    lines.append(
        f"Look further: `perry batches show {record.id}`; all results as files: `perry batches collect {record.id}`."
    )
    return "\n".join(lines)


def _listed(entries: Sequence[BatchEntry], most: int) -> list[str]:
    lines = [_line(entry) for entry in entries[:most]]
    return lines + ([f"- and {len(entries) - most} more"] if len(entries) > most else [])


def _line(entry: BatchEntry) -> str:
    told = entry.said if entry.state == GOOD else entry.reason or entry.said
    item = " ".join("".join(c if c.isprintable() else " " for c in entry.item).split())[:80]
    line = f"- {item}: {entry.state}" + (f": {told}" if told else "")
    return line if len(line) <= LINE else line[: LINE - 1] + "…"


def _staying(entries: Sequence[BatchEntry]) -> str:
    """Workspaces that were to go and did not, each with its reason."""
    kept = [entry for entry in entries if entry.removal is not None and entry.removal != "deleted"]
    lines = [f"- {entry.workspace}: {entry.removal}"[:LINE] for entry in kept[:FAILURES]]
    return "\n".join(["Workspaces that were to go, and stay:", *lines]) if lines else ""
