"""What a workspace says when it has booted, and what is made of it."""

import pytest

from controlplane.workspaces import startup
from controlplane.workspaces.greeting import GREETING, LINES_READ, host_key
from protocol.workspaces import StartWorkspace, WorkspaceStatus
from tests.fakes.engine import FakeContainer
from tests.fakes.pods import HOST_KEY
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio

KEY = " ".join(HOST_KEY.decode().split()[:2])


async def test_its_host_key_is_known_without_running_anything_in_it(agent: Agent) -> None:
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert workspace.ssh_host_keys == [KEY]
    assert not any("cat" in command for command in agent.pods.commands)


@pytest.mark.parametrize("says", [(), ("hello",) * LINES_READ, (f"{GREETING}none",)])
async def test_one_that_does_not_greet_is_asked(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, says: tuple[str, ...]
) -> None:
    monkeypatch.setattr(startup, "GREETING_SECONDS", 0.01)
    agent.pods.workspace_greets = False
    started = agent.engine.on_start

    def talk(container: FakeContainer) -> None:
        started(container)
        if container.spec.name == "workspace-alpha":
            for line in says:
                container.say(line)

    agent.engine.on_start = talk
    workspace = await agent.workspaces.start(StartWorkspace(name="alpha"))
    assert (workspace.status, workspace.ssh_host_keys) == (WorkspaceStatus.RUNNING, [KEY])


@pytest.mark.parametrize("text", ["", "ssh-ed25519", "ssh-ed25519 ../../x", "@cert-authority * x", "ssh-ed25519 A\tB"])
def test_what_is_no_key_is_none(text: str) -> None:
    assert host_key(text) is None


def test_a_key_is_taken_without_its_comment() -> None:
    assert host_key("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA alpha\n") == "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"
