"""What ended long ago is forgotten, and nothing else."""

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from controlplane.batches.retention import Retention
from controlplane.errors import NotFound
from protocol.batches import ListBatches
from protocol.tasks import DispatchTask, ListTasks, TaskAgent
from tests.unit.batches.conftest import Killed, Plane, Scene, wanted
from tests.waiting import until

DAY = timedelta(days=1)


def retention(scene: Scene, plane: Plane, *, later: timedelta) -> Retention:
    """One that keeps for ninety days, so much later."""
    return Retention(
        plane.store,
        scene.tasks,
        plane.collector,
        keep=90 * DAY,
        now=lambda: datetime.now(UTC) + later,
    )


async def ends(*_: object) -> None:
    raise Killed


async def test_what_ended_long_ago_goes_whole(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.batches.retention.AT_ONCE", 2)
    plane = scene.plane()
    async with plane.at_work():
        for number in range(3):
            await plane.settled(await plane.service.start(wanted(f"a{number}", f"b{number}")))
        alone = await plane.tasks.dispatch(DispatchTask(workspace="pr-a0", task="x", agent=TaskAgent.COMMAND))
        await until(lambda: plane.tasks.is_settled(alone.id), "it is done with")
        assert len(list(scene.folder.iterdir())) == 3
        await retention(scene, plane, later=89 * DAY).forget_old()
        assert len((await plane.service.list(ListBatches())).items) == 3
        assert len((await plane.tasks.list(ListTasks())).items) == 7
        await retention(scene, plane, later=91 * DAY).forget_old()
    assert (await plane.service.list(ListBatches())).items == []
    assert (await plane.tasks.list(ListTasks())).items == []
    assert list(scene.folder.iterdir()) == []
    with pytest.raises(NotFound):
        await plane.tasks.get(alone.id)


async def test_files_go_before_what_names_them(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane that ends in between goes on with them."""
    plane = scene.plane()
    async with plane.at_work():
        await plane.settled(await plane.service.start(wanted("one")))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(plane.collector, "forget", ends)
        await retention(scene, plane, later=91 * DAY).forget_old()
    assert len((await plane.service.list(ListBatches())).items) == 1
    await retention(scene, plane, later=91 * DAY).forget_old()
    assert (await plane.service.list(ListBatches())).items == [] and list(scene.folder.iterdir()) == []


async def test_nothing_goes_before_the_clock_may_have_been_set(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    plane = scene.plane()
    async with plane.at_work():
        await plane.settled(await plane.service.start(wanted("one")))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(retention(scene, plane, later=91 * DAY).run)
        await anyio.wait_all_tasks_blocked()
        assert len(plane.store.page(before=None, limit=9)) == 1
        monkeypatch.setattr("controlplane.batches.retention.FIRST_SECONDS", 0.0)
        tasks.start_soon(retention(scene, plane, later=91 * DAY).run)
        await until(lambda: not plane.store.page(before=None, limit=9), "it is forgotten")
        tasks.cancel_scope.cancel()


async def test_what_goes_on_stays_with_all_that_belongs_to_it(scene: Scene) -> None:
    """However long ago one of its items ended, or somebody could not be told of it."""
    plane = scene.plane()
    async with plane.at_work():
        going = await plane.service.start(wanted("one", "sleep"))
        await plane.eventually(lambda: [item.settled for item in plane.store.items(going.summary.id)] == [True, False])
        plane.world.waker.fails = 1 << 30
        untold = await plane.service.start(wanted("two"))
        await plane.eventually(
            lambda: any(each.id == untold.summary.id and each.ended for each in plane.store.unsettled())
        )
        before = [await plane.service.get(each.summary.id) for each in (going, untold)]
        await retention(scene, plane, later=1000 * DAY).forget_old()
        assert [await plane.service.get(each.summary.id) for each in (going, untold)] == before
        assert all(entry.task is not None for each in before for entry in each.items)
