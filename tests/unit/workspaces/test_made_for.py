"""For whom a workspace was made, and whether it was stopped: what tasks and batches have to know of it."""

import anyio
import pytest

from controlplane.errors import Conflict, EngineError, NotFound
from protocol.workspaces import CloneWorkspace, DeleteWorkspace, StartWorkspace
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio

TASK = "t-0123456789ab"


class Killed(BaseException):
    """The control plane ends."""


async def test_for_whom_it_was_made_is_known(agent: Agent) -> None:
    await agent.workspaces.create(StartWorkspace(name="alpha"), made_for=TASK)
    await agent.workspaces.stop("alpha")
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert agent.workspaces.made_for("alpha") == TASK
    await agent.workspaces.clone(CloneWorkspace(name="alpha", new="beta"))
    assert agent.workspaces.made_for("beta") is None


async def test_what_a_person_made_stays_a_persons(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.start(StartWorkspace(name="alpha"), made_for=TASK)
    assert agent.workspaces.made_for("alpha") is None
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    with pytest.raises(NotFound):
        agent.workspaces.made_for("alpha")


async def test_it_is_noted_in_one_step_with_the_name(agent: Agent) -> None:
    def ends(name: str) -> None:
        if name == "reserved":
            raise Killed

    agent.checkpoint = ends
    with pytest.raises(Killed):
        await agent.workspaces.create(StartWorkspace(name="alpha"), made_for=TASK)
    assert agent.workspaces.made_for("alpha") == TASK


async def test_of_two_who_make_it_at_once_one_is_told(agent: Agent) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(agent.workspaces.start, StartWorkspace(name="alpha"))
        await anyio.lowlevel.checkpoint()
        with pytest.raises(Conflict, match="exists already"):
            await agent.workspaces.create(StartWorkspace(name="alpha"), made_for=TASK)
    assert agent.workspaces.made_for("alpha") is None


async def test_only_what_somebody_stopped_is_stopped(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    seen = []
    changed = agent.heard.workspace_changed

    def notes(workspace: object) -> None:
        seen.append(agent.workspaces.is_stopped("alpha"))

    agent.heard.workspace_changed = notes  # type: ignore[method-assign]
    await agent.workspaces.restart("alpha")
    await agent.engine.stop("workspace-alpha")
    await agent.settle()
    await agent.workspaces.stop("alpha")
    assert seen and not any(seen)  # While it stops, its last words may come.
    agent.heard.workspace_changed = changed  # type: ignore[method-assign]
    assert agent.workspaces.is_stopped("alpha") and not agent.workspaces.is_stopped("beta")
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert not agent.workspaces.is_stopped("alpha")


async def test_what_docker_did_not_stop_is_not_stopped(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    stop = agent.engine.stop

    async def fails(container: str, seconds: int = 10) -> None:
        raise EngineError(f"Docker could not stop container {container}.")

    agent.engine.stop = fails  # type: ignore[method-assign]
    with pytest.raises(EngineError):
        await agent.workspaces.stop("alpha")
    assert not agent.workspaces.is_stopped("alpha")
    agent.engine.stop = stop  # type: ignore[method-assign]
    await agent.workspaces.stop("alpha")
    assert agent.workspaces.is_stopped("alpha")
