"""A machine without /dev/net/tun: workspaces join all the same, by the sidecar's own network stack, and say so."""

from collections.abc import Iterator

import pytest

from protocol.workspaces import TailnetState, Workspace
from tests.e2e.system import Device, System, eventually, running
from tests.e2e.test_reach import SERVER, serve

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(300)]

WITHOUT_TUN = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
"""Runs a command for which this machine has no /dev/net/tun."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    yield from running(tmp_path_factory.mktemp("agent"), prefix=WITHOUT_TUN)


@pytest.fixture(scope="module")
def alpha(system: System) -> Workspace:
    return system.start_workspace("alpha", docker=False)


@pytest.fixture(scope="module")
def laptop(system: System, alpha: Workspace) -> Device:
    device = system.device("laptop")
    device.join_as_owner()
    device.knows(alpha)
    return device


def test_it_is_on_the_tailnet_and_says_what_is_missing(alpha: Workspace) -> None:
    assert alpha.tailnet.status is TailnetState.ONLINE
    assert alpha.tailnet.error is not None and "modprobe tun" in alpha.tailnet.error


def test_its_ports_are_reached_by_name(system: System, laptop: Device) -> None:
    serve(system, "alpha", SERVER)
    eventually(
        lambda: laptop.run("curl", "-sf", "-m", "5", "-o", "/dev/null", "http://alpha:3000/", check=False)[0] == 0,
        "http on port 3000",
    )


def test_what_listens_on_loopback_alone_is_not_reached(system: System, laptop: Device) -> None:
    serve(system, "alpha", SERVER.replace("('', 3000)", "('127.0.0.1', 3001)"))
    listening = ("curl", "-sf", "-m", "5", "-o", "/dev/null")
    eventually(
        lambda: (
            system.call("workspaces.exec", {"name": "alpha", "command": [*listening, "http://127.0.0.1:3001/"]})[
                "exitCode"
            ]
            == 0
        ),
        "a server on loopback",
    )
    assert laptop.run(*listening, "http://alpha:3001/", check=False)[0] != 0


def test_ssh_needs_a_key_here(system: System, laptop: Device) -> None:
    code, output = laptop.ssh("workspace@alpha", "true", check=False)
    assert code == 255 and "Permission denied" in output
    laptop.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
    key = laptop.run("cat", "/root/.ssh/id_ed25519.pub")[1].strip()
    system.inside("alpha", "sh", "-c", 'mkdir -p ~/.ssh && echo "$0" >> ~/.ssh/authorized_keys', key)
    assert laptop.ssh("workspace@alpha", "hostname")[1].strip() == "alpha"


def test_the_way_to_others_is_a_proxy(system: System, alpha: Workspace) -> None:
    system.start_workspace("beta", docker=False)
    serve(system, "beta", SERVER)
    through = ["curl", "-sf", "-m", "5", "-o", "/dev/null", "-x", "socks5h://127.0.0.1:1055", "http://beta:3000/"]
    eventually(
        lambda: system.call("workspaces.exec", {"name": "alpha", "command": through})["exitCode"] == 0,
        "alpha reaches beta through the sidecar's proxy",
    )
