"""Forgets batches and tasks that ended long ago, so that state.db does not grow for ever.

Only what is done with goes: nothing is owed after its end any more. A batch goes with its items' tasks, whole.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import anyio

from controlplane.batches.collecting import Collector
from controlplane.batches.store import Store

log = logging.getLogger(__name__)

FIRST_SECONDS: Final = 3600.0
"""How long nothing is forgotten after a start: a machine's clock may be years ahead until it is set."""

EVERY_SECONDS: Final = 6 * 3600.0

AT_ONCE: Final = 200
"""So many go in one transaction, in which nothing else happens."""


class Tasks(Protocol):
    """What is asked of tasks; see :class:`controlplane.tasks.store.Store`."""

    def forget(self, before: datetime, but: Callable[[str], bool], most: int) -> int: ...


class Retention:
    """``keep`` is for how long they stay after their end."""

    def __init__(
        self,
        store: Store,
        tasks: Tasks,
        collector: Collector,
        *,
        keep: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._collector = collector
        self._keep = keep
        self._now = now

    async def run(self) -> None:
        """For ever."""
        await anyio.sleep(FIRST_SECONDS)
        while True:
            try:
                await self.forget_old()
            except Exception:
                # Such as a full disk. The next time makes up for it.
                log.exception("old tasks could not be forgotten")
            await anyio.sleep(EVERY_SECONDS)

    async def forget_old(self) -> None:
        """All that ended before."""
        before = self._now() - self._keep
        while batches := self._store.ended_before(before, AT_ONCE):
            await self._collector.forget(batches)  # First: without its row, nobody would know of a folder.
            self._store.forget(batches)
            log.info("forgot %d batches that had ended before %s", len(batches), before.date())
        while count := self._tasks.forget(before, self._store.has_task, AT_ONCE):
            await anyio.lowlevel.checkpoint()
            log.info("forgot %d tasks that had ended before %s", count, before.date())
