"""What a person reads when a real build fails, and the device image."""

import re
from collections.abc import AsyncIterator

import anyio
import pytest

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.adapters.docker_engine.images import DockerImages
from controlplane.errors import EngineError, EngineOutOfSpace, EngineUnavailable
from controlplane.images.plan import SourceFile
from controlplane.images.sources import pack
from tests.integration.images.conftest import Container, Lab

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

TAG = "perry-test/failing:latest"


@pytest.fixture
async def builder() -> AsyncIterator[DockerImages]:
    engine = DockerEngine()
    try:
        yield DockerImages(engine.docker)
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("said", "kind", "meaning"),
    [
        ("E: Unable to locate package x", EngineError, "Debian's packages could not be installed"),
        ("Temporary failure resolving 'mirror'", EngineError, "names do not resolve inside Docker builds"),
        ("npm error code SELF_SIGNED_CERT_IN_CHAIN", EngineError, "a TLS certificate is not trusted"),
        ("npm error code E404", EngineError, "a package of npm or PyPI could not be installed"),
        ("write /x: no space left on device", EngineOutOfSpace, "No disk space is left"),
        ("something quite new", EngineError, "Its last words: something quite new"),
    ],
)
async def test_a_failed_build_says_what_it_means(
    lab: Lab, builder: DockerImages, said: str, kind: type[EngineError], meaning: str
) -> None:
    dockerfile = f'FROM perry/base:latest\nRUN echo "{said}"; exit 7\n'
    with pytest.raises(kind, match=re.escape(meaning)) as caught:
        await builder.build(
            TAG,
            pack([SourceFile("Dockerfile", dockerfile.encode())], {}),
            args={},
            labels={},
            no_cache=True,
            line=lambda _: None,
        )
    assert "\n" not in caught.value.message
    assert await builder.image(TAG) is None


async def test_an_engine_that_is_away_is_told() -> None:
    engine = DockerEngine("unix:///nonexistent/docker.sock")
    try:
        with pytest.raises(EngineUnavailable, match="Docker does not answer"):
            await DockerImages(engine.docker).image("perry/base:latest")
    finally:
        await engine.close()


async def test_base_trusts_what_the_machine_trusts(lab: Lab, builder: DockerImages) -> None:
    state = await builder.image("perry/base:latest")
    assert state is not None
    assert state.labels["perry.origin"] in ("registry", "debian-packages")
    assert len(state.labels["perry.source"]) == 32
    assert state.size < 150e6


async def test_the_image_is_within_its_bound(lab: Lab, builder: DockerImages) -> None:
    state = await builder.image("perry/workspace-base:latest")
    assert state is not None
    assert state.size <= 2.5e9


async def test_the_device_runs_a_stock_client(lab: Lab) -> None:
    device: Container = await lab.device("device")
    with anyio.fail_after(20):
        shown = await device.until("tailscale status 2>&1 | grep -i 'logged out'", seconds=15)
    assert "Logged out" in shown
    for program in ("ssh", "scp", "curl", "dig", "iperf3", "socat", "jq"):
        await device.out(f"command -v {program}")
    began = anyio.current_time()
    await lab.engine.stop(device.name)
    assert anyio.current_time() - began < 5
