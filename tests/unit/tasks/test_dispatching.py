"""What is looked at when a task is dispatched, and what is left to its turn."""

from controlplane.db import Database
from controlplane.errors import EngineUnavailable
from protocol.tasks import TaskState
from protocol.workspaces import Workspace
from tests.unit.tasks.conftest import Scene

CLONE = "https://example.com/you/one.git"


async def test_while_docker_is_away_tasks_are_taken(scene: Scene) -> None:
    """They wait for it: with what runs there, and where a repository is to be the right one."""

    async def away(name: str) -> Workspace:
        scene.workspaces.must_exist(name)
        raise EngineUnavailable("Docker does not answer.")

    scene.running("alpha")
    get, scene.workspaces.get = scene.workspaces.get, away  # type: ignore[method-assign]
    plain = await scene.dispatch()
    with_clone = await scene.dispatch("beta", create=True, clone=CLONE)
    there = await scene.dispatch("alpha", create=True, clone=CLONE)
    scene.workspaces.get = get  # type: ignore[method-assign]
    async with scene.at_work():
        await scene.until(plain.id, TaskState.RUNNING)
        await scene.until(with_clone.id, TaskState.RUNNING)
    assert (await scene.service.get(there.id)).workspace == "alpha"


async def test_a_key_that_was_used_gives_its_task_whatever_has_become_of_the_workspace(scene: Scene) -> None:
    scene.running("alpha")
    first = await scene.dispatch(key="k")
    made = await scene.dispatch("beta", create=True, clone=CLONE, key="made")
    del scene.workspaces.there["alpha"]
    scene.running("beta")  # Without that repository.
    assert (await scene.dispatch(key="k")).id == first.id
    assert (await scene.dispatch("beta", create=True, clone=CLONE, key="made")).id == made.id


async def test_of_two_that_make_a_workspace_of_another_repository_each_the_second_does_nothing(
    database: Database,
) -> None:
    scene = Scene(database, per_workspace=1)
    clones = (CLONE, "https://example.com/you/two.git", "git@example.com:you/one", None)
    tasks = [await scene.dispatch("beta", create=True, clone=clone) for clone in clones]
    states = []
    async with scene.at_work():
        for task in tasks:
            begun = await scene.until(task.id, TaskState.RUNNING, TaskState.FAILED)
            states.append(begun.state)
            scene.workers.links["beta"].tell(task.id, TaskState.SUCCEEDED)
    assert states == [TaskState.RUNNING, TaskState.FAILED, TaskState.RUNNING, TaskState.RUNNING]
    refused = await scene.service.get(tasks[1].id)
    assert refused.reason is not None and "'beta' exists already, with https://example.com/you/one" in refused.reason
