"""A scheduler that is killed at each job's first action: ``python -m tests.unit.cron.killed FOLDER before|after``.

Beside it, ``done`` has the id of every run that was acted on, and ``died`` of those at which it was killed.
"""

import os
import signal
import sys
from pathlib import Path

import anyio

from controlplane.cron.actions import Begun, Wake
from controlplane.cron.scheduler import Scheduler, SystemClock
from controlplane.cron.service import Cron
from controlplane.cron.store import Store
from controlplane.db import Database
from controlplane.tasks.service import must_make_sense
from protocol.cron import AddJob
from tests.waiting import until

JOBS = 3


class Deadly:
    """Kills its own process at the first action of each run."""

    def __init__(self, folder: Path, moment: str) -> None:
        self._folder = folder
        self._moment = moment

    async def do(self, run: Begun) -> str | None:
        died = self._folder / "died"
        first = not died.exists() or run.id not in died.read_text().split()
        if self._moment == "after" or not first:
            with (self._folder / "done").open("a") as done:
                done.write(f"{run.id}\n")
        if first:
            with died.open("a") as note:
                note.write(f"{run.id}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return None


async def main(folder: Path, moment: str) -> None:
    database = Database.open(folder / "state.db")
    store, clock = Store(database), SystemClock()
    scheduler = Scheduler(store, {Wake: Deadly(folder, moment)}, clock)
    cron = Cron(store, scheduler, clock, is_there=lambda name: False, must_make_sense=must_make_sense)
    if store.count() == 0:
        for number in range(JOBS):
            cron.add(AddJob(name=f"job {number}", at="1ms", message="x"))
        await anyio.sleep(0.005)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(scheduler.run)
        await anyio.sleep(0.05)
        await until(lambda: not store.open() and store.next_due() is None, "all are done")
        tasks.cancel_scope.cancel()
    database.close()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), sys.argv[2])
