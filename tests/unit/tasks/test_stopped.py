"""Tasks whose workspace somebody stops, deletes, or makes anew under its name."""

import anyio
import msgspec
import pytest

from controlplane.db import Database
from controlplane.errors import EngineUnavailable
from protocol.tasks import RemoveWhen, TaskState
from protocol.workspaces import DeleteWorkspace, Workspace, WorkspaceStatus
from tests.unit.tasks.conftest import Scene, workspace
from tests.waiting import until


def stop(scene: Scene, name: str) -> None:
    """As a person does it: the stream breaks, then everybody hears of it."""
    if name in scene.workers.links:
        scene.workers.detach(name)
    scene.workspaces.there[name] = workspace(name, WorkspaceStatus.STOPPED)
    scene.workspaces.stopped.add(name)
    scene.dispatcher.workspace_changed(scene.workspaces.there[name])


async def away(name: str) -> Workspace:
    raise EngineUnavailable("Docker does not answer.")


async def test_a_task_whose_workspace_is_stopped_has_failed(scene: Scene) -> None:
    scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        stop(scene, "alpha")
        ended = await scene.settled(task.id)
        again = scene.running("alpha")
        scene.workspaces.stopped.clear()
        again.tell(task.id, TaskState.FAILED, reason="The workspace stopped while the task was running.")
        await until(lambda: again.forgotten() == [task.id], "the worker may forget it")
    assert ended.state is TaskState.FAILED
    assert ended.reason is not None and "'alpha' was stopped" in ended.reason and "perry start alpha" in ended.reason
    assert scene.store.get(task.id) is not None and (await scene.service.get(task.id)).reason == ended.reason
    (text,) = scene.waker.wakes.values()
    assert "has failed" in text and "perry start alpha" in text


async def test_it_frees_its_place(database: Database) -> None:
    scene = Scene(database, parallel=1)
    scene.running("alpha")
    beta = scene.running("beta")
    async with scene.at_work():
        first = await scene.dispatch("alpha")
        await scene.until(first.id, TaskState.RUNNING)
        second = await scene.dispatch("beta")
        stop(scene, "alpha")
        await scene.until(second.id, TaskState.RUNNING)
    assert [each.id for each in beta.begun()] == [second.id]


async def test_a_question_dies_with_its_workspace(scene: Scene) -> None:
    worker = scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        worker.tell(task.id, TaskState.WAITING, reason="May it?")
        await scene.eventually(lambda: f"{task.id}-waiting-1" in scene.waker.wakes)
        stop(scene, "alpha")
        assert (await scene.settled(task.id)).state is TaskState.FAILED


async def test_one_that_only_restarts_goes_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a look at it falls into the moment in which its container does not run."""
    monkeypatch.setattr("controlplane.tasks.dispatcher.RETRY_SECONDS", 0.01)
    scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        scene.workers.detach("alpha")
        scene.workspaces.there["alpha"] = workspace("alpha", WorkspaceStatus.STOPPED)
        scene.dispatcher.workspace_changed(scene.workspaces.there["alpha"])
        await anyio.sleep(0.05)
        assert (await scene.service.get(task.id)).state is TaskState.RUNNING
        scene.workspaces.there["alpha"] = workspace("alpha")
        again = scene.workers.attach("alpha", resumed=True)
        again.tell(task.id, TaskState.SUCCEEDED)
        assert (await scene.settled(task.id)).state is TaskState.SUCCEEDED


@pytest.mark.parametrize(("gone", "state"), [(False, TaskState.FAILED), (True, TaskState.LOST)])
async def test_a_control_plane_that_was_away_finds_it_out(database: Database, gone: bool, state: TaskState) -> None:
    before = Scene(database)
    before.running("alpha")
    async with before.at_work():
        task = await before.dispatch()
        await before.until(task.id, TaskState.RUNNING)
    after = Scene(database)
    if not gone:
        after.workspaces.there["alpha"] = workspace("alpha", WorkspaceStatus.STOPPED)
        after.workspaces.stopped.add("alpha")
    async with after.at_work():
        assert (await after.settled(task.id)).state is state


async def test_one_that_is_stopped_before_the_task_began_says_so_at_once(scene: Scene) -> None:
    scene.workspaces.there["alpha"] = workspace("alpha")  # Its worker is not there yet.
    async with scene.at_work():
        task = await scene.dispatch()
        await anyio.sleep(0.02)
        stop(scene, "alpha")
        with anyio.fail_after(20):
            ended = await scene.settled(task.id)
    assert (ended.state, ended.started) == (TaskState.FAILED, None) and "stopped" in (ended.reason or "")


@pytest.mark.parametrize(("created", "stays"), [("2020-01-01T00:00:00Z", False), ("2999-01-01T00:00:00Z", True)])
async def test_only_the_workspace_that_it_was_dispatched_to_goes(scene: Scene, created: str, stays: bool) -> None:
    scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch(remove_when=RemoveWhen.DONE)
        await scene.until(task.id, TaskState.RUNNING)
        if stays:
            await scene.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
            scene.running("alpha")
        else:
            scene.workers.links["alpha"].tell(task.id, TaskState.SUCCEEDED)
        scene.workspaces.there["alpha"] = msgspec.structs.replace(workspace("alpha"), created=created)
        task = await scene.settled(task.id)
    assert task.removal == ("kept: somebody has made it since" if stays else "deleted")
    assert ("alpha" in scene.workspaces.there) is stays


@pytest.mark.parametrize("tasks", [1, 2])
async def test_the_workspace_that_was_made_for_it_or_for_another_goes(scene: Scene, tasks: int) -> None:
    async with scene.at_work():
        for number in range(tasks):
            task = await scene.dispatch("beta", create=True, remove_when=RemoveWhen.DONE)
            await scene.until(task.id, TaskState.RUNNING)
            if number + 1 < tasks:
                scene.workers.links["beta"].tell(task.id, TaskState.SUCCEEDED)
                scene.workspaces.unsaved.add("beta")
                assert "work that would be lost" in ((await scene.settled(task.id)).removal or "")
                scene.workspaces.unsaved.clear()
        scene.workspaces.there["beta"] = msgspec.structs.replace(workspace("beta"), created="2999-01-01T00:00:00Z")
        scene.workers.links["beta"].tell(task.id, TaskState.SUCCEEDED)
        assert (await scene.settled(task.id)).removal == "deleted"


async def test_what_was_left_goes_with_its_workspace_and_that_is_said(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while Docker is away."""
    scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        stop(scene, "alpha")
        await scene.settled(task.id)
        stopped = (await scene.service.result(task.id)).unknown
        await scene.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
        monkeypatch.setattr(scene.workspaces, "get", away)
        gone = (await scene.service.result(task.id)).unknown
    assert stopped is not None and "not there" in stopped
    assert gone == "The workspace 'alpha' is gone, and with it what was left there."
