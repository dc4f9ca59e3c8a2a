"""One tailnet is exchanged for another: its ids mean something within it alone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from protocol.workspaces import DeleteWorkspace, StartWorkspace, WorkspaceStatus
from tests.fakes.tailnet import FakeTailnet
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def on(agent: Agent, tailnet: FakeTailnet) -> AsyncIterator[None]:
    """A life of the control plane with this tailnet."""
    agent.tailnet = tailnet
    agent.pods.use(tailnet)
    agent.build()
    async with anyio.create_task_group() as tasks:
        agent.jobs.run_in(tasks)
        agent.sidecars.run_in(tasks)
        yield
        tasks.cancel_scope.cancel()


async def test_what_runs_on_stays_where_it_is_until_its_next_start(agent: Agent) -> None:
    old, new = agent.tailnet, FakeTailnet("other")
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    (left,) = await old.nodes()
    foreign = new.joined("beta", (await new.mint_workspace_key()).secret, node_id=left.id)
    async with on(agent, new):
        await agent.settle()
        record = agent.store.get("alpha")
        assert record is not None and (record.tailnet, record.node_id) == (old.identity, left.id)
        await agent.workspaces.start(StartWorkspace(name="alpha"))
        record = agent.store.get("alpha")
        assert record is not None and record.tailnet == "other" and record.node_id not in (None, left.id)
        await agent.settle()
        await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
        await agent.settle()
        assert await new.nodes() == [foreign], "the one with the old id is another's"
        assert await old.nodes() == [left], "nobody can ask the old one now"
    async with on(agent, old):
        await agent.settle()
        assert await old.nodes() == [] and agent.store.leftovers() == []


async def test_it_may_come_back_under_its_own_name(agent: Agent) -> None:
    old, new = agent.tailnet, FakeTailnet("other")
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    async with on(agent, new):
        await agent.workspaces.start(StartWorkspace(name="alpha"))
    async with on(agent, old):
        await agent.settle()
        await agent.workspaces.start(StartWorkspace(name="alpha"))
        assert [node.name for node in await old.nodes()] == ["alpha"]
        assert (await agent.workspaces.get("alpha")).status is WorkspaceStatus.RUNNING
    async with on(agent, new):
        await agent.settle()
        assert await new.nodes() == []


async def test_with_a_credential_that_cannot_look_nothing_is_asked(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    agent.tailnet.manages = False
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.settle()
    assert (await agent.workspaces.get("alpha")).status is WorkspaceStatus.RUNNING
    assert "alpha" not in caplog.text
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))
    assert [kind for kind, _ in agent.store.leftovers()] == ["node"], "one that can will delete it"
    agent.tailnet.manages = True
    await agent.settle()
    assert await agent.tailnet.nodes() == [] and agent.store.leftovers() == []


async def test_a_node_of_a_deleted_workspace_goes_although_another_has_its_name(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    (own,) = await agent.tailnet.nodes()
    old = agent.tailnet.joined("alpha", (await agent.tailnet.mint_workspace_key()).secret)
    assert old is not None and old.name == "alpha-1"
    agent.store.forget("deleted", nodes=[old.id], keys=[])
    await agent.settle()
    assert await agent.tailnet.nodes() == [own] and agent.store.leftovers() == []


async def test_a_node_that_may_be_a_workspaces_own_is_left_until_that_is_known(agent: Agent) -> None:
    """A coordinator that lost its memory gave an old id to a workspace that is not recorded yet."""
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    (own,) = await agent.tailnet.nodes()
    agent.store.set_node("alpha", None)
    agent.store.forget("deleted", nodes=[own.id], keys=[])
    await agent.leftovers.clear()
    assert agent.store.leftovers() == [("node", own.id)]
    await agent.settle()
    assert await agent.tailnet.nodes() == [own] and agent.store.leftovers() == []
