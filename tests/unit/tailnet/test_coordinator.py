"""The container of the embedded coordinator, on a fake engine."""

import pytest

from controlplane.adapters.tailnet.coordinator import Coordinator
from tests.e2e.system import free_port
from tests.fakes.engine import FakeEngine
from tests.fakes.machine import FakeMachine

pytestmark = pytest.mark.anyio


async def test_one_that_docker_never_starts_again_is_made_anew_and_its_volume_stays() -> None:
    image = "perry/headscale:latest"
    engine = FakeEngine([image])
    coordinator = Coordinator(
        engine,
        FakeMachine(),
        instance="t",
        image=image,
        address="perry.example",
        port=free_port(),
        domain="perry.internal",
    )
    assert await coordinator.run()
    first = engine.by_name["t-coordinator"]
    volumes = dict(engine.volume_labels)
    await engine.stop("t-coordinator")
    engine.stuck = {first.id}
    assert await coordinator.run()
    second = engine.by_name["t-coordinator"]
    assert second.running and second.id != first.id
    assert any(path.endswith("config.yaml") for path in second.files)
    assert engine.volume_labels == volumes
