"""The use cases of batches. What happens to a batch by itself, from its first item to its wake, is :mod:`.driver`'s."""

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import anyio
import msgspec

from controlplane import cursors
from controlplane.batches import state
from controlplane.batches.collecting import Collector
from controlplane.batches.driver import Driver
from controlplane.batches.plan import Planned, planned
from controlplane.batches.state import Record, Wishes
from controlplane.batches.store import Store
from controlplane.errors import Conflict, NotFound
from controlplane.ids import new_id
from protocol.batches import (
    Batch,
    Batches,
    BatchItemResult,
    BatchPlan,
    ListBatches,
    PlannedItem,
    ReadBatchItem,
    StartBatch,
    WaitForBatch,
    WatchedBatch,
)
from protocol.tasks import TaskResult
from protocol.workspaces import Workspace

KEPT: Final = 50
"""Batches whose logs and patches are kept after their end."""

NAMED: Final = 5
"""Workspaces that a refusal names."""


class Workspaces(Protocol):
    """What is asked of workspaces; see :class:`controlplane.workspaces.service.Workspaces`."""

    async def list(self) -> list[Workspace]: ...


class Results(Protocol):
    """What is asked of tasks; see :class:`controlplane.tasks.service.TaskService`."""

    async def result(self, id_: str) -> TaskResult: ...


class BatchService:
    """Batches, as clients ask about them."""

    def __init__(
        self, store: Store, driver: Driver, workspaces: Workspaces, results: Results, collector: Collector
    ) -> None:
        self._store = store
        self._driver = driver
        self._workspaces = workspaces
        self._results = results
        self._collector = collector
        self._starting = anyio.Lock()

    async def plan(self, wanted: StartBatch) -> BatchPlan:
        """What ``start`` would do; nothing is done."""
        plan = planned(wanted)
        there = await self._there(plan)
        return BatchPlan(
            items=[
                PlannedItem(
                    item=each.item,
                    workspace=each.task.workspace,
                    task=each.task.task,
                    agent=each.task.agent,
                    exists=each.task.workspace in there,
                    clone=each.task.clone,
                    branch=each.task.branch,
                )
                for each in plan
            ]
        )

    async def start(self, wanted: StartBatch) -> Batch:
        """Take a batch, and return at once. A ``key`` that was used before gives the batch that it made.

        InvalidInput, before anything begins, for what is wrong with any item; Conflict where a workspace exists
        already and may not be reused, or is another batch's.
        """
        async with self._starting:
            if wanted.key is not None and (before := self._store.of_key(wanted.key)) is not None:
                return await self._shown(before)
            plan = planned(wanted)
            there = await self._there(plan)
            if there and not wanted.reuse:
                raise Conflict(
                    f"{_named(there)} there already; choose another --name, delete what is done with, or let the batch "
                    "work in what is there with --reuse."
                )
            if others := self._store.at_work_in(each.task.workspace for each in plan):
                names = _named({each.workspace for each in others})
                raise Conflict(f"{names} at work for the batch {others[0].batch}; wait for its end, or cancel it.")
            wishes = Wishes(
                parallel=wanted.parallel,
                wake=wanted.wake,
                wake_each=wanted.wake_each,
                remove_when=wanted.remove_when,
                reuse=wanted.reuse,
            )
            text = wanted.task or plan[0].task.task
            record = self._store.add(new_id("b"), wishes, text, wanted.key, plan, there)
        await self._driver.announce(record)
        self._driver.nudge()
        await self._collector.forget(self._store.ids_before_the_newest(KEPT))
        return await self._shown(record)

    async def list(self, wanted: ListBatches) -> Batches:
        """A page, the newest first."""
        before = cursors.before(wanted.cursor, "batches.list")
        page = self._store.page(before=before, limit=wanted.limit + 1)
        shown, more = page[: wanted.limit], len(page) > wanted.limit
        return Batches(
            items=[await self._driver.summary(record) for record in shown],
            next_cursor=str(shown[-1].number) if more else None,
        )

    async def get(self, id_: str) -> Batch:
        return await self._shown(self._must_exist(id_))

    async def wait(self, wanted: WaitForBatch) -> WatchedBatch:
        """Until it has ended, is other than at the mark, or the time is over."""
        with anyio.move_on_after(wanted.timeout):
            while True:
                heard = self._driver.next_news()
                watched = await self._watched(wanted.id)
                if watched.done or watched.mark != wanted.mark:
                    return watched
                await heard.wait()
        return await self._watched(wanted.id)

    async def cancel(self, id_: str) -> Batch:
        """Begin no item more, and end those under way. What has ended stays as it is."""
        self._must_exist(id_)
        self._store.cancel(id_)
        self._driver.nudge()
        return await self.get(id_)

    async def result(self, wanted: ReadBatchItem) -> BatchItemResult:
        """What an item left: as it was kept at its end."""
        record = self._must_exist(wanted.id)
        item = self._store.item(wanted.id, wanted.number)
        if item is None:
            raise NotFound(f"The batch {wanted.id} has no item {wanted.number}; `perry batches show {wanted.id}`.")
        return BatchItemResult(
            entry=await self._driver.entry(record, item),
            result=None if item.task is None else await self._results.result(item.task),
            log=await self._collector.read(item.batch, item.number, "log"),
            patch=await self._collector.read(item.batch, item.number, "patch"),
        )

    async def _there(self, plan: Sequence[Planned]) -> set[str]:
        """Those of the plan's workspaces that exist."""
        names = {each.task.workspace for each in plan}
        return {workspace.name for workspace in await self._workspaces.list()} & names

    async def _watched(self, id_: str) -> WatchedBatch:
        record = self._must_exist(id_)
        batch = await self._shown(record)
        mark = hashlib.sha256(msgspec.json.encode(batch)).hexdigest()[:16]
        return WatchedBatch(batch=batch, mark=mark, done=record.ended is not None)

    async def _shown(self, record: Record) -> Batch:
        return state.shown(record, await self._driver.entries(record))

    def _must_exist(self, id_: str) -> Record:
        record = self._store.get(id_)
        if record is None:
            raise NotFound(f"There is no batch {id_!r}; `perry batches list` shows them.")
        return record


def _named(names: set[str]) -> str:
    """``alpha and 3 more are``, at the beginning of a sentence."""
    shown = ", ".join(repr(name) for name in sorted(names)[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"The workspace{'s' * (len(names) > 1)} {shown}{more} {'are' if len(names) > 1 else 'is'}"
