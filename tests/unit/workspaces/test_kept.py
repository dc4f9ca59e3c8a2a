"""What is installed in a workspace outlives its container, where that has to be made anew."""

import pytest

from protocol.workspaces import DeleteWorkspace, StartWorkspace, WorkspaceStatus
from tests.unit.workspaces.conftest import Agent
from tests.unit.workspaces.test_reconciler import _life

pytestmark = pytest.mark.anyio

KEPT = "workspace-alpha:kept"


async def test_with_the_sandbox_gone_it_goes_on_from_what_it_had(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    first = agent.engine.by_name["workspace-alpha"]
    await agent.engine.remove_container("workspace-alpha.net")
    await agent.settle()
    second = agent.engine.by_name["workspace-alpha"]
    assert second.running and second.id != first.id
    assert second.spec.image == KEPT
    assert second.spec.labels["perry.spec"] == first.spec.labels["perry.spec"]
    labels = agent.engine.image_labels[KEPT]
    assert (labels["perry.workspace"], labels["perry.instance"], labels["perry.claim"]) == ("alpha", "perry", "")
    await agent.settle()
    assert agent.engine.by_name["workspace-alpha"].id == second.id


async def test_other_limits_keep_it_and_another_image_does_not(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    await agent.workspaces.start(StartWorkspace(name="alpha", pids=77))
    limited = agent.engine.by_name["workspace-alpha"].spec
    assert (limited.pids, limited.image) == (77, KEPT)
    await agent.workspaces.stop("alpha")
    after = await agent.workspaces.start(StartWorkspace(name="alpha", image="own:1"))
    assert (after.image, agent.engine.by_name["workspace-alpha"].spec.image) == ("own:1", "own:1")
    assert KEPT not in agent.engine.images


async def test_a_new_workspace_of_that_name_gets_nothing_of_it(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.engine.remove_container("workspace-alpha.net")
    await agent.settle()
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    assert KEPT not in agent.engine.images
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert agent.engine.by_name["workspace-alpha"].spec.image == "perry/workspace-base:latest"


@pytest.mark.parametrize("part", ["", ".net", ".tailnet"])
async def test_what_docker_never_starts_again_is_made_anew(agent: Agent, part: str) -> None:
    before = await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    agent.engine.stuck = {agent.engine.by_name[f"workspace-alpha{part}"].id}
    after = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert (after.status, after.ssh_host_keys, after.error) == (WorkspaceStatus.RUNNING, before.ssh_host_keys, None)
    assert agent.engine.stuck.isdisjoint(container.id for container in agent.engine.by_name.values())
    kept = agent.engine.by_name["workspace-alpha"].spec.image == KEPT
    assert kept is (part != ".tailnet")


@pytest.mark.parametrize("kill_at", range(1, 8))
async def test_killed_on_the_way_it_is_kept_all_the_same(lives: Agent, kill_at: int) -> None:
    await _life(lives, kill_at=None, doing="start")
    await lives.engine.remove_container("workspace-alpha.net")
    await _life(lives, kill_at=kill_at, doing="settle")
    passed = await _life(lives, kill_at=None, doing="settle")
    assert lives.engine.by_name["workspace-alpha"].spec.image == KEPT, passed
    assert all(container.running for container in lives.engine.by_name.values())


async def test_the_walk_above_covers_what_is_between(lives: Agent) -> None:
    await _life(lives, kill_at=None, doing="start")
    await lives.engine.remove_container("workspace-alpha.net")
    passed = await _life(lives, kill_at=None, doing="settle")
    assert {"installed things kept", "workspace to be made anew removed"} <= set(passed[:7])
