"""Docker stops and comes back under a running system."""

from collections.abc import Iterator

import pytest

from protocol.workspaces import TailnetState, Workspace, WorkspaceStatus
from tests.e2e.private_docker import PrivateDocker, private_docker
from tests.e2e.system import Device, System, eventually

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateDocker]:
    for engine in private_docker(tmp_path_factory.mktemp("docker")):
        engine.load_images()
        yield engine


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, engine: PrivateDocker) -> Iterator[System]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", engine.url)
        system = System(tmp_path_factory.mktemp("agent"), host=engine.address, prefix=engine.prefix)
        try:
            system.start()
            yield system
        finally:
            system.remove()


def is_back(system: System, before: Workspace) -> bool:
    answer = system.raw("workspaces.get", {"name": before.name}, seconds=20)
    if answer.status_code != 200:
        return False
    now = system.workspace(before.name)
    return now.status is WorkspaceStatus.RUNNING and now.tailnet.status is TailnetState.ONLINE


@pytest.fixture(scope="module")
def before(system: System) -> Workspace:
    workspace = system.start_workspace("alpha")
    assert workspace.tailnet.status is TailnetState.ONLINE, workspace
    return workspace


@pytest.fixture(scope="module")
def laptop(system: System, before: Workspace) -> Device:
    device = system.device("laptop")
    device.join_as_owner()
    device.knows(before)
    return device


def test_a_workspace_comes_back_with_docker(
    system: System, engine: PrivateDocker, before: Workspace, laptop: Device
) -> None:
    laptop.ssh("workspace@alpha", "echo kept > ~/kept")
    engine.stop()
    listed = system.raw("workspaces.list", seconds=20)
    assert listed.status_code == 503 and "Docker does not answer" in listed.json()["json"]["message"]
    engine.start()
    eventually(lambda: is_back(system, before), "the workspace is back", seconds=90)
    after = system.workspace("alpha")
    assert (after.tailnet.ips, after.ssh_host_keys, after.ports) == (
        before.tailnet.ips,
        before.ssh_host_keys,
        before.ports,
    )
    laptop.start()
    eventually(
        lambda: laptop.ssh("workspace@alpha", "cat ~/kept", check=False) == (0, "kept\n"),
        "ssh again",
        seconds=60,
    )
