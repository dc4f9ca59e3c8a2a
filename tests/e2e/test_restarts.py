"""After anything restarts: the same name, address, host key and home, and ssh answers again."""

import time

import pytest

from protocol.workspaces import TailnetState, Workspace
from tests.e2e.system import Device, System, docker, eventually

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(400)]


def same_again(system: System, laptop: Device, before: Workspace, *, seconds: float = 60) -> None:
    eventually(
        lambda: laptop.ssh("workspace@alpha", "cat ~/kept", check=False) == (0, "kept\n"), "ssh again", seconds=seconds
    )
    eventually(lambda: system.workspace("alpha").tailnet.status is TailnetState.ONLINE, "online again", seconds=seconds)
    after = system.workspace("alpha")
    assert after.tailnet.ips == before.tailnet.ips
    assert after.tailnet.dns_name == before.tailnet.dns_name
    assert after.ssh_host_keys == before.ssh_host_keys
    assert after.ports == before.ports


@pytest.fixture(autouse=True)
def kept(laptop: Device) -> None:
    laptop.ssh("workspace@alpha", "echo kept > ~/kept")


def test_perry_restart(system: System, laptop: Device, alpha: Workspace) -> None:
    system.call("workspaces.restart", {"name": "alpha"})
    same_again(system, laptop, alpha)


@pytest.mark.parametrize("part", ["", ".tailnet", ".net"])
def test_docker_restart_of_each_container(system: System, laptop: Device, alpha: Workspace, part: str) -> None:
    docker("restart", "-t", "2", system.container("alpha", part))
    same_again(system, laptop, alpha)


def test_the_sandbox_is_removed_and_what_was_installed_stays(system: System, laptop: Device, alpha: Workspace) -> None:
    system.inside("alpha", "sudo", "sh", "-c", "echo '#!/bin/sh' > /usr/local/bin/mine && chmod +x /usr/local/bin/mine")
    docker("rm", "-f", system.container("alpha", ".net"))
    same_again(system, laptop, alpha)
    laptop.ssh("workspace@alpha", "mine")
    shown = docker("inspect", "-f", "{{.Config.Image}}", system.container("alpha"))
    assert shown == f"{system.container('alpha')}:kept"


def test_a_connection_outlives_the_sidecar(system: System, laptop: Device, alpha: Workspace) -> None:
    ticking = "for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 1; done"
    ssh = f"ssh -o BatchMode=yes workspace@alpha '{ticking}' > /tmp/ticks"
    docker("exec", "-d", laptop.container, "sh", "-c", ssh)
    time.sleep(2)
    docker("kill", "-s", "KILL", system.container("alpha", ".tailnet"))
    eventually(
        lambda: laptop.run("cat", "/tmp/ticks")[1].split() == [str(i) for i in range(1, 11)], "all ticks", seconds=40
    )
    same_again(system, laptop, alpha)


def test_the_agent_restarts(system: System, laptop: Device, alpha: Workspace) -> None:
    system.stop()
    laptop.ssh("workspace@alpha", "true")
    system.start()
    same_again(system, laptop, alpha)


def test_the_coordinator_restarts_and_is_away(system: System, laptop: Device, alpha: Workspace) -> None:
    coordinator = f"{system.instance}-coordinator"
    docker("stop", "-t", "2", coordinator)
    laptop.ssh("workspace@alpha", "true")
    docker("restart", "-t", "2", system.container("alpha", ".tailnet"))
    docker("start", coordinator)
    same_again(system, laptop, alpha)
