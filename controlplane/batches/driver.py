"""Lets batches go on by themselves: dispatches the items whose turn has come, keeps what each one left, lets its
workspace go where that was wished, and wakes once when all are done.

Every step is safe to run twice, so that a control plane that ends anywhere goes on from state.db: an item's task has a
key, collecting replaces files, and the wake has an id of its own.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final

import anyio
import msgspec
from anyio.abc import TaskGroup

from controlplane.batches import state, summary
from controlplane.batches.aftermath import Aftermath
from controlplane.batches.collecting import Collector
from controlplane.batches.needs import TaskWork, Workspaces
from controlplane.batches.state import Item, Record
from controlplane.batches.store import Store
from controlplane.errors import NotFound, PerryError
from controlplane.ports import Waker
from protocol.batches import BatchEntry, BatchSummary
from protocol.tasks import Task, TaskState, WakeWhen

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 10.0
"""When what could not be done for now is tried again."""

Which = tuple[str, int]
"""A batch and the number of its item."""

BATCH: Final = 0
"""In place of an item's number: the batch itself."""

Checkpoint = Callable[[str], None]
"""Tests end the control plane at one; see :mod:`controlplane.workspaces.pods`."""


class Driver:
    """Owns what batches do by themselves."""

    def __init__(
        self,
        store: Store,
        tasks: TaskWork,
        workspaces: Workspaces,
        collector: Collector,
        waker: Waker,
        *,
        announce: Callable[[BatchSummary], None],
        checkpoint: Checkpoint,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._aftermath = Aftermath(collector, tasks, workspaces)
        self._waker = waker
        self._announce = announce
        self._checkpoint = checkpoint
        self._followed: set[str] = set()
        """The tasks of items that are not done with."""
        self._at_work: set[Which] = set()
        self._not_before: dict[Which, float] = {}
        """When what failed is tried again, whatever happens until then."""
        self._wanted = anyio.Event()
        self._news = anyio.Event()

    def nudge(self) -> None:
        """There is something new to do."""
        self._wanted.set()

    def next_news(self) -> anyio.Event:
        """Set at the next change of any batch."""
        return self._news

    def task_changed(self, task: Task) -> None:
        """A task is otherwise than before; it may be an item's."""
        if task.id in self._followed:
            self._tell()
            self.nudge()

    async def entries(self, record: Record) -> list[BatchEntry]:
        """A batch's items as they stand now."""
        return [await self.entry(record, item) for item in self._store.items(record.id)]

    async def entry(self, record: Record, item: Item) -> BatchEntry:
        """One of them."""
        return state.entry(record, item, await self._task(item))

    async def summary(self, record: Record) -> BatchSummary:
        """A batch without its items. Of one that is done with, no item is asked about."""
        counts = self._store.counts(record.id) if record.settled else state.counted(await self.entries(record))
        return state.summary(record, counts)

    async def run(self) -> None:
        """For ever. What goes on does so in a task of its own, so that no item holds up another."""
        async with anyio.create_task_group() as tasks:
            while True:
                self._wanted = anyio.Event()
                await self._take_turns(tasks)
                with anyio.move_on_after(self._rest()):
                    await self._wanted.wait()

    def _rest(self) -> float:
        """Seconds until something is to be tried again."""
        now = anyio.current_time()
        self._not_before = {which: at for which, at in self._not_before.items() if at > now}
        return min([RETRY_SECONDS, *(at - now for at in self._not_before.values())])

    async def _take_turns(self, tasks: TaskGroup) -> None:
        """What cannot be read or written down now, such as on a full disk, is tried again later."""
        try:
            records = self._store.unsettled()
        except Exception:
            log.exception("batches")
            return
        for record in records:
            try:
                await self._go_on(tasks, record)
            except Exception:
                log.exception("batch %s", record.id)

    # --- a batch

    async def _go_on(self, tasks: TaskGroup, record: Record) -> None:
        for item in self._store.items(record.id):
            if (record.id, item.number) in self._at_work or item.settled:
                continue
            if item.task is not None:
                await self._follow(tasks, record, item, item.task)
            elif record.cancelled:
                self._save(msgspec.structs.replace(item, settled=True))
        # Some may have gone on while others were asked about.
        items = self._store.items(record.id)
        if not record.cancelled:
            busy = {number for batch, number in self._at_work if batch == record.id}
            for item in state.next_to_begin(items, busy, parallel=record.wishes.parallel):
                self._begin(tasks, (record.id, item.number), self._dispatch)
        if all(item.settled for item in items) and (record.id, BATCH) not in self._at_work:
            self._begin(tasks, (record.id, BATCH), self._end)

    async def _follow(self, tasks: TaskGroup, record: Record, item: Item, id_: str) -> None:
        self._followed.add(id_)
        task = await self._task(item)
        if task is None or (state.is_over(task) and self._tasks.is_settled(id_)):
            self._begin(tasks, (record.id, item.number), self._finish)
        elif record.cancelled and not state.is_over(task):
            self._begin(tasks, (record.id, item.number), self._cancel)

    def _begin(self, tasks: TaskGroup, which: Which, work: Callable[[str, int], Awaitable[None]]) -> None:
        if which not in self._at_work and self._not_before.get(which, 0) <= anyio.current_time():
            self._at_work.add(which)
            tasks.start_soon(self._work, which, work)

    async def _work(self, which: Which, work: Callable[[str, int], Awaitable[None]]) -> None:
        """Work that fails is tried again later; a bug in it must not end the other items."""
        again = True
        try:
            await work(*which)
            again = False
        except (PerryError, TimeoutError) as exc:
            log.warning("batch %s, item %d: %s", *which, exc)
        except Exception:
            log.exception("batch %s, item %d", *which)
        finally:
            self._at_work.discard(which)
            if again:
                self._not_before[which] = anyio.current_time() + RETRY_SECONDS
            else:
                self.nudge()

    async def _end(self, batch: str, _: int) -> None:
        record = self._store.get(batch)
        if record is None or record.settled:
            return
        if record.ended is None:
            record = msgspec.structs.replace(record, ended=datetime.now(UTC))
            await self._save_batch(record)
            self._checkpoint("batch ended")
        if record.wishes.wake != WakeWhen.NONE and record.wake_id is None:
            text = summary.text(record, await self.entries(record))
            id_ = await self._waker.wake(text, mode=record.wishes.wake, id=state.wake_id(record))
            self._checkpoint("batch woken")
            record = msgspec.structs.replace(record, wake_id=id_)
        await self._save_batch(msgspec.structs.replace(record, settled=True))
        self._checkpoint("batch settled")

    # --- an item

    async def _dispatch(self, batch: str, number: int) -> None:
        record, item = self._both(batch, number)
        if record.cancelled or item.settled or item.task is not None:
            return
        wanted = msgspec.structs.replace(item.wanted, key=state.key_of(item))
        try:
            task = await self._tasks.dispatch(wanted, quiet=not record.wishes.wake_each, own=not record.wishes.reuse)
        except PerryError as exc:
            self._save(msgspec.structs.replace(item, refused=exc.message, settled=True))
            return
        self._checkpoint("item dispatched")
        self._followed.add(task.id)
        self._save(msgspec.structs.replace(item, task=task.id))
        self._checkpoint("item noted")

    async def _cancel(self, batch: str, number: int) -> None:
        _, item = self._both(batch, number)
        if item.task is not None:
            await self._tasks.cancel(item.task)

    async def _finish(self, batch: str, number: int) -> None:
        """All that is owed after an item's end, each step written down when it is done."""
        record, item = self._both(batch, number)
        if item.settled:
            return
        task = await self._task(item)
        if item.kept is None:
            kept = await self._aftermath.collected(item, task)
            how = TaskState.LOST if task is None else task.state
            item = msgspec.structs.replace(item, kept=msgspec.structs.replace(kept, state=how))
            self._checkpoint("item collected")
            self._save(item)
            self._checkpoint("item's results noted")
        if item.removal is None and task is not None and state.removes(record.wishes, task.state):
            item = msgspec.structs.replace(item, removal=await self._aftermath.removed(item))
            self._checkpoint("item's workspace removed")
            self._save(item)
        self._save(msgspec.structs.replace(item, settled=True))
        self._checkpoint("item settled")
        if item.task is not None:
            self._followed.discard(item.task)
            self._aftermath.forget(item.task)
        await self.announce(record)

    def _both(self, batch: str, number: int) -> tuple[Record, Item]:
        """As they stand now."""
        record, item = self._store.get(batch), self._store.item(batch, number)
        assert record is not None and item is not None, "what is not settled is not deleted"
        return record, item

    async def _task(self, item: Item) -> Task | None:
        """None where it has none, or none that anybody knows of."""
        if item.task is None:
            return None
        try:
            return await self._tasks.get(item.task)
        except NotFound:
            return None

    # --- writing down

    def _save(self, item: Item) -> None:
        self._store.save_item(item)
        self._tell()

    async def _save_batch(self, record: Record) -> None:
        self._store.save(record)
        self._tell()
        await self.announce(record)

    async def announce(self, record: Record) -> None:
        """Tell everybody how a batch stands."""
        self._announce(await self.summary(record))

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()
