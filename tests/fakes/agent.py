"""``make dev``: a control plane on fakes, with its real API, CLI and state.db. No Docker, no tailnet.

    python -m tests.fakes.agent [FOLDER]

keeps its state in ``.build/dev``, or in FOLDER; ``PERRY_CONFIG_DIR=.build/dev perry list`` speaks to it.
Commands in its workspaces run on this machine.
"""

import asyncio
import itertools
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from controlplane import process
from controlplane.credentials.receiver import OWN_FOLDER
from controlplane.ports import WorkerLink
from controlplane.settings import load
from controlplane.system import logs
from controlplane.wiring.outside import Outside
from controlplane.workers.delivery import WORKER_LABEL
from protocol.sessions import MessageRole, SessionStatus
from protocol.version import VERSION
from tests.fakes.engine import FakeEngine
from tests.fakes.machine import FakeMachine
from tests.fakes.pods import IMAGES, FakePods
from tests.fakes.processes import FakeProcesses
from tests.fakes.tailnet import FakeTailnet
from tests.fakes.worker import FakeWorker, FakeWorkers, message

FOLDER = Path(__file__).parents[2] / ".build" / "dev"


def fakes(folder: Path) -> Outside:
    engine, tailnet = FakeEngine(IMAGES), FakeTailnet()
    # What runs in a workspace really runs here, with a home of its own, which the image would have prepared.
    home = folder / "home"
    (home / OWN_FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
    engine.processes = FakeProcesses(home)
    FakePods(engine, tailnet)
    engine.images.add("perry/worker:latest")
    for image in ("perry/worker:latest", "perry/workspace-base:latest"):
        engine.image_labels[image] = {WORKER_LABEL: VERSION}
    return Outside(engine=engine, tailnet=tailnet, machine=FakeMachine(), workers=AnyWorkers())


class AnyWorkers:
    """A worker at each address that is asked for, which takes any secret; its agents work while somebody follows."""

    def __init__(self) -> None:
        self._there = FakeWorkers()

    @asynccontextmanager
    async def dial(
        self, address: str, secret: str, *, epoch: str | None = None, after: int | None = None
    ) -> AsyncIterator[WorkerLink]:
        worker = self._there.workers.setdefault(address, FakeWorker())
        working = asyncio.create_task(work(worker))
        try:
            async with self._there.dial(address, worker.secret, epoch=epoch, after=after) as link:
                yield link
        finally:
            working.cancel()


async def work(worker: FakeWorker) -> None:
    """Two agents answer, sentence by sentence, and are done with it now and then."""
    for number in itertools.count():
        for agent, session_id in (("claude", "3f2a9c1e-0000-4000-8000-000000000001"), ("opencode", "ses_0123456789")):
            turn, word = divmod(number, 8)
            now = datetime.now(UTC)
            if word == 0:
                asked = message(2 * turn, f"Please look at part {turn} of the project.", MessageRole.USER, at=now)
                session = worker.write(session_id, asked, agent=agent, cwd="/home/workspace", model="fake-1")
            said = " ".join(f"I have read file {read}." for read in range(word + 1))
            session = worker.write(session_id, message(2 * turn + 1, said, at=now), agent=agent, last_activity=now)
            session.last_activity = now
            worker.set_status(session_id, SessionStatus.IDLE if word == 7 else SessionStatus.BUSY, agent)
        await asyncio.sleep(1)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    environ = {**os.environ, "PERRY_CONFIG_DIR": str(folder)}
    loaded = load(folder, environ)
    logs.configure("info")
    # What the fakes knew is gone with them, so what state.db knows of it goes too.
    for file in (*folder.glob("state.db*"), *folder.glob("sessions.db*")):
        file.unlink()
    print(f"Speak to it with: export PERRY_CONFIG_DIR={folder}")  # noqa: T201
    process.run(loaded, environ, outside=lambda _: fakes(folder))


if __name__ == "__main__":
    main()
