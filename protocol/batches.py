"""Batches: the same task for many items, each in a workspace of its own."""

from datetime import datetime
from typing import Annotated, Final

import msgspec

from protocol.tasks import LONGEST, MODEL_LIMIT, RemoveWhen, TaskAgent, TaskResult, WakeWhen
from protocol.wire import Told, Wire

ITEMS_LIMIT: Final = 200
"""Items of one batch, at most."""

ITEM_LIMIT: Final = 200
"""Characters of an item, at most."""

PARALLEL_LIMIT: Final = 50
"""Items of one batch that are under way at once, at most."""

PLACE: Final = "{}"
"""What the item is put in the place of, in names, tasks, repositories and branches."""

BATCH_ID_PATTERN: Final = r"^b-[0-9a-z]{12}$"
BatchId = Annotated[str, msgspec.Meta(pattern=BATCH_ID_PATTERN)]

_Model = Annotated[str, msgspec.Meta(min_length=1, max_length=MODEL_LIMIT)]
_Timeout = Annotated[float, msgspec.Meta(gt=0, le=LONGEST)]


class BatchItem(Wire, frozen=True, forbid_unknown_fields=True):
    """One item. What it does not have of its own is the batch's. ``workspace`` is the name of its workspace."""

    item: Annotated[str, msgspec.Meta(min_length=1, max_length=ITEM_LIMIT)]
    workspace: str | None = None
    task: str | None = None
    agent: TaskAgent | None = None
    model: _Model | None = None
    timeout: _Timeout | None = None
    clone: str | None = None
    origin: str | None = None
    branch: str | None = None


class StartBatch(Wire, frozen=True, forbid_unknown_fields=True):
    """Input of ``batches.start`` and ``batches.plan``.

    In ``name`` (of the workspaces), ``task``, ``clone`` and ``branch``, ``{}`` stands for the item; the rest is as in
    ``tasks.dispatch``. ``parallel`` is how many items are under way at once. ``reuse`` lets items work in workspaces
    that are there already; those are never removed. The end of the batch is one wake; with ``wake_each`` each item's is
    one too. ``key`` makes it safe to ask twice: the same key is the same batch.
    """

    items: list[BatchItem]
    name: str | None = None
    task: str | None = None
    agent: TaskAgent = TaskAgent.OPENCODE
    model: _Model | None = None
    timeout: _Timeout | None = None
    clone: str | None = None
    origin: str | None = None
    branch: str | None = None
    parallel: Annotated[int, msgspec.Meta(ge=1, le=PARALLEL_LIMIT)] = 5
    wake: WakeWhen = WakeWhen.NOW
    wake_each: bool = False
    remove_when: RemoveWhen = RemoveWhen.NEVER
    reuse: bool = False
    fallback: Annotated[float, msgspec.Meta(ge=0, le=LONGEST)] | None = None
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] | None = None


class PlannedItem(Wire, frozen=True):
    """What would be done for one item. ``exists``: its workspace is there already."""

    item: str
    workspace: str
    task: str
    agent: str
    exists: bool
    clone: str | None = None
    branch: str | None = None


class BatchPlan(Wire, frozen=True):
    """What a batch would do."""

    items: list[PlannedItem]


class ItemState(Told):
    """How an item stands: as its task does, or ``pending`` where its turn has not come."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    STALLED = "stalled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class BatchEntry(Wire, frozen=True):
    """An item of a batch. ``number`` counts from 1. ``done``: nothing is owed any more (collecting, removal).

    ``said`` is the beginning of what the agent said last. ``commits``, ``unpushed`` and ``uncommitted`` are counts, as
    in ``tasks.result``. ``removal`` says what became of ``remove_when``; ``note`` what could not be collected.
    """

    number: int
    item: str
    workspace: str
    agent: str
    state: ItemState
    done: bool
    task: str | None = None
    started: datetime | None = None
    ended: datetime | None = None
    reason: str | None = None
    said: str | None = None
    commits: int | None = None
    unpushed: int | None = None
    uncommitted: int | None = None
    removal: str | None = None
    note: str | None = None

    @property
    def failed_there(self) -> bool:
        """Whether its task came to an end that leaves its workspace where only that of a success goes."""
        cancelled = self.state == ItemState.CANCELLED and self.started is not None
        return self.task is not None and (cancelled or self.state == ItemState.FAILED)


class BatchState(Told):
    """How a batch stands. ``cancelled``: it was ended; what had begun by then ends by itself."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"


class BatchSummary(Wire, frozen=True):
    """A batch without its items. ``counts`` is how many of them are in which state; ``text`` the task's beginning."""

    id: str
    state: BatchState
    text: str
    created: datetime
    parallel: int
    wake: str
    remove_when: str
    counts: dict[str, int]
    ended: datetime | None = None
    wake_id: str | None = None


class Batch(Wire, frozen=True):
    """A batch with its items, in their order."""

    summary: BatchSummary
    items: list[BatchEntry]


class BatchRef(Wire, frozen=True, forbid_unknown_fields=True):
    """One batch."""

    id: BatchId


class ListBatches(Wire, frozen=True, forbid_unknown_fields=True):
    """Which batches: the newest first."""

    cursor: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20


class Batches(Wire, frozen=True):
    """A page of batches. ``next_cursor`` is absent on the last."""

    items: list[BatchSummary]
    next_cursor: str | None = None


class WaitForBatch(Wire, frozen=True, forbid_unknown_fields=True):
    """Wait until a batch has ended, or is other than at ``mark``, or ``timeout`` seconds have passed."""

    id: BatchId
    mark: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    timeout: Annotated[float, msgspec.Meta(ge=0, le=300)] = 60


class WatchedBatch(Wire, frozen=True):
    """The batch as it stands; ``mark`` is another one whenever it is otherwise. ``done``: it has ended."""

    batch: Batch
    mark: str
    done: bool


class ReadBatchItem(Wire, frozen=True, forbid_unknown_fields=True):
    """What one item left; ``number`` counts from 1."""

    id: BatchId
    number: Annotated[int, msgspec.Meta(ge=1, le=ITEMS_LIMIT)]


class BatchItemResult(Wire, frozen=True):
    """What an item left, also when its workspace is gone. ``log`` is the end of what the agent printed, ``patch`` its
    commits as ``git am`` takes them, both in base64; absent where there is none."""

    entry: BatchEntry
    result: TaskResult | None = None
    log: bytes | None = None
    patch: bytes | None = None
