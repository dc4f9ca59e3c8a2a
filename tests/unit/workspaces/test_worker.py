"""The worker's step of a start: beside the others, and no reason for a workspace not to run."""

import pytest

from controlplane.errors import StepFailed
from protocol.worker import SECRET_FILE
from protocol.workspaces import StartWorkspace, StepStatus, WorkerState, WorkspaceStatus, WorkspaceWorker
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio


async def test_it_is_attended_with_its_secret_and_its_pods_address(agent: Agent) -> None:
    started = await agent.workspaces.start(StartWorkspace(name="alpha"))
    sandbox = agent.engine.by_name["workspace-alpha.net"].state()
    assert sandbox.address is not None
    assert agent.worker_keeper.attended == [("alpha", sandbox.address)]
    assert agent.engine.by_name["workspace-alpha"].files[SECRET_FILE] == b"secret of alpha"
    assert started.startup is not None
    assert {step.id: step.status for step in started.startup.steps}["worker"] is StepStatus.DONE


async def test_without_one_the_workspace_runs_and_says_why(agent: Agent) -> None:
    agent.worker_keeper.failing = StepFailed("There is no image perry/worker to take it from.")
    with pytest.raises(StepFailed, match="no image perry/worker"):
        await agent.workspaces.start(StartWorkspace(name="alpha"))
    alpha = await agent.workspaces.get("alpha")
    assert alpha.status is WorkspaceStatus.RUNNING and alpha.startup is not None
    step = next(step for step in alpha.startup.steps if step.id == "worker")
    assert (step.status, step.detail) == (StepStatus.FAILED, "There is no image perry/worker to take it from.")


async def test_how_it_stands_is_shown(agent: Agent) -> None:
    agent.worker_keeper.workers["alpha"] = shown = WorkspaceWorker(state=WorkerState.CONNECTED, version="1")
    assert (await agent.workspaces.start(StartWorkspace(name="alpha"))).worker == shown
