"""Batches from their first item to the wake, over control planes that end anywhere."""

from collections.abc import Callable

import anyio
import pytest

from controlplane.errors import Conflict, InvalidInput, NotFound
from protocol.batches import (
    BatchState,
    ItemState,
    ListBatches,
    ReadBatchItem,
    WaitForBatch,
)
from protocol.tasks import RemoveWhen, TaskState, WakeWhen
from tests.unit.batches.conftest import Killed, Plane, Scene, wanted


async def test_ten_items_one_of_which_cannot_be_cloned(plane: Plane) -> None:
    world = plane.world
    items = [f"ok{number}" for number in range(9)]
    batch = wanted(*items, "none", name="pr-{}", clone="https://x/{}.git", remove_when=RemoveWhen.SUCCESS, parallel=3)
    async with plane.at_work():
        started = await plane.service.start(batch)
        assert started.summary.state is BatchState.RUNNING
        done = await plane.settled(started)
    assert done.summary.state is BatchState.DONE
    assert done.summary.counts == {"succeeded": 9, "failed": 1}
    failed = done.items[9]
    assert (failed.state, failed.reason) == (ItemState.FAILED, "git could not clone https://x/none.git: not found")
    assert all(entry.done and entry.removal == "deleted" for entry in done.items[:9])
    assert list(world.there) == ["pr-none"] and failed.removal is None
    assert sorted(world.begun) == items
    assert world.most <= 4  # Three at once, and the one that stays.
    (text,) = world.waker.wakes.values()
    assert "9 succeeded, 1 failed" in text and "- none: failed: “git could not clone" in text
    assert plane.announced[0].counts == {"pending": 10} and plane.announced[-1].wake_id == done.summary.wake_id


OF_AN_ITEM = (
    "item dispatched",
    "item noted",
    "item collected",
    "item's results noted",
    "item's workspace removed",
    "item settled",
)
OF_THE_BATCH = ("batch ended", "batch woken", "batch settled")
STEPS = 2 * len(OF_AN_ITEM) + len(OF_THE_BATCH)
"""Of a batch of two items, at each of which a control plane may end."""


@pytest.mark.parametrize("kill_at", range(1, STEPS + 1))
async def test_a_control_plane_that_is_killed_anywhere(scene: Scene, kill_at: int) -> None:
    """Two items, one of which fails: each begins once, and there is one wake, wherever it ends."""
    passed: list[str] = []

    def checkpoint(name: str) -> None:
        passed.append(name)
        if len(passed) == kill_at:
            raise Killed

    first = scene.plane(checkpoint)
    batch = await first.service.start(wanted("one", "fail", remove_when=RemoveWhen.DONE, key="k"))
    with pytest.raises(BaseExceptionGroup) as ended:
        async with first.at_work():
            await first.settled(batch)
            await anyio.sleep(30)  # It ends long before.
    assert ended.value.subgroup(Killed) is not None
    second = scene.plane()
    async with second.at_work():
        again = await second.service.start(wanted("one", "fail", remove_when=RemoveWhen.DONE, key="k"))
        assert again.summary.id == batch.summary.id
        done = await second.settled(again)
    assert sorted(scene.world.begun) == ["fail", "one"]
    assert list(scene.world.waker.wakes) == [f"{batch.summary.id}-done"]
    assert [entry.state for entry in done.items] == [ItemState.SUCCEEDED, ItemState.FAILED]
    assert all(entry.removal == "deleted" for entry in done.items)
    assert [entry.said for entry in done.items] == ["Done with one. Really.", "Done with fail. Really."]
    assert scene.world.there == {}
    for entry in done.items:
        kept = await second.service.result(ReadBatchItem(id=batch.summary.id, number=entry.number))
        assert kept.log == b"log of it"


async def test_the_kills_are_at_every_step(scene: Scene) -> None:
    passed: list[str] = []
    plane = scene.plane(passed.append)
    async with plane.at_work():
        await plane.settled(await plane.service.start(wanted("one", "fail", remove_when=RemoveWhen.DONE)))
    assert sorted(passed) == sorted([*OF_AN_ITEM, *OF_AN_ITEM, *OF_THE_BATCH])


async def test_so_many_at_once(plane: Plane) -> None:
    batch = wanted("sleep-1", "sleep-2", "sleep-3", "sleep-4", parallel=2, remove_when=RemoveWhen.DONE)
    async with plane.at_work():
        started = await plane.service.start(batch)
        await plane.eventually(lambda: len(plane.world.begun) == 2)
        await anyio.sleep(0.05)
        assert plane.world.begun == ["sleep-1", "sleep-2"]
        assert [entry.state for entry in await plane.entries(started)][2:] == [ItemState.PENDING] * 2
        plane.world.ends("pr-sleep-2")
        await plane.eventually(lambda: len(plane.world.begun) == 3)
        for name in ("pr-sleep-1", "pr-sleep-3"):
            plane.world.ends(name)
        await plane.eventually(lambda: len(plane.world.begun) == 4)
        plane.world.ends("pr-sleep-4", TaskState.FAILED)
        assert (await plane.settled(started)).summary.counts == {"succeeded": 3, "failed": 1}
    assert plane.world.most == 2


async def test_a_question_wakes_at_once_and_an_end_does_not(plane: Plane) -> None:
    async with plane.at_work():
        started = await plane.service.start(wanted("wait", "one"))
        await plane.eventually(lambda: len(plane.world.waker.wakes) == 1)
        assert "May it?" in next(iter(plane.world.waker.wakes.values()))
        plane.world.ends("pr-wait")
        await plane.settled(started)
    assert [id_.partition("-waiting")[1] for id_ in plane.world.waker.wakes] == ["-waiting", ""]


