"""``kill -9`` of the control plane at every step of creation and of deletion, on real Docker and a real tailnet."""

import json
import time

import httpx
import pytest

from controlplane.ports import WORKSPACE_TAG
from protocol.workspaces import TailnetState, Workspace, WorkspaceStatus
from tests.e2e.system import System, docker, eventually

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(1500)]

MOST_CHECKPOINTS = 25


def is_whole(system: System) -> bool:
    found = system.call("workspaces.list")
    return bool(found) and found[0]["status"] == WorkspaceStatus.RUNNING and found[0]["tailnet"]["status"] == "online"


def life(system: System, procedure: str, value: dict[str, object], kill_at: int) -> bool:
    """One life with a request in it; whether it was killed."""
    system.stop()
    system.start("tests.e2e.killed", str(kill_at))
    try:
        answer = system.raw(procedure, value, seconds=90)
    except httpx.TransportError:
        assert system.process is not None
        system.process.wait(timeout=10)
        return True
    assert answer.status_code == 200, answer.text
    time.sleep(0.5)
    return system.process is not None and system.process.poll() is not None


def nodes(system: System) -> list[str]:
    """Names of the workspaces' nodes on the tailnet."""
    return [node["name"] for node in system.call("tailnet.status")["nodes"] if WORKSPACE_TAG in node["tags"]]


def unused_keys(system: System) -> int:
    """Keys of workspaces that could still enrol a node, in the coordinator's own words."""
    headscale = ["headscale", "-c", "/var/lib/headscale/config.yaml"]
    listed = docker("exec", f"{system.instance}-coordinator", *headscale, "preauthkeys", "list", "-o", "json")
    return sum(
        1 for key in json.loads(listed) or [] if WORKSPACE_TAG in (key.get("acl_tags") or ()) and not key.get("used")
    )


def test_killed_at_every_step_of_creation_and_deletion(system: System) -> None:
    clean = system.objects()
    creations = deletions = 0
    for kill_at in range(1, MOST_CHECKPOINTS):
        killed = life(system, "workspaces.start", {"name": "walked"}, kill_at)
        system.stop()
        system.start()
        try:
            eventually(lambda: is_whole(system), f"whole after a kill at {kill_at} of creation", seconds=60)
        except AssertionError as exc:
            raise AssertionError(f"{exc}: {system.call('workspaces.list')} {system.log()[-6000:]}") from exc
        assert len(docker("ps", "-q", "--filter", f"label=perry.instance={system.instance}",
                          "--filter", "label=perry.workspace=walked").split()) == 3  # fmt: skip
        assert nodes(system) == ["walked"], f"after a kill at {kill_at} of creation"
        assert unused_keys(system) == 0, f"after a kill at {kill_at} of creation"
        if killed:
            creations += 1
        deleted = life(system, "workspaces.delete", {"name": "walked", "force": True}, kill_at)
        system.stop()
        system.start()
        eventually(lambda: system.objects() == clean, f"gone after a kill at {kill_at} of deletion", seconds=60)
        eventually(
            lambda: nodes(system) == [] and unused_keys(system) == 0,
            f"no node, no key after a kill at {kill_at} of deletion",
            seconds=45,
        )
        eventually(lambda: system.call("workspaces.list") == [], f"not listed after a kill at {kill_at} of deletion")
        if deleted:
            deletions += 1
        if not killed and not deleted:
            break
    else:
        pytest.fail("there are more checkpoints than this test walks")
    assert creations >= 8 and deletions >= 8
    workspace: Workspace = system.start_workspace("after")
    assert workspace.tailnet.status is TailnetState.ONLINE
