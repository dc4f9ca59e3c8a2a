"""Shows a batch while it runs: a table that moves on a terminal, a line for each change elsewhere; and at its end."""

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, Final, Protocol

from cli import output
from cli.client import Client
from cli.errors import Interrupted, NotReachable
from cli.reconnecting import PATIENCE
from cli.redrawing import Redrawn
from protocol.batches import Batch, BatchEntry, BatchRef, ItemState, WaitForBatch, WatchedBatch
from protocol.tasks import RemoveWhen

POLL_SECONDS: Final = 20.0
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 2.0
TICK_SECONDS: Final = 1.0

STYLE: Final = {
    ItemState.SUCCEEDED: "green",
    ItemState.FAILED: "red",
    ItemState.LOST: "red",
    ItemState.CANCELLED: "dim",
    ItemState.PENDING: "dim",
    ItemState.WAITING: "yellow",
    ItemState.STALLED: "yellow",
}
HEADINGS: Final = ("ITEM", "WORKSPACE", "STATE", "TOOK", "SAID")
ORDER: Final = (
    ItemState.WAITING,
    ItemState.STALLED,
    ItemState.RUNNING,
    ItemState.QUEUED,
    ItemState.FAILED,
    ItemState.LOST,
    ItemState.PENDING,
)
"""What is shown first where the terminal is too low for all."""


class View(Protocol):
    """Something that shows a batch."""

    def update(self, batch: Batch) -> None:
        """The batch as it stands now."""

    def say(self, text: str) -> None:
        """A word about the connection."""

    def close(self) -> None:
        """The end."""


def view(stream: IO[str]) -> View:
    """The view that fits a stream."""
    return Live(stream) if output.is_terminal(stream) else Plain(stream)


def follow(client: Client, batch: Batch, shown: View, changed: Callable[[Batch], None]) -> Batch:
    """Show it to its end, over lost connections and restarts of the agent. ``changed`` hears of each change,
    and may ask the agent itself: where that does not answer, it hears of the change again."""
    id_, mark = batch.summary.id, None
    try:
        shown.update(batch)
        lost_at: float | None = None
        pause = FIRST_PAUSE
        while True:
            try:
                # Short enough for the times in the table to move.
                seconds = TICK_SECONDS if isinstance(shown, Live) else POLL_SECONDS
                wanted = WaitForBatch(id=id_, mark=mark, timeout=seconds)
                watched = client.call("batches.wait", WatchedBatch, wanted, seconds=seconds + 30)
                shown.update(watched.batch)
                if watched.mark != mark:
                    changed(watched.batch)
                    mark = watched.mark
            except NotReachable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > PATIENCE:
                    raise
                shown.say("The agent does not answer; trying again …")
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
                continue
            lost_at, pause = None, FIRST_PAUSE
            if watched.done:
                return watched.batch
    except KeyboardInterrupt as exc:
        raise Interrupted(
            f"Interrupted here; the batch goes on. `perry batches watch {id_}` watches it again, "
            f"`perry batches cancel {id_}` ends it."
        ) from exc
    finally:
        shown.close()


def got(client: Client, id_: str) -> Batch:
    return client.call("batches.get", Batch, BatchRef(id=id_))