@pytest.mark.parametrize(
    ("more", "wakes"), [({"wake_each": True}, 3), ({"wake": WakeWhen.NONE, "wake_each": True}, 0), ({}, 1)]
)
async def test_who_is_woken(plane: Plane, more: dict[str, object], wakes: int) -> None:
    async with plane.at_work():
        await plane.settled(await plane.service.start(wanted("one", "fail", **more)))
        assert len(plane.world.waker.wakes) == wakes


async def test_a_wake_that_is_not_taken_is_tried_again(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    plane.world.waker.fails = 3
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one")))
    assert list(plane.world.waker.wakes) == [done.summary.wake_id]


async def test_cancelling(plane: Plane) -> None:
    async with plane.at_work():
        started = await plane.service.start(
            wanted("one", "sleep-1", "sleep-2", parallel=2, remove_when=RemoveWhen.DONE)
        )
        await plane.eventually(lambda: len(plane.world.begun) == 3)
        await plane.service.cancel(started.summary.id)
        done = await plane.settled(started)
        again = await plane.service.cancel(started.summary.id)
    assert again.summary == done.summary
    assert done.summary.state is BatchState.CANCELLED
    assert done.summary.counts == {"succeeded": 1, "cancelled": 2}
    assert plane.world.there == {}


async def test_an_item_whose_workspace_somebody_stops_has_failed_and_the_others_go_on(plane: Plane) -> None:
    async with plane.at_work():
        started = await plane.service.start(wanted("sleep", "two", parallel=1, remove_when=RemoveWhen.DONE))
        await plane.eventually(lambda: plane.world.begun == ["sleep"])
        plane.world.stops("pr-sleep")
        done = await plane.settled(started)
    assert done.summary.counts == {"failed": 1, "succeeded": 1}
    first = done.items[0]
    assert first.reason is not None and "'pr-sleep' was stopped" in first.reason and "perry start" in first.reason
    assert first.removal == "kept: what it left could not all be read: “The workspace 'pr-sleep' is stopped.”"
    assert list(plane.world.there) == ["pr-sleep"]


async def test_cancelling_what_has_not_begun(scene: Scene) -> None:
    plane = scene.plane()
    started = await plane.service.start(wanted("one", "two"))
    await plane.service.cancel(started.summary.id)
    async with plane.at_work():
        done = await plane.settled(started)
    assert done.summary.counts == {"cancelled": 2} and plane.world.begun == []
    (text,) = plane.world.waker.wakes.values()
    assert "was cancelled" in text


async def test_a_workspace_is_one_batchs_at_a_time(plane: Plane) -> None:
    started = await plane.service.start(wanted("one", "two"))
    with pytest.raises(Conflict, match=f"'pr-two' is at work for the batch {started.summary.id}"):
        await plane.service.start(wanted("two", "three"))
    async with plane.at_work():
        await plane.settled(started)
        for name in ("pr-one", "pr-two"):
            del plane.world.there[name]
        await plane.service.start(wanted("two", "three"))


async def test_nothing_begins_where_anything_is_wrong(plane: Plane) -> None:
    with pytest.raises(InvalidInput):
        await plane.service.start(wanted("one", "$(two)"))
    assert (await plane.service.list(ListBatches())).items == []


async def test_waiting_tells_of_each_change(plane: Plane) -> None:
    async with plane.at_work():
        started = await plane.service.start(wanted("sleep"))
        id_, mark, states = started.summary.id, None, []
        while True:
            watched = await plane.service.wait(WaitForBatch(id=id_, mark=mark))
            assert watched.mark != mark
            mark = watched.mark
            states.append(watched.batch.items[0].state)
            if watched.done:
                break
            if states[-1] is ItemState.RUNNING and len(states) < 5:
                unchanged = await plane.service.wait(WaitForBatch(id=id_, mark=mark, timeout=0.02))
                assert not unchanged.done and unchanged.mark == mark
                plane.world.ends("pr-sleep")
        await plane.settled(started)
    assert states[-1] is ItemState.SUCCEEDED and ItemState.RUNNING in states


async def test_lists_have_pages(plane: Plane) -> None:
    ids = [(await plane.service.start(wanted(item))).summary.id for item in "abc"]
    page = await plane.service.list(ListBatches(limit=2))
    rest = await plane.service.list(ListBatches(limit=2, cursor=page.next_cursor))
    assert [each.id for each in (*page.items, *rest.items)] == ids[::-1]
    assert rest.next_cursor is None


async def test_a_list_counts_as_the_batch_itself_does(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    async with plane.at_work():
        started = await plane.service.start(wanted("one", "fail", "sleep", "wait", parallel=3))
        await plane.eventually(lambda: "sleep" in plane.world.begun)
        (going,) = (await plane.service.list(ListBatches())).items
        assert going.counts == (await plane.service.get(started.summary.id)).summary.counts
        await plane.service.cancel(started.summary.id)
        done = await plane.settled(started)
        monkeypatch.setattr(plane.driver, "entries", None)
        (listed,) = (await plane.service.list(ListBatches())).items
    assert listed.counts == done.summary.counts and sum(listed.counts.values()) == 4


@pytest.mark.parametrize(
    "ask",
    [
        lambda plane: plane.service.get("b-000000000000"),
        lambda plane: plane.service.cancel("b-000000000000"),
        lambda plane: plane.service.wait(WaitForBatch(id="b-000000000000")),
    ],
)
async def test_a_batch_that_is_not_there(plane: Plane, ask: Callable[[Plane], object]) -> None:
    with pytest.raises(NotFound, match="perry batches list"):
        await ask(plane)  # type: ignore[misc]
