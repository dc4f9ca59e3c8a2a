"""The procedures of batches."""

from controlplane.batches.service import BatchService
from controlplane.procedures import Group
from protocol.batches import (
    Batch,
    Batches,
    BatchItemResult,
    BatchPlan,
    BatchRef,
    ListBatches,
    ReadBatchItem,
    StartBatch,
    WaitForBatch,
    WatchedBatch,
)

group = Group("batches", BatchService)


@group.procedure("plan")
async def plan(batches: BatchService, wanted: StartBatch) -> BatchPlan:
    """What a batch would do, without doing it."""
    return await batches.plan(wanted)


@group.procedure("start")
async def start(batches: BatchService, wanted: StartBatch) -> Batch:
    """Give each item to a coding agent in a workspace of its own, and return at once."""
    return await batches.start(wanted)


@group.procedure("list")
async def list_(batches: BatchService, wanted: ListBatches) -> Batches:
    """Batches, the newest first."""
    return await batches.list(wanted)


@group.procedure("get")
async def get(batches: BatchService, wanted: BatchRef) -> Batch:
    """One batch with its items."""
    return await batches.get(wanted.id)


@group.procedure("wait")
async def wait(batches: BatchService, wanted: WaitForBatch) -> WatchedBatch:
    """Wait until a batch is otherwise than the client knows it, or has ended."""
    return await batches.wait(wanted)


@group.procedure("cancel")
async def cancel(batches: BatchService, wanted: BatchRef) -> Batch:
    """Begin no item more, and end those under way."""
    return await batches.cancel(wanted.id)


@group.procedure("result")
async def result(batches: BatchService, wanted: ReadBatchItem) -> BatchItemResult:
    """What one item left, also when its workspace is gone."""
    return await batches.result(wanted)
