"""Ten thousand cron jobs: what the scheduler costs while few of them are due, and how late those run.

``python -m tests.bench.cron`` is the scheduler in a process of its own, on a real state.db and the real clock.
"""

import random
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
import anyio.lowlevel
import msgspec

from controlplane.cron.actions import Begun, Wake
from controlplane.cron.schedule import Every
from controlplane.cron.scheduler import Scheduler, SystemClock
from controlplane.cron.service import Cron
from controlplane.cron.store import Store
from controlplane.db import Database
from controlplane.tasks.service import must_make_sense
from protocol.cron import AddJob
from tests.bench.measure import Figure, bounded

JOBS: Final = 10_000
PROBES: Final = 300
"""Jobs more, each due at a moment of its own, for how late they run."""
TEXT: Final = "Fallback check: is it done? " * 10
COST_SECONDS: Final = 60.0
"""What it costs is measured for a minute, as cron lines are due at its beginning. Each job runs once in an hour."""
LATE_SECONDS: Final = 20.0


class Measured(msgspec.Struct):
    """``share`` of a core that ``runs`` took; ``late`` in milliseconds, one for each run after them."""

    share: float
    runs: int
    late: list[float]


def measured() -> list[Figure]:
    argv = [sys.executable, "-m", "tests.bench.cron"]
    seen = msgspec.json.decode(subprocess.run(argv, check=True, capture_output=True).stdout, type=Measured)
    ninety_ninth = sorted(seen.late)[int(len(seen.late) * 0.99)]
    return [
        bounded(f"{JOBS} cron jobs, {seen.runs / COST_SECONDS:.1f} runs/s", "% CPU", [seen.share * 100], most=1),
        bounded(f"late, a cron job, p99 of {len(seen.late)}", "ms", [ninety_ninth], most=100),
    ]


class Probe:
    """Notes how late each run is."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self.late: list[float] = []

    async def do(self, run: Begun) -> str | None:
        self.late.append((self._clock.now() - run.due).total_seconds() * 1000)
        return None


async def _run(file: Path) -> Measured:
    clock, database = SystemClock(), Database.open(file)
    store, probe = Store(database), Probe(clock)
    scheduler = Scheduler(store, {Wake: probe}, clock)
    cron = Cron(store, scheduler, clock, is_there=lambda name: False, must_make_sense=must_make_sense)
    _fill(cron, store, database, clock.now())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run)
        # What a start costs is another thing.
        await anyio.sleep(1)
        cpu, began = time.process_time(), time.monotonic()
        await anyio.sleep(COST_SECONDS)
        share = (time.process_time() - cpu) / (time.monotonic() - began)
        runs, probe.late = len(probe.late), []
        spread = random.Random(2)
        for number in range(PROBES):
            at = f"{spread.randrange(2000, int(LATE_SECONDS * 1000))}ms"
            cron.add(AddJob(name=f"probe {number}", at=at, message=TEXT))
            await anyio.lowlevel.checkpoint()
        await anyio.sleep(LATE_SECONDS)
        tasks.cancel_scope.cancel()
    database.close()
    return Measured(share, runs, probe.late)


def _fill(cron: Cron, store: Store, database: Database, now: datetime) -> None:
    """A third each of intervals, cron lines and single times, spread over an hour."""
    database.run("PRAGMA synchronous = OFF")
    spread = random.Random(1)
    for number in range(JOBS):
        name = f"job {number}"
        if number % 3 == 0:
            cron.add(AddJob(name=name, every="1h", message=TEXT))
        elif number % 3 == 1:
            line = f"{spread.randrange(60)} * * * *"
            cron.add(AddJob(name=name, cron=line, tz="Europe/Berlin", message=TEXT))
        else:
            cron.add(AddJob(name=name, at=f"{spread.randrange(30, 3600)}s", message=TEXT))
    hourly = [job for job in store.waiting() if isinstance(job.schedule, Every)]
    store.set_due((job.id, now + timedelta(seconds=spread.random() * 3600)) for job in hourly)
    database.run("PRAGMA synchronous = FULL")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        seen = anyio.run(_run, Path(folder) / "state.db")
    sys.stdout.buffer.write(msgspec.json.encode(seen))


if __name__ == "__main__":
    main()
