"""What only the embedded tailnet promises: on the real engine, with the real headscale and stock clients."""

import json
import logging
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.adapters.tailnet.headscale_api import API_KEY_PREFIX
from controlplane.adapters.tailnet.placement import own_address
from controlplane.errors import TailnetUnavailable
from tests.contract.tailnet.bench import EmbeddedBench

pytestmark = [pytest.mark.anyio, pytest.mark.tailnet]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[EmbeddedBench]:
    it = EmbeddedBench(tmp_path)
    try:
        yield it
    finally:
        await it.close()


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout + done.stderr


async def test_secrets_stay_in_one_file_and_the_container_may_little(
    bench: EmbeddedBench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await bench.tailnet.ensure()
    minted = await bench.tailnet.mint_workspace_key()
    file = bench.folder / "api-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(bench.folder.stat().st_mode) == 0o700
    inspected = docker("inspect", bench.coordinator)
    seen = inspected + docker("logs", bench.coordinator) + docker("top", bench.coordinator) + caplog.text
    for secret in (file.read_text().strip(), minted.secret):
        assert len(secret) > 40 and secret not in seen
    (shown,) = json.loads(inspected)
    host = shown["HostConfig"]
    assert shown["Config"]["User"] == "65532:65532"
    assert (
        host["CapDrop"] == ["ALL"]
        and not host["CapAdd"]
        and host["ReadonlyRootfs"]
        and host["Binds"] == [f"{bench.coordinator}:/var/lib/headscale"]
    )
    assert host["Memory"] and host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"]["Config"]["max-size"]


async def test_a_new_control_plane_finds_it_as_it_is(bench: EmbeddedBench) -> None:
    await bench.tailnet.ensure()
    before = await bench.engine.inspect(bench.coordinator)
    again = bench.another()
    await again.ensure()
    assert await again.unused_keys() == []
    await again.close()
    after = await bench.engine.inspect(bench.coordinator)
    assert before is not None and after is not None and (before.id, before.started) == (after.id, after.started)


async def test_a_refused_api_key_is_made_anew(bench: EmbeddedBench) -> None:
    await bench.tailnet.ensure()
    file = bench.folder / "api-key"
    first = file.read_text()
    prefix = first.removeprefix("hskey-api-")[:API_KEY_PREFIX]
    expire = ["headscale", "-c", "/var/lib/headscale/config.yaml", "apikeys", "expire", f"--prefix={prefix}"]
    output = await bench.engine.exec(bench.coordinator, expire, user="65532")
    assert output.exit_code == 0, output
    assert (await bench.tailnet.mint_workspace_key()).secret
    second = file.read_text()
    assert second != first
    file.write_text("no-key-at-all\n")
    again = bench.another()
    assert await again.nodes() == []
    await again.close()
    assert file.read_text() not in (first, second, "no-key-at-all\n")


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_a_port_that_is_taken_is_named_with_its_setting(bench: EmbeddedBench, kind: int) -> None:
    with socket.socket(type=kind) as taken:
        taken.bind((own_address() or "", bench.port))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        with pytest.raises(TailnetUnavailable, match=rf"port {bench.port} of .* is taken.*set tailnet\.port"):
            await bench.tailnet.ensure()
        assert not (await bench.tailnet.info()).ready
    await bench.tailnet.ensure()


async def test_nodes_outlive_the_coordinators_death(bench: EmbeddedBench) -> None:
    await bench.tailnet.ensure()
    assert await bench.join("alpha", (await bench.tailnet.mint_workspace_key()).secret)
    before = await bench.node("alpha")
    for _ in range(2):
        # The second within two minutes of the first, which strands clients that do not know a private address.
        docker("kill", "--signal", "KILL", bench.coordinator)
        await bench.tailnet.ensure()
        assert await bench.node("alpha") == before


async def test_devices_come_by_the_machines_own_address_and_are_relayed(bench: EmbeddedBench) -> None:
    await bench.tailnet.ensure()
    url = (await bench.tailnet.info()).control_url
    assert url == f"http://{own_address()}:{bench.port}" != bench.tailnet.control_url
    key = await bench.tailnet.mint_device_key()
    assert await bench.join("laptop", key.secret, url=url, relayed=True)
    assert await bench.join("alpha", (await bench.tailnet.mint_workspace_key()).secret)
    laptop = await bench.container_of("laptop")
    check = "tailscale netcheck; tailscale ping --c 1 --until-direct=false alpha"
    output = await bench.engine.exec(laptop, ["timeout", "30", "sh", "-c", check])
    assert b"UDP: true" in output.stdout + output.stderr, output
    assert b"via DERP(perry)" in output.stdout, output


async def test_the_address_may_change(bench: EmbeddedBench) -> None:
    await bench.tailnet.ensure()
    assert await bench.join("alpha", (await bench.tailnet.mint_workspace_key()).secret)
    before = await bench.node("alpha")
    private = str(bench.tailnet.control_url).split("//")[1].split(":")[0]
    moved = bench.another(private)
    await moved.ensure()
    assert moved.control_url == bench.tailnet.control_url == (await moved.info()).control_url
    assert (await moved.info()).warning is None
    await bench.tailnet.close()
    bench.tailnet = moved
    assert await bench.node("alpha") == before


async def test_a_lost_volume_is_said_until_a_device_is_back(bench: EmbeddedBench) -> None:
    await bench.tailnet.ensure()
    assert await bench.join("laptop", (await bench.tailnet.mint_device_key()).secret)
    await bench.engine.remove_container(bench.coordinator)
    await bench.engine.remove_volume(bench.coordinator)
    await bench.tailnet.ensure()
    assert await bench.tailnet.nodes() == []
    info = await bench.tailnet.info()
    assert info.ready and "made anew" in str(info.warning) and "`perry tailnet join`" in str(info.warning)
    again = bench.another()
    assert (await again.info()).warning == info.warning, "a new control plane says it too"
    await again.close()
    assert await bench.join("laptop", (await bench.tailnet.mint_device_key()).secret)
    await bench.node("laptop")
    assert (await bench.tailnet.info()).warning is None


async def test_the_policy_that_is_shipped(bench: EmbeddedBench) -> None:
    await bench.tailnet.ensure()
    for name in ("alpha", "beta"):
        assert await bench.join(name, (await bench.tailnet.mint_workspace_key()).secret)
    for name in ("laptop", "desktop"):
        assert await bench.join(name, (await bench.tailnet.mint_device_key()).secret)
    containers = {name: await bench.container_of(name) for name in ("alpha", "beta", "laptop", "desktop")}
    for container in containers.values():
        serve = "setsid socat TCP-LISTEN:3000,fork,reuseaddr EXEC:'echo hello' </dev/null >/dev/null 2>&1 &"
        assert await bench.run(container, serve) == 0

    async def reaches(source: str, target: str) -> bool:
        address = (await bench.node(target)).ips[0]
        script = f"socat -T3 - TCP:{address}:3000,connect-timeout=3 </dev/null | grep -q hello"
        return await bench.run(containers[source], script) == 0

    assert await reaches("laptop", "alpha")
    assert await reaches("laptop", "desktop")
    assert await reaches("alpha", "beta")
    assert not await reaches("alpha", "laptop")
