"""Credentials before the clone, scripts after it, and a failure of either is a failed step of a workspace that runs."""

import pytest

from controlplane.errors import StepFailed
from protocol.workspaces import StartWorkspace, StepStatus, Workspace, WorkspaceStatus
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio


def statuses(workspace: Workspace) -> dict[str, StepStatus]:
    assert workspace.startup is not None
    return {step.id: step.status for step in workspace.startup.steps}


async def test_credentials_come_before_the_clone_and_scripts_after_it(agent: Agent) -> None:
    agent.provisions.has_scripts = True
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha", clone="https://example.com/a.git"))
    assert agent.provisions.order == ["bring", "prepare"]
    assert [step for step in statuses(workspace) if step in ("credentials", "clone", "scripts")] == [
        "credentials",
        "clone",
        "scripts",
    ]
    assert statuses(workspace)["scripts"] is StepStatus.DONE


async def test_without_scripts_the_step_is_skipped(agent: Agent) -> None:
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert statuses(workspace)["scripts"] is StepStatus.SKIPPED


@pytest.mark.parametrize(("what", "step"), [("bring", "credentials"), ("prepare", "scripts")])
async def test_a_failure_is_said_and_the_workspace_runs_with_its_clone(agent: Agent, what: str, step: str) -> None:
    agent.provisions.failing[what] = StepFailed("~/x does not exist; make it.")
    with pytest.raises(StepFailed, match="does not exist"):
        await agent.workspaces.start(StartWorkspace(name="alpha", clone="https://example.com/a.git"))
    workspace = await agent.workspaces.get("alpha")
    assert workspace.status is WorkspaceStatus.RUNNING
    assert statuses(workspace)[step] is StepStatus.FAILED
    assert statuses(workspace)["clone"] is StepStatus.DONE
