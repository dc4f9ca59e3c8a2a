"""How a batch and its items stand, whose turn it is, and what follows from an item's end. Pure.

An item: pending ──► (its task) ──► ended ──► collected ──► removed or kept ──► settled
A batch: running ──► all items settled ──► ended ──► woken, settled
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from protocol.batches import Batch, BatchEntry, BatchState, BatchSummary, ItemState
from protocol.tasks import ENDED, DispatchTask, RemoveWhen, Task, TaskState

TEXT_SHOWN = 200
"""Characters of a batch's task that lists show."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for with a batch, besides its items."""

    parallel: int
    wake: str
    wake_each: bool
    remove_when: str
    reuse: bool = False


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A batch as state.db has it."""

    number: int
    id: str
    wishes: Wishes
    text: str
    created: datetime
    ended: datetime | None = None
    cancelled: bool = False
    wake_id: str | None = None
    settled: bool = False


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of an item when its task had ended as ``state``. ``missing`` says why not all of it could be."""

    state: str | None = None
    said: str | None = None
    commits: int | None = None
    unpushed: int | None = None
    uncommitted: int | None = None
    note: str | None = None
    missing: str | None = None


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """An item as state.db has it. ``was_there``: its workspace was, before the batch made it; it is somebody else's.

    ``task`` is its task's id; ``refused`` says why there is none and will be none.
    """

    batch: str
    number: int
    item: str
    wanted: DispatchTask
    was_there: bool
    task: str | None = None
    refused: str | None = None
    kept: Kept | None = None
    removal: str | None = None
    settled: bool = False

    @property
    def workspace(self) -> str:
        return self.wanted.workspace

    @property
    def under_way(self) -> bool:
        return self.task is not None and not self.settled


def key_of(item: Item) -> str:
    """Of its task: asked for twice, it is one task."""
    return f"{item.batch}-{item.number}"


def wake_id(record: Record) -> str:
    """Of the one wake at the end."""
    return f"{record.id}-done"


def next_to_begin(items: Iterable[Item], beginning: Iterable[int], *, parallel: int) -> list[Item]:
    """The items whose turn has come, in their order. ``beginning`` are numbers of items that are being dispatched."""
    items, numbers = list(items), set(beginning)
    busy = sum(each.under_way or each.number in numbers for each in items)
    waiting = [each for each in items if each.task is None and not each.settled and each.number not in numbers]
    return waiting[: max(0, parallel - busy)]


def removes(wishes: Wishes, state: TaskState) -> bool:
    """Whether an item's workspace is to go after such an end."""
    return wishes.remove_when == RemoveWhen.DONE or (
        wishes.remove_when == RemoveWhen.SUCCESS and state is TaskState.SUCCEEDED
    )


def entry(record: Record, item: Item, task: Task | None) -> BatchEntry:
    """An item, as clients see it."""
    kept = item.kept or Kept()
    return BatchEntry(
        number=item.number,
        item=item.item,
        workspace=item.workspace,
        agent=item.wanted.agent,
        state=_state(record, item, task),
        done=item.settled,
        task=item.task,
        started=task.started if task else None,
        ended=task.ended if task else None,
        reason=task.reason if task else item.refused,
        said=kept.said,
        commits=kept.commits,
        unpushed=kept.unpushed,
        uncommitted=kept.uncommitted,
        removal=item.removal,
        note=kept.missing or kept.note,
    )


def _state(record: Record, item: Item, task: Task | None) -> ItemState:
    if task is not None:
        return ItemState(task.state)
    if item.task is not None:
        return ItemState.LOST
    if item.refused is not None:
        return ItemState.FAILED
    return ItemState.CANCELLED if item.settled and record.cancelled else ItemState.PENDING


def summary(record: Record, counts: Mapping[str, int]) -> BatchSummary:
    """A batch, as lists show it. ``counts`` is how many items are in which state."""
    over = BatchState.CANCELLED if record.cancelled else BatchState.DONE
    return BatchSummary(
        id=record.id,
        state=BatchState.RUNNING if record.ended is None else over,
        text=record.text,
        created=record.created,
        parallel=record.wishes.parallel,
        wake=record.wishes.wake,
        remove_when=record.wishes.remove_when,
        counts=dict(counts),
        ended=record.ended,
        wake_id=record.wake_id,
    )


def shown(record: Record, entries: Sequence[BatchEntry]) -> Batch:
    return Batch(summary=summary(record, counted(entries)), items=list(entries))


def counted(entries: Iterable[BatchEntry]) -> dict[str, int]:
    """How many are in which state."""
    return dict(Counter(entry.state.value for entry in entries))


def is_over(task: Task) -> bool:
    return task.state in ENDED