class Plain:
    """A line for each item that becomes something else."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._shown: dict[int, tuple[str, bool]] = {}
        self._said = ""

    def update(self, batch: Batch) -> None:
        self._said = ""
        for entry in batch.items:
            now = (entry.state, entry.done)
            if self._shown.get(entry.number, (ItemState.PENDING, False)) == now:
                continue
            self._shown[entry.number] = now
            if entry.done or entry.state in (ItemState.QUEUED, ItemState.RUNNING, ItemState.WAITING, ItemState.STALLED):
                self._line(line_of(entry))

    def say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            self._line(text)

    def close(self) -> None:
        pass

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class Live:
    """All items, redrawn in place; gone at the end."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._redrawn = Redrawn(stream)
        self._batch: Batch | None = None

    def update(self, batch: Batch) -> None:
        self._batch = batch
        self._draw("")

    def say(self, text: str) -> None:
        self._draw(text)

    def close(self) -> None:
        self._redrawn.close(clear=True)

    def _draw(self, said: str) -> None:
        columns, rows = shutil.get_terminal_size()
        lines = self._lines(columns, rows - 2)
        if said:
            lines.append(output.styled(output.cut(said, columns), "yellow", self._stream))
        self._redrawn.draw(lines)

    def _lines(self, columns: int, rows: int) -> list[str]:
        if self._batch is None:
            return []
        entries = self._batch.items
        room = max(rows - 3, 1)
        if len(entries) > room:
            entries = sorted(entries, key=_urgency)[:room]
            entries = sorted(entries, key=lambda entry: entry.number)
        lines = [output.cut(f"{counted(self._batch)}; ctrl-C leaves it at work.", columns)]
        lines += table(entries, columns)
        if hidden := len(self._batch.items) - len(entries):
            lines.append(f"and {hidden} more")
        return lines


def _urgency(entry: BatchEntry) -> int:
    return ORDER.index(entry.state) if entry.state in ORDER else len(ORDER)


def table(entries: list[BatchEntry], most: int | None) -> list[str]:
    """A line for each, under a line of headings."""
    cells = [[entry.item, entry.workspace, word(entry), took(entry), _told(entry)] for entry in entries]

    def style(row: int, column: int) -> str:
        return STYLE.get(entries[row].state, "plain") if column == 2 else "plain"

    return output.laid_out(HEADINGS, cells, most, style=style)


def counted(batch: Batch) -> str:
    """``Batch b-…: 2 running, 7 succeeded, 1 failed``."""
    order = [state.value for state in ItemState]
    counts = sorted(batch.summary.counts.items(), key=lambda each: order.index(each[0]) if each[0] in order else 99)
    return f"Batch {batch.summary.id}: " + ", ".join(f"{count} {_word(state)}" for state, count in counts)


def line_of(entry: BatchEntry) -> str:
    """An item as one plain line."""
    told = _told(entry)
    after = f" after {took(entry)}" if entry.ended is not None and entry.started is not None else ""
    line = f"{entry.item} ({entry.workspace}) {word(entry)}{after}" + (f": {told}" if told else "")
    removal = f"; workspace {entry.removal}" if entry.removal else ""
    return output.clean(line + removal)


def word(entry: BatchEntry) -> str:
    """Its state."""
    return _word(entry.state)


def _word(state: str) -> str:
    """A task that is queued, now that its item's turn has come, waits for its workspace."""
    return "starting" if state == ItemState.QUEUED else str(state)


def _told(entry: BatchEntry) -> str:
    bad = entry.state != ItemState.SUCCEEDED
    return " ".join(((entry.reason if bad else None) or entry.said or "").split())


def took(entry: BatchEntry) -> str:
    """How long it worked, or has by now."""
    if entry.started is None:
        return ""
    return output.duration(max(((entry.ended or datetime.now(UTC)) - entry.started).total_seconds(), 0))


def show(batch: Batch) -> None:
    """All of it, on stdout."""
    most = output.width()
    head, *rows = table(batch.items, most)
    output.line(head)
    for entry, row in zip(batch.items, rows, strict=True):
        output.line(row)
        for remark in _remarks(entry, batch.summary.remove_when):
            output.line(output.styled(f"  └ {output.clean(remark)}", "yellow"))
    output.line()
    output.line(counted(batch) + ".")


def _remarks(entry: BatchEntry, remove_when: str) -> list[str]:
    remarks = []
    if entry.removal and entry.removal != "deleted":
        remarks.append(f"its workspace was to go, and is {entry.removal}")
    elif remove_when == RemoveWhen.SUCCESS and entry.done and entry.failed_there:
        remarks.append("its workspace stays, since it did not succeed")
    if entry.note and entry.note not in (entry.removal or ""):
        remarks.append(entry.note)
    return remarks
