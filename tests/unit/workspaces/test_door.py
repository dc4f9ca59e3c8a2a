"""The password of a workspace's OpenCode server: who is given it, and what is shown of the door that says it."""

import re
from pathlib import Path

import msgspec
import pytest

from controlplane.workers.secrets import WorkerSecrets
from controlplane.workspaces.sidecars import SidecarStatus, shown
from protocol.workspaces import StartWorkspace, TailnetState
from tests.unit.workspaces.conftest import Agent

RUNNING = SidecarStatus(border=True, state="running", hostname="alpha", ips=("100.64.0.3",), tun=True, online=True)
TAKEN = "A program in the workspace has port 4096; have it listen on another port."


def test_it_is_each_workspaces_own_and_stays(tmp_path: Path) -> None:
    secrets = WorkerSecrets(tmp_path / "key")
    password = secrets.opencode("alpha")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", password)
    assert password == WorkerSecrets(tmp_path / "key").opencode("alpha")
    assert len({password, secrets.opencode("beta"), secrets.of("alpha")}) == 3


@pytest.mark.anyio
async def test_sidecars_are_handed_it_at_each_start_and_a_key_where_there_is_one(agent: Agent) -> None:
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    await agent.workspaces.stop("alpha")
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    first, second = agent.pods.handovers
    assert first.pop("authKey")
    assert first == second == {"openCodePassword": "of alpha"}


def test_a_door_that_is_shut_is_said_where_nothing_worse_is() -> None:
    def error(**fields: object) -> str | None:
        return shown("alpha", msgspec.structs.replace(RUNNING, **fields), joins=True, runs=True).error

    assert error() is None
    assert error(door=TAKEN) == TAKEN
    assert error(door=TAKEN, error="The coordinator does not answer.") == "The coordinator does not answer."
    assert "/dev/net/tun" in str(error(tun=False))
    assert shown("alpha", RUNNING, joins=True, runs=True).status is TailnetState.ONLINE
