"""Batches on machines, and over workspaces, that do not do as they should."""

import sqlite3

import anyio
import pytest

from controlplane.batches.state import Item, Record
from controlplane.errors import EngineUnavailable, PerryError, TookTooLong
from protocol.batches import ItemState, ReadBatchItem
from protocol.tasks import Commit, RemoveWhen
from protocol.worker import TaskLog
from tests.unit.batches.conftest import COMMIT, Plane, wanted


async def test_what_cannot_be_written_down_is_tried_again(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for a while ends nothing, and holds up no other batch."""
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    one, two = [await plane.service.start(wanted(item)) for item in ("one", "two")]
    await plane.service.cancel(one.summary.id)
    save, full = plane.store.save_item, True

    def fails(item: Item) -> None:
        if full and item.batch == one.summary.id:
            raise sqlite3.OperationalError("database or disk is full")
        save(item)

    monkeypatch.setattr(plane.store, "save_item", fails)
    async with plane.at_work():
        assert (await plane.settled(two)).summary.counts == {"succeeded": 1}
        full = False
        assert (await plane.settled(one)).summary.counts == {"cancelled": 1}


async def test_a_state_db_that_cannot_be_read_is_asked_again(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    unsettled, failures = plane.store.unsettled, [sqlite3.OperationalError("disk I/O error")]

    def fails() -> list[Record]:
        if failures:
            raise failures.pop()
        return unsettled()

    monkeypatch.setattr(plane.store, "unsettled", fails)
    async with plane.at_work():
        await plane.settled(await plane.service.start(wanted("one")))
    assert not failures


async def test_a_log_without_an_end_is_read_only_so_far(plane: Plane) -> None:
    """A worker that says that there is more, and always tells the same."""
    plane.world.log = TaskLog(text="x", offset=0, next=1, size=1 << 30)
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE)))
        found = await plane.service.result(ReadBatchItem(id=done.summary.id, number=1))
    assert found.log == b"xx" and done.items[0].removal == "deleted"


async def test_a_workspace_that_does_not_answer_holds_no_batch(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    monkeypatch.setattr("controlplane.batches.aftermath.COLLECT_SECONDS", 0.05)
    plane.world.deaf = True
    async with plane.at_work():
        started = await plane.service.start(wanted("one", "sleep", remove_when=RemoveWhen.DONE))
        await plane.eventually(lambda: plane.world.begun == ["one", "sleep"])
        await plane.service.cancel(started.summary.id)
        done = await plane.settled(started)
    assert [entry.state for entry in done.items] == [ItemState.SUCCEEDED, ItemState.CANCELLED]
    assert all(
        entry.removal == "kept: what it left could not all be read: “It did not answer in time.”"
        for entry in done.items
    )


async def test_failed_work_is_not_tried_again_before_its_time(plane: Plane) -> None:
    """Whatever else happens: each change of any task lets batches go on."""
    plane.world.unreadable.add("pr-one")
    async with plane.at_work():
        started = await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE))
        await plane.eventually(lambda: plane.world.begun == ["one"])
        for _ in range(50):
            plane.driver.nudge()
            await anyio.sleep(0.002)
        (entry,) = await plane.entries(started)
        assert (entry.state, entry.done, entry.removal) == (ItemState.SUCCEEDED, False, None)


@pytest.mark.parametrize("error", [TookTooLong("Too slow."), EngineUnavailable("Docker does not answer.")])
async def test_what_may_be_read_later_is_read_later(
    plane: Plane, monkeypatch: pytest.MonkeyPatch, error: PerryError
) -> None:
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    plane.world.commits = (Commit(id=COMMIT, subject="x"),)
    container, failures = plane.world.container, [error]

    async def fails(name: str) -> str:
        if failures:
            raise failures.pop()
        return await container(name)

    monkeypatch.setattr(plane.world, "container", fails)
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE)))
    assert done.items[0].removal == "deleted" and not failures


async def test_what_items_clone_that_was_sent_ahead_is_needed_until_they_are_done_with(plane: Plane) -> None:
    upload = "upload:" + "a" * 32
    async with plane.at_work():
        started = await plane.service.start(wanted("sleep", "two", parallel=1, clone=upload))
        other = await plane.service.start(wanted("x", clone="https://x/upload:y.git"))
        await plane.eventually(lambda: "sleep" in plane.world.begun)
        assert plane.store.uploads() == {"a" * 32}
        await plane.settled(other)
        plane.world.ends("pr-sleep")
        await plane.settled(started)
    assert plane.store.uploads() == set()
