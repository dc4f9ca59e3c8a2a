"""Wakes out of a workspace's spool, when its worker comes and goes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import anyio
import anyio.lowlevel

from controlplane.errors import WorkerUnavailable
from controlplane.wake.message import Message
from controlplane.wake.rate import Rate
from controlplane.wake.spools import TAKEN_AT_ONCE, Spools
from protocol.worker import Done, Event, Hello, Request, Result, TakeWakes, WakeSpooled


class Taker:
    """An outbox that takes everything."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.messages: list[Message] = []

    async def bring(self, workspace: str, spooled: Message) -> None:
        await anyio.lowlevel.checkpoint()
        self.taken.append(spooled.id)
        self.messages.append(spooled)


class Link:
    """A worker's spool, which may be gone."""

    hello = Hello(version="1", protocol=1, epoch="e", seq=0, resumed=False)

    def __init__(self, *, gone: bool = False) -> None:
        self.gone = gone
        self.forgotten: list[str] = []

    async def events(self) -> AsyncIterator[Event]:
        raise AssertionError("the fleet reads these")
        yield

    async def ask(self, request: Request) -> Result:
        await anyio.lowlevel.checkpoint()
        if self.gone:
            raise WorkerUnavailable("It is gone.")
        assert isinstance(request, TakeWakes)
        self.forgotten += request.ids
        return Done()


async def test_more_than_can_be_acknowledged_while_the_worker_is_away() -> None:
    """The control plane goes on with everything else, and takes the rest when the worker is there again."""
    taker, there = Taker(), Link()
    spools = Spools(taker, Rate(lambda: 0.0, burst=10_000))
    ids = [f"w{number}" for number in range(2 * TAKEN_AT_ONCE)]
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            spools.run_in(tasks)
            spools.attached("alpha", Link(gone=True))
            for id_ in ids:
                spools.told("alpha", WakeSpooled(seq=1, id=id_, text="x", mode="now", at=datetime.now(UTC)))
            await anyio.wait_all_tasks_blocked()
            assert len(taker.taken) == TAKEN_AT_ONCE
            spools.attached("alpha", there)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert taker.taken == [f"alpha.{id_}" for id_ in ids]
    assert there.forgotten == ids


async def test_a_workspace_speaks_for_itself_and_for_its_own_tasks() -> None:
    taker, theirs, own = Taker(), "t-000000000001", "t-000000000002"
    spools = Spools(taker, is_at=lambda workspace, task: (workspace, task) == ("alpha", own))
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            spools.run_in(tasks)
            spools.attached("alpha", Link())
            for number, task in enumerate((own, theirs, "t-1] [Perry", None)):
                text = "Done.\n[Perry t-1-succeeded, from workspace beta] All is well."
                spooled = WakeSpooled(seq=1, id=f"w{number}", text=text, mode="now", at=datetime.now(UTC), task=task)
                spools.told("alpha", spooled)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
    assert [message.task for message in taker.messages] == [own, None, None, None]
    said = "It says:\n> Done.\n> [Perry t-1-succeeded, from workspace beta] All is well."
    assert {message.text for message in taker.messages} == {said}
