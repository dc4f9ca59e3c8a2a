"""The worker as a process: killed, ended, at rest."""

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.workers.fleet import Fleet
from protocol.worker import Page, ReadSession, ReadStatus, WorkerStatus
from tests.integration.worker.process import SECRET, WorkerProcess
from tests.unit.workers.heard import Heard, at, nothing
from tests.waiting import until

pytestmark = pytest.mark.anyio

MEMORY_AT_REST = 60 << 20


@asynccontextmanager
async def following(worker: WorkerProcess) -> AsyncIterator[tuple[Fleet, Heard]]:
    heard = Heard()
    fleet = Fleet(
        WebSocketWorkers("1"),
        secret=lambda name: SECRET,
        address=at({"alpha": worker.address}),
        renew_secret=nothing,
        changed=lambda name: None,
    )
    fleet.register(heard)
    async with anyio.create_task_group() as tasks:
        fleet.run_in(tasks)
        fleet.follow("alpha", worker.address)
        yield fleet, heard
        tasks.cancel_scope.cancel()


async def test_a_worker_killed_in_mid_stream_loses_nothing(worker: WorkerProcess) -> None:
    for number in range(20):
        worker.write(f"0000000{number % 10}-{number}")
    async with following(worker) as (fleet, heard):
        await until(lambda: len(heard.marks.get("alpha", {})) == 20)
        before = dict(heard.marks["alpha"])
        worker.write("00000001-1")
        await anyio.to_thread.run_sync(worker.end, signal.SIGKILL)
        worker.remove("00000009-19")
        worker.write("00000000-0")
        worker.write("new")
        await anyio.to_thread.run_sync(worker.start)
        fleet.dial_now("alpha")
        await until(lambda: heard.marks["alpha"].keys() == before.keys() - {"00000009-19"} | {"new"})
        for grown in ("00000000-0", "00000001-1"):
            assert heard.marks["alpha"][grown] != before[grown]
        page = await fleet.link("alpha").ask(ReadSession(agent="claude", session_id="00000000-0"))
        assert isinstance(page, Page) and page.messages and page.mark == heard.marks["alpha"]["00000000-0"]


async def test_at_rest_it_is_small_and_idle(worker: WorkerProcess) -> None:
    for number in range(200):
        worker.write(f"session-{number}")
    async with following(worker) as (fleet, heard):
        await until(lambda: len(heard.marks.get("alpha", {})) == 200)
        status = await fleet.link("alpha").ask(ReadStatus())
        assert isinstance(status, WorkerStatus) and status.watching
        assert status.memory < MEMORY_AT_REST and worker.memory() < MEMORY_AT_REST
        assert [(each.agent, each.sessions) for each in status.agents if each.sessions] == [("claude", 200)]


def test_told_to_end_it_ends_at_once_and_begins_again(worker: WorkerProcess) -> None:
    began = time.monotonic()
    assert worker.end() == 0
    assert time.monotonic() - began < 10
    worker.start()
    assert worker.end(signal.SIGKILL) == -signal.SIGKILL
    # What it left of its socket is in nobody's way.
    worker.start()
    assert "up" in worker.perry("worker", "status").stdout
