"""Runs the jobs that are due, each run once.

A run is noted as begun, in one step with when its job is due next; then it is done, with an id by which a repetition is
dropped; then its end is noted. Killed anywhere between, it is done again from the note at the next start.
"""

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import anyio
from anyio.abc import TaskGroup

from controlplane.cron.actions import Action, Begun
from controlplane.cron.doers import Doer
from controlplane.cron.schedule import at_start, clock_was_set
from controlplane.cron.store import Ended, JobRecord, Store
from controlplane.errors import PerryError

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""How soon it is noticed that the clock was set."""

BATCH: Final = 100
"""Runs that are begun in one step, and that are under way at once, besides those that people ask for."""

SET: Final = timedelta(seconds=1)
"""What the clock may differ by before it counts as set. Slewing by NTP does not show: both clocks follow it."""

RETRY_SECONDS: Final = 5.0
"""After state.db could not be written."""

_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""On Linux CLOCK_MONOTONIC stands still in suspend, and the end of one would look like a clock that was set."""


class Clock(Protocol):
    """What the time is."""

    def now(self) -> datetime:
        """In UTC. People and NTP may set it."""

    def elapsed(self) -> float:
        """Seconds since some moment; nobody sets it, and it goes on while the machine sleeps."""


class SystemClock:
    """This machine's."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def elapsed(self) -> float:
        return time.clock_gettime(_STEADY)


class Scheduler:
    """Owns when jobs run. ``run`` is its loop; jobs that were added or removed meanwhile need ``nudge``."""

    def __init__(self, store: Store, doers: Mapping[type[Action], Doer], clock: Clock) -> None:
        self._store = store
        self._doers = doers
        self._clock = clock
        self._changed = anyio.Event()
        self._ended: list[Ended] = []
        self._to_note = anyio.Event()
        self._noted: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
        self._under_way: set[str] = set()
        self._tasks: TaskGroup | None = None
        self._watched = (clock.now(), clock.elapsed())

    def nudge(self) -> None:
        """What is due next may have changed."""
        self._changed.set()

    async def run_now(self, job: JobRecord) -> str:
        """Run a job, whenever it is due. The id of the run, whose end is noted."""
        run = self._store.begin(job, self._clock.now())
        noted = self._noted[run.id]
        self._start(run)
        await noted.wait()
        return run.id

    async def run(self) -> None:
        """For ever."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._note_ends)
            self._look_after_a_start()
            for run in self._store.open():
                log.info("doing run %s of the job %r again, whose end was not noted", run.id, run.job)
                self._start(run)
            while True:
                self._changed = anyio.Event()
                try:
                    wait = self._begin_due()
                except Exception:
                    # As when the disk is full. What is due stays so.
                    log.exception("jobs could not be looked at")
                    wait = RETRY_SECONDS
                with anyio.move_on_after(max(wait, 0)):
                    await self._changed.wait()

    def _begin_due(self) -> float:
        """Begin what is due. How many seconds nothing will be to do for."""
        self._watch_the_clock()
        now = self._clock.now()
        for run in self._store.begin_due(now, BATCH - len(self._under_way)):
            self._start(run)
        due = self._store.next_due()
        if due is None or len(self._under_way) >= BATCH:
            # The end of a run nudges.
            return LOOK_SECONDS
        return min(LOOK_SECONDS, (due - self._clock.now()).total_seconds())

    def _look_after_a_start(self) -> None:
        """Overdue jobs run once; none waits for a time that a wrong clock once gave it."""
        now = self._clock.now()
        ran = self._store.last_dues()
        moved = self._move(lambda job, due: at_start(job.schedule, due, ran.get(job.id, job.created), now))
        if moved:
            log.warning("the clock was set back meanwhile; %s jobs are due at other times now", moved)

    def _watch_the_clock(self) -> None:
        now, elapsed = self._clock.now(), self._clock.elapsed()
        then, elapsed_then = self._watched
        by = now - then - timedelta(seconds=elapsed - elapsed_then)
        if abs(by) < SET:
            return
        log.warning("the clock was set by %s", by)
        self._move(lambda job, due: clock_was_set(job.schedule, due, by, now))
        self._watched = (now, elapsed)

    def _move(self, anew: Callable[[JobRecord, datetime], datetime | None]) -> int:
        """Set when jobs are due. How many are due at another time now."""
        moved = []
        for job in self._store.waiting():
            assert job.due is not None
            # One whose times cannot be told any more fails when it is due.
            with contextlib.suppress(PerryError):
                if (due := anew(job, job.due)) != job.due:
                    moved.append((job.id, due))
        self._store.set_due(moved)
        return len(moved)

    # --- one run

    def _start(self, run: Begun) -> None:
        assert self._tasks is not None, "it runs"
        self._under_way.add(run.id)
        self._tasks.start_soon(self._do, run)

    async def _do(self, run: Begun) -> None:
        try:
            detail, failed = await self._doers[type(run.action)].do(run), False
        except PerryError as exc:
            detail, failed = exc.message, True
            log.warning("the job %r failed: %s", run.job, exc.message)
        except Exception:
            detail, failed = "It failed in a way that was not foreseen; `perry agent logs` has the details.", True
            log.exception("run %s of the job %r failed", run.id, run.job)
        self._ended.append(Ended(run.id, self._clock.now(), failed, detail))
        self._to_note.set()

    async def _note_ends(self) -> None:
        """Those of the same moment in one step."""
        while True:
            await self._to_note.wait()
            self._to_note = anyio.Event()
            ended, self._ended = self._ended, []
            try:
                self._store.end(ended)
            except Exception:
                log.exception("ends of jobs could not be noted")
                self._ended += ended
                self._to_note.set()
                await anyio.sleep(RETRY_SECONDS)
                continue
            for each in ended:
                self._under_way.discard(each.run)
                if (noted := self._noted.pop(each.run, None)) is not None:
                    noted.set()
            self.nudge()
