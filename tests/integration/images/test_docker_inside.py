"""Docker in a workspace: it runs, builds, resolves names, survives, and does not hold up a stop."""

import anyio
import pytest

from tests.integration.images.conftest import BRIDGE_SUBNET, Container, Lab

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

IDLE_SUBNET = "10.251.213.16/28"
OWN_SUBNET = "10.251.213.32/28"

# An image of a few programs of the workspace itself: nothing has to be fetched.
MINIMAL = r"""
set -eu
rm -rf /tmp/root; mkdir -p /tmp/root/bin /tmp/root/tmp; cd /
for program in dash cat getent sleep ip; do
    path=$(command -v $program)
    cp -L "$path" /tmp/root/bin/
    ldd "$path" | grep -o '/[^ ]*' | xargs cp -L --parents -t /tmp/root
done
mv /tmp/root/bin/dash /tmp/root/bin/sh
mkdir -p /tmp/root/etc; echo 'hosts: files dns' >/tmp/root/etc/nsswitch.conf
tar -C /tmp/root -c . | docker import - minimal
"""


@pytest.fixture(scope="module")
async def workspace(lab: Lab) -> Container:
    network = await lab.network("docker", BRIDGE_SUBNET)
    workspace = await lab.workspace("inside", network=network, docker=True)
    await workspace.until("docker info >/dev/null 2>&1", seconds=30)
    await workspace.out(MINIMAL)
    return workspace


async def test_it_comes_with_its_first_client_who_just_waits(lab: Lab) -> None:
    network = await lab.network("idle", IDLE_SUBNET)
    idle = await lab.workspace("idle", network=network, docker=True)
    await idle.until("test -S /run/docker.sock && pgrep -x on-demand && pgrep -f 'sshd: /usr/sbin/sshd'")
    assert await idle.out("stat -c '%a %U %G' /run/docker.sock") == "660 root docker"
    assert (await idle.run("pgrep -x dockerd || pgrep -x containerd")).exit_code != 0
    assert await idle.out("docker info --format '{{.Driver}}'", user="workspace") == "overlay2"
    assert (await idle.run("pgrep -x on-demand")).exit_code != 0, "it became dockerd"


async def test_settings_of_ones_own_take_its_place(lab: Lab) -> None:
    network = await lab.network("own", OWN_SUBNET)
    own = await lab.workspace("own", network=network, docker=True)
    await own.put(
        "/etc/docker/daemon.json", '{"hosts": ["unix:///run/mine.sock"], "data-root": "/var/lib/docker/mine"}'
    )
    await own.until("s6-svok /run/perry-services/dockerd")
    await own.out("s6-svc -r /run/perry-services/dockerd")
    await own.until("docker --host unix:///run/mine.sock info >/dev/null 2>&1", seconds=40)


async def test_the_person_uses_it_without_sudo(workspace: Container) -> None:
    assert await workspace.out("docker run --rm minimal sh -c 'echo hello'", user="workspace") == "hello"


async def test_its_storage_is_overlay2_and_its_socket_local(workspace: Container) -> None:
    assert await workspace.out("docker info --format '{{.Driver}}'") == "overlay2"
    assert "dockerd" not in await workspace.out("ss -ltnp")


@pytest.mark.parametrize("buildkit", ["0", "1"])
async def test_it_builds(workspace: Container, buildkit: str) -> None:
    await workspace.out(
        "mkdir -p /tmp/build; cd /tmp/build; printf 'FROM minimal\\nRUN echo made >/made\\n' >Dockerfile; "
        f"DOCKER_BUILDKIT={buildkit} docker build --quiet --tag built{buildkit} . 2>/dev/null"
    )
    assert await workspace.out(f"docker run --rm built{buildkit} cat /made") == "made"


@pytest.mark.parametrize("network", ["bridge", "custom"])
async def test_nested_containers_resolve_what_the_workspace_resolves(workspace: Container, network: str) -> None:
    """Its own name is one that only the outer Docker's resolver knows, as a tailnet's are known to the stub alone."""
    if network == "custom":
        await workspace.out("docker network inspect custom >/dev/null 2>&1 || docker network create custom")
    address = await workspace.out(f"getent ahostsv4 {workspace.name} | head -1 | cut -d' ' -f1")
    shown = await workspace.out(f"docker run --rm --network {network} minimal getent ahostsv4 {workspace.name}")
    assert shown.split()[0] == address


async def test_its_addresses_stay_clear_of_pods_tailnet_and_outer_docker(workspace: Container) -> None:
    await workspace.out("docker network inspect custom >/dev/null 2>&1 || docker network create custom")
    subnets = await workspace.out("docker network inspect bridge custom --format '{{(index .IPAM.Config 0).Subnet}}'")
    assert all(subnet.startswith(("10.222.", "10.223.")) for subnet in subnets.splitlines())


async def test_limits_on_nested_containers_work(workspace: Container) -> None:
    shown = await workspace.out("docker run --rm --memory 64m --cpus 0.5 minimal sh -c 'echo limited'")
    assert shown == "limited"


async def test_it_comes_back_when_killed(workspace: Container) -> None:
    before = await workspace.out("pgrep -x dockerd")
    await workspace.out(f"kill -9 {before}")
    await workspace.until(f"docker info >/dev/null 2>&1 && [ $(pgrep -x dockerd) != {before} ]", seconds=40)
    assert await workspace.out("docker run --rm minimal sh -c 'echo again'") == "again"


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_stop_is_under_five_seconds_and_a_start_brings_all_back(workspace: Container, how: str) -> None:
    engine = workspace.engine
    await workspace.out("docker rm -f stubborn >/dev/null 2>&1; true")
    await workspace.out(
        "docker run -d --restart always --name stubborn minimal sh -c 'trap : TERM; while :; do sleep 1; done'"
    )
    await workspace.until("docker exec stubborn cat /proc/1/comm")
    began = anyio.current_time()
    if how == "stop":
        await engine.stop(workspace.name, seconds=10)
        assert anyio.current_time() - began < 5
        state = await engine.inspect(workspace.name)
        assert state is not None
        assert state.exit_code == 0
    else:
        await engine.signal(workspace.name, "SIGKILL")
        with anyio.fail_after(10):
            while (state := await engine.inspect(workspace.name)) and state.running:  # noqa: ASYNC110 (polling is what the port offers)
                await anyio.sleep(0.1)
    await engine.start(workspace.name)
    await workspace.until("docker exec stubborn cat /proc/1/comm 2>/dev/null", seconds=40)
    assert await workspace.out("docker run --rm minimal sh -c 'echo back'") == "back"
    await workspace.until("pgrep -x crond && pgrep -f 'sshd: /usr/sbin/sshd'")
