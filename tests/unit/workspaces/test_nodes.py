"""How often the tailnet is asked who is on it."""

import pytest

from controlplane.errors import Conflict
from controlplane.ports import Node
from protocol.workspaces import StartWorkspace
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio


@pytest.fixture
def asked(lives: Agent, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of the tailnet."""
    said: list[str] = []
    nodes, node = lives.tailnet.nodes, lives.tailnet.node

    async def nodes_noted() -> list[Node]:
        said.append("nodes")
        return await nodes()

    async def node_noted(node_id: str) -> Node | None:
        said.append("node")
        return await node(node_id)

    monkeypatch.setattr(lives.tailnet, "nodes", nodes_noted)
    monkeypatch.setattr(lives.tailnet, "node", node_noted)
    return said


async def test_many_looks_at_many_workspaces_are_one_question(agent: Agent, asked: list[str]) -> None:
    for name in ("alpha", "beta", "gamma"):
        await agent.workspaces.start(StartWorkspace(name=name))
    assert asked == ["nodes"]
    await agent.nodes.now()
    asked.clear()
    await agent.settle()
    await agent.settle()
    assert asked == []


async def test_all_that_have_come_since_are_one_question(agent: Agent, asked: list[str]) -> None:
    for name in ("alpha", "beta", "gamma"):
        await agent.workspaces.start(StartWorkspace(name=name))
    asked.clear()
    # What is known of the tailnet is of before the first of them joined.
    await agent.settle()
    assert asked == ["nodes"]
    node = agent.store.get("beta")
    assert node is not None and node.node_id is not None
    await agent.tailnet.delete_node(node.node_id)
    await agent.nodes.now()
    asked.clear()
    # One that is gone is asked for by itself before anything is done about it.
    await agent.settle()
    assert asked[:2] == ["nodes", "node"]


async def test_a_name_that_was_taken_lately_and_is_free_now_can_be_used(agent: Agent) -> None:
    key = await agent.tailnet.mint_device_key()
    device = agent.tailnet.joined("alpha", key.secret)
    assert device is not None
    with pytest.raises(Conflict, match="device of your tailnet"):
        await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.tailnet.delete_node(device.id)
    await agent.workspaces.start(StartWorkspace(name="alpha"))
