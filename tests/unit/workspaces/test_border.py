"""Nothing is in a pod's network before its border stands, and a one-time key is minted once."""

import anyio
import anyio.lowlevel
import pytest

from controlplane.errors import StepFailed
from controlplane.workspaces.pods import BORDER_STANDS
from protocol.workspaces import DeleteWorkspace, StartWorkspace, StepStatus, TailnetState, WorkspaceStatus
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio

WANTED = StartWorkspace(name="alpha", wait=False)


async def until_the_border_is_waited_for(agent: Agent) -> None:
    await agent.workspaces.start(WANTED)
    with anyio.fail_after(10):
        while True:
            startup = (await agent.workspaces.get("alpha")).startup
            assert startup is not None
            if any(step.id == "border" and step.status is StepStatus.RUNNING for step in startup.steps):
                return
            await anyio.lowlevel.checkpoint()


async def test_what_joins_waits_for_it(agent: Agent) -> None:
    agent.pods.sandbox_guards = False
    await until_the_border_is_waited_for(agent)
    await anyio.wait_all_tasks_blocked()
    assert [name for name, each in agent.engine.by_name.items() if each.started] == ["workspace-alpha.net"]
    agent.engine.by_name["workspace-alpha.net"].say("something else")
    await anyio.wait_all_tasks_blocked()
    assert not agent.engine.by_name["workspace-alpha"].started
    agent.engine.by_name["workspace-alpha.net"].say(BORDER_STANDS)
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert workspace.status is WorkspaceStatus.RUNNING and workspace.tailnet.status is TailnetState.ONLINE


async def test_without_it_there_is_no_workspace_and_the_step_says_so(agent: Agent) -> None:
    agent.pods.sandbox_guards = False
    await until_the_border_is_waited_for(agent)
    await anyio.wait_all_tasks_blocked()
    await agent.engine.stop("workspace-alpha.net")
    with pytest.raises(StepFailed, match=r"docker logs workspace-alpha\.net"):
        await agent.workspaces.start(StartWorkspace(name="alpha"))
    startup = (await agent.workspaces.get("alpha")).startup
    assert startup is not None
    assert {step.id: step.status for step in startup.steps}["border"] is StepStatus.FAILED
    assert not agent.engine.by_name["workspace-alpha"].started
    # The key that nobody used goes with the workspace.
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    assert await agent.tailnet.unused_keys() == []


async def test_a_start_that_begins_again_uses_the_key_that_it_has(agent: Agent) -> None:
    minted: list[str] = []
    agent.checkpoint = minted.append
    agent.engine.taken_ports = {22001}
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert workspace.ports.ssh == 22002 and workspace.tailnet.status is TailnetState.ONLINE
    assert minted.count("key minted") == 1 and len(agent.pods.handovers) == 1


async def test_a_start_that_the_end_of_the_control_plane_breaks_off_goes_on_with_the_next(lives: Agent) -> None:
    lives.build()
    lives.pods.sandbox_guards = False
    async with anyio.create_task_group() as tasks:
        lives.jobs.run_in(tasks)
        lives.sidecars.run_in(tasks)
        await until_the_border_is_waited_for(lives)
        tasks.cancel_scope.cancel()
    record = lives.store.get("alpha")
    assert record is not None and record.starting
    lives.engine.by_name["workspace-alpha.net"].say(BORDER_STANDS)
    lives.build()
    async with anyio.create_task_group() as tasks:
        lives.jobs.run_in(tasks)
        lives.sidecars.run_in(tasks)
        await lives.settle()
        workspace = await lives.workspaces.get("alpha")
        tasks.cancel_scope.cancel()
    assert workspace.status is WorkspaceStatus.RUNNING and workspace.tailnet.status is TailnetState.ONLINE
    assert await lives.tailnet.unused_keys() == []


async def test_a_start_that_is_stopped_is_no_longer_under_way(agent: Agent) -> None:
    agent.pods.sandbox_guards = False
    await until_the_border_is_waited_for(agent)
    workspace = await agent.workspaces.stop("alpha")
    assert workspace.status is WorkspaceStatus.STOPPED
    record = agent.store.get("alpha")
    assert record is not None and not record.starting
