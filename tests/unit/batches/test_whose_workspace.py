"""Which workspaces a batch takes for its own, and which of these go."""

import anyio
import pytest

from controlplane.errors import Conflict, EngineUnavailable
from protocol.batches import (
    ItemState,
)
from protocol.tasks import DispatchTask, RemoveWhen, TaskState
from protocol.workspaces import DeleteWorkspace, StartWorkspace, Workspace
from tests.unit.batches.conftest import Killed, Plane, Scene, wanted
from tests.waiting import until


async def test_a_workspace_stays_until_its_task_is_done_with(plane: Plane) -> None:
    plane.world.waker.fails = 1 << 30
    async with plane.at_work():
        started = await plane.service.start(wanted("one", wake_each=True, remove_when=RemoveWhen.DONE))
        await plane.eventually(lambda: plane.world.begun == ["one"])
        await anyio.sleep(0.05)
        (entry,) = await plane.entries(started)
        assert (entry.state, entry.done) == (ItemState.SUCCEEDED, False) and "pr-one" in plane.world.there
        plane.world.waker.fails = 0
        plane.dispatcher.nudge()
        assert (await plane.settled(started)).items[0].removal == "deleted"


async def test_work_that_is_nowhere_else_stays(plane: Plane) -> None:
    plane.world.unsaved.add("pr-one")
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", "two", remove_when=RemoveWhen.DONE)))
    assert [entry.removal for entry in done.items] == ["kept: 'pr-one' has work that would be lost.", "deleted"]
    assert list(plane.world.there) == ["pr-one"]
    (text,) = plane.world.waker.wakes.values()
    assert "Workspaces that were to go, and stay:\n- pr-one: “kept: 'pr-one' has work" in text


async def test_what_was_there_before_is_used_only_when_asked_for_and_never_removed(plane: Plane) -> None:
    plane.world.has("pr-one")
    with pytest.raises(Conflict, match=r"'pr-one' is there already.*--reuse"):
        await plane.service.start(wanted("one", "two"))
    assert [each.exists for each in (await plane.service.plan(wanted("one", "two"))).items] == [True, False]
    async with plane.at_work():
        batch = wanted("one", "two", reuse=True, remove_when=RemoveWhen.DONE)
        done = await plane.settled(await plane.service.start(batch))
    assert [entry.removal for entry in done.items] == ["kept: it was there before the batch", "deleted"]
    assert list(plane.world.there) == ["pr-one"]


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("reuse", [False, True])
async def test_what_a_person_made_meanwhile_is_theirs(scene: Scene, reuse: bool, queued: bool) -> None:
    """Before the item's turn in its batch has come, or the turn of its task among all tasks."""
    plane = scene.plane(parallel=1)
    async with plane.at_work():
        batch = wanted("sleep", "two", parallel=1 + queued, reuse=reuse, remove_when=RemoveWhen.DONE)
        started = await plane.service.start(batch)
        await plane.eventually(lambda: plane.world.begun == ["sleep"])
        if queued:
            await plane.eventually(lambda: plane.store.items(started.summary.id)[1].task is not None)
        plane.world.has("pr-two")
        plane.world.ends("pr-sleep")
        done = await plane.settled(started)
    assert list(plane.world.there) == ["pr-two"] and plane.world.deleted == ["pr-sleep"]
    two = done.items[1]
    assert two.removal == "kept: somebody else made it"
    assert plane.world.begun == (["sleep", "two"] if reuse else ["sleep"])
    if reuse:
        assert two.state is ItemState.SUCCEEDED
    else:
        assert two.state is ItemState.FAILED
        assert two.reason is not None and "'pr-two'" in two.reason and "--reuse" in two.reason


async def test_what_a_person_makes_in_that_very_moment_is_theirs(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    create = plane.world.create

    async def late(wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        plane.world.has(wanted.name)
        return await create(wanted, made_for=made_for)

    monkeypatch.setattr(plane.world, "create", late)
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one", remove_when=RemoveWhen.DONE)))
    assert "--reuse" in (done.items[0].reason or "") and list(plane.world.there) == ["pr-one"]


async def test_what_is_made_anew_under_its_name_stays(plane: Plane) -> None:
    """A person deletes an item's workspace, and makes one of their own of that name at once."""
    plane.world.waker.fails = 1 << 30  # So that the item is not done with before.
    async with plane.at_work():
        started = await plane.service.start(wanted("sleep", wake_each=True, remove_when=RemoveWhen.DONE))
        await plane.eventually(lambda: plane.world.begun == ["sleep"])
        await plane.world.delete(DeleteWorkspace(name="pr-sleep", force=True))
        plane.world.has("pr-sleep")
        plane.world.waker.fails = 0
        plane.dispatcher.nudge()
        done = await plane.settled(started)
    assert (done.items[0].state, done.items[0].removal) == (ItemState.LOST, "kept: somebody else made it")
    assert list(plane.world.there) == ["pr-sleep"]


async def test_what_its_own_task_made_is_not_taken_for_a_persons(scene: Scene) -> None:
    """As where a control plane ended while an item's workspace was being made."""

    async def ends(*_: object, **__: object) -> None:
        raise Killed

    first = scene.plane()
    started = await first.service.start(wanted("one", remove_when=RemoveWhen.DONE))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(BaseExceptionGroup):
        patch.setattr(first.dispatcher, "_await_link", ends)
        async with first.at_work():
            await anyio.sleep(30)
    assert list(scene.world.there) == ["pr-one"]
    plane = scene.plane()
    async with plane.at_work():
        (entry,) = (await plane.settled(started)).items
    assert (entry.state, entry.removal) == (ItemState.SUCCEEDED, "deleted")


async def test_where_docker_does_not_answer_the_item_waits(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can say then whose the workspace is."""
    monkeypatch.setattr("controlplane.tasks.dispatcher.RETRY_SECONDS", 0.01)
    get, failures = plane.world.get, [EngineUnavailable("Docker does not answer.")]

    async def fails(name: str) -> Workspace:
        if failures:
            raise failures.pop()
        return await get(name)

    monkeypatch.setattr(plane.world, "get", fails)
    async with plane.at_work():
        done = await plane.settled(await plane.service.start(wanted("one")))
    assert done.summary.counts == {"succeeded": 1} and not failures


async def test_other_tasks_keep_a_workspace(plane: Plane) -> None:
    async with plane.at_work():
        started = await plane.service.start(wanted("sleep", remove_when=RemoveWhen.DONE))
        await plane.eventually(lambda: plane.world.begun == ["sleep"])
        mine = next(iter(plane.world.tasks["pr-sleep"]))
        await plane.tasks.dispatch(DispatchTask(workspace="pr-sleep", task="sleep on"))
        await until(lambda: len(plane.world.tasks["pr-sleep"]) == 2, "the other task has begun")
        plane.world.tell("pr-sleep", mine, TaskState.SUCCEEDED)
        done = await plane.settled(started)
    assert done.items[0].removal == "kept: 1 other task is not done"


async def test_a_workspace_that_is_deleted_meanwhile_is_lost_and_the_others_go_on(plane: Plane) -> None:
    async with plane.at_work():
        started = await plane.service.start(wanted("sleep", "two", remove_when=RemoveWhen.DONE))
        await plane.eventually(lambda: "sleep" in plane.world.begun)
        await plane.world.delete(DeleteWorkspace(name="pr-sleep", force=True))
        done = await plane.settled(started)
    assert [entry.state for entry in done.items] == [ItemState.LOST, ItemState.SUCCEEDED]
    assert done.items[0].removal == "deleted"
