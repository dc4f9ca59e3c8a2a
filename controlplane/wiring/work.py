"""What is done in workspaces for whoever waits, put together: tasks, looks at them, batches, cron."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from anyio.abc import TaskGroup

from controlplane.batches import collecting, needs, service
from controlplane.batches.collecting import Collector
from controlplane.batches.driver import Driver
from controlplane.batches.retention import Retention
from controlplane.batches.service import BatchService
from controlplane.batches.store import Store as BatchStore
from controlplane.cron.doers import doers
from controlplane.cron.scheduler import Scheduler, SystemClock
from controlplane.cron.service import Cron
from controlplane.cron.store import Store as CronStore
from controlplane.db import Database
from controlplane.events.bus import Bus
from controlplane.ports import Waker, WorkerFollower, WorkerLink
from controlplane.settings import Settings
from controlplane.tasks import dispatcher
from controlplane.tasks.dispatcher import Dispatcher
from controlplane.tasks.fallback import Fallback
from controlplane.tasks.looking import Looker, Sessions
from controlplane.tasks.service import News, TaskService, must_make_sense
from controlplane.tasks.signals import Signals
from controlplane.tasks.store import Store as TaskStore
from controlplane.workspaces.pods import Checkpoint
from protocol.tasks import Task


class Workspaces(dispatcher.Workspaces, needs.Workspaces, collecting.Workspaces, service.Workspaces, Protocol):
    """All that is asked of workspaces for it; see :class:`controlplane.workspaces.service.Workspaces`."""


class WorkParts:
    """``tasks``, ``fallback``, ``batches`` and ``cron`` are what others ask; ``dispatcher`` hears of workspaces.
    ``is_at`` knows whether a task is a workspace's.

    ``link`` is the stream to a workspace's worker. ``folder`` has what items of batches left.
    """

    def __init__(
        self,
        database: Database,
        settings: Settings,
        folder: Path,
        *,
        workspaces: Workspaces,
        is_there: Callable[[str], bool],
        link: Callable[[str], WorkerLink],
        sessions: Sessions,
        engine: collecting.Runs,
        waker: Waker,
        bus: Bus,
        checkpoint: Checkpoint,
    ) -> None:
        self._bus = bus
        task_store, news = TaskStore(database), News()
        self._task_store = task_store
        self.is_at = task_store.is_at
        self.dispatcher = Dispatcher(
            task_store,
            workspaces,
            waker,
            news,
            parallel=settings.tasks.parallel,
            per_workspace=settings.tasks.per_workspace,
            announce=self._task_changed,
        )
        self.tasks = TaskService(task_store, workspaces, link, self.dispatcher, news)
        self.fallback = Fallback(
            task_store,
            Looker(link, sessions),
            waker,
            self.dispatcher.changed,
            workspaces,
            problem=self.dispatcher.problem,
            every=timedelta(seconds=settings.tasks.fallback),
            stall=timedelta(seconds=settings.tasks.stall),
        )
        self._signals = Signals(waker, wanted=settings.wake.sessions, of_task=task_store.works_in)
        batch_store = self._batch_store = BatchStore(database)
        collector = Collector(folder, self.tasks, workspaces, engine)
        self._driver = Driver(
            batch_store,
            self.tasks,
            workspaces,
            collector,
            waker,
            announce=bus.batch_changed,
            checkpoint=checkpoint,
        )
        self.batches = BatchService(batch_store, self._driver, workspaces, self.tasks, collector)
        self._retention = Retention(batch_store, task_store, collector, keep=timedelta(days=settings.tasks.keep_days))
        cron_store, clock = CronStore(database), SystemClock()
        self._scheduler = Scheduler(cron_store, doers(waker, self.fallback, self.tasks), clock)
        self.cron = Cron(cron_store, self._scheduler, clock, is_there=is_there, must_make_sense=must_make_sense)

    @property
    def followers(self) -> tuple[WorkerFollower, ...]:
        """Who has to hear what every worker tells."""
        return (self.dispatcher, self._signals)

    def uploads(self) -> set[str]:
        """The ids of local repositories that are still needed: a task clones one until it has begun, an item of a batch
        counts until it is done with."""
        return {*self._task_store.uploads(), *self._batch_store.uploads()}

    def run_in(self, tasks: TaskGroup) -> None:
        """All that goes on by itself does so in this task group."""
        self._signals.run_in(tasks)
        tasks.start_soon(self.dispatcher.run)
        tasks.start_soon(self.fallback.run)
        tasks.start_soon(self._driver.run)
        tasks.start_soon(self._retention.run)
        tasks.start_soon(self._scheduler.run)

    def _task_changed(self, task: Task) -> None:
        self._bus.task_changed(task)
        self._driver.task_changed(task)
