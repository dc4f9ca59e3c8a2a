"""One contract for every tailnet that is joined, and for its fake. The real one needs Docker and Perry's images."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.adapters.tailnet import NoTailnet
from controlplane.errors import NotReady, TailnetUnavailable
from controlplane.ports import Tailnet
from tests.contract.tailnet.bench import Bench, EmbeddedBench, FakeBench, HeadscaleBench, TailscaleBench

pytestmark = pytest.mark.anyio


BENCHES: dict[str, Callable[[Path], Bench]] = {
    "fake": lambda folder: FakeBench(),
    "tailscale": TailscaleBench,
    "embedded": EmbeddedBench,
    "headscale": HeadscaleBench,
}


@pytest.fixture(
    params=["fake", "tailscale", *(pytest.param(each, marks=pytest.mark.tailnet) for each in ("embedded", "headscale"))]
)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    it = BENCHES[request.param](tmp_path)
    try:
        await it.start()
        await it.tailnet.ensure()
        yield it
    finally:
        await it.close()


async def test_it_is_brought_up_and_says_how_it_stands(bench: Bench) -> None:
    await bench.tailnet.ensure()
    info = await bench.tailnet.info()
    assert bench.tailnet.joins
    assert info.ready and info.error is None and info.warning is None
    assert info.provider == bench.tailnet.provider and info.control_url != ""
    assert await bench.tailnet.nodes() == []
    assert bench.tailnet.manages and bench.tailnet.identity.startswith(bench.tailnet.provider)
    assert await bench.unused_keys([]) == []
    if not bench.is_perrys:
        assert info.owners == () and info.credential and info.credential.endswith(f"(in {bench.file})")


async def test_a_workspace_joins_once_with_its_key(bench: Bench) -> None:
    key = await bench.tailnet.mint_workspace_key()
    assert key.expires is not None
    assert abs(key.expires - datetime.now(UTC) - timedelta(minutes=10)) < timedelta(seconds=30)
    assert key.secret not in repr(key)
    assert await bench.unused_keys([key.id]) == [key.id]
    assert await bench.join("alpha", key.secret)
    node = await bench.node("alpha")
    assert node.tags == ("tag:perry-workspace",) and node.user is None and node.online and not node.expired
    assert node.ips[0].startswith("100.64.")
    assert await bench.tailnet.node(node.id) == node
    assert await bench.unused_keys([]) == []
    assert not await bench.join("beta", key.secret)
    assert (await bench.tailnet.info()).domain == bench.domain


async def test_the_gateway_has_a_tag_of_its_own(bench: Bench) -> None:
    key = await bench.tailnet.mint_gateway_key()
    assert await bench.unused_keys([]) == [], "only workspaces' keys are swept"
    assert await bench.join("perry", key.secret)
    node = await bench.node("perry")
    assert node.tags == ("tag:perry-gateway",) and node.user is None


async def test_a_device_is_the_owners(bench: Bench) -> None:
    login = await bench.join_as_person("laptop")
    assert await bench.unused_keys([]) == [], "only workspaces' keys are swept"
    node = await bench.node("laptop")
    assert node.tags == () and node.user == login
    assert login in (await bench.tailnet.users() or [])
    if bench.is_perrys:
        assert (await bench.tailnet.info()).owners == (login,)


async def test_a_name_that_is_taken_gets_a_number(bench: Bench) -> None:
    for _ in range(2):
        assert await bench.join("alpha", (await bench.tailnet.mint_workspace_key()).secret)
    assert sorted(node.name for node in await bench.tailnet.nodes()) == ["alpha", "alpha-1"]


async def test_a_revoked_key_is_worth_nothing(bench: Bench) -> None:
    key = await bench.tailnet.mint_workspace_key()
    other = await bench.tailnet.mint_workspace_key()
    for _ in range(2):
        await bench.tailnet.revoke_key(key.id)
    assert await bench.unused_keys([other.id]) == [other.id]
    assert not await bench.join("alpha", key.secret)
    assert await bench.tailnet.nodes() == []


async def test_a_node_is_removed(bench: Bench) -> None:
    assert await bench.join("alpha", (await bench.tailnet.mint_workspace_key()).secret)
    node = await bench.node("alpha")
    for _ in range(2):
        await bench.tailnet.delete_node(node.id)
    assert await bench.tailnet.node(node.id) is None
    await bench.tailnet.delete_node("999999")
    assert await bench.tailnet.node("999999") is None


async def test_a_coordinator_that_is_away_is_said_to_be_and_comes_back(bench: Bench) -> None:
    key = await bench.tailnet.mint_workspace_key()
    await bench.go_away()
    with pytest.raises(TailnetUnavailable, match="does not answer; `perry tailnet status`"):
        await bench.tailnet.mint_workspace_key()
    with pytest.raises(TailnetUnavailable):
        await bench.tailnet.nodes()
    info = await bench.tailnet.info()
    assert not info.ready and info.error
    await bench.come_back()
    await bench.tailnet.ensure()
    assert (await bench.tailnet.info()).ready
    assert await bench.unused_keys([key.id]) == [key.id]
    assert await bench.join("alpha", key.secret)


async def test_what_is_perrys_can_be_taken_away_and_a_persons_stays(bench: Bench) -> None:
    key = await bench.tailnet.mint_workspace_key()
    for _ in range(2):
        await bench.tailnet.remove()
    await bench.tailnet.ensure()
    assert await bench.unused_keys([]) == []
    assert await bench.join("alpha", key.secret) is not bench.is_perrys


async def test_without_a_tailnet_nothing_joins() -> None:
    tailnet: Tailnet = NoTailnet()
    await tailnet.ensure()
    assert not tailnet.joins and tailnet.control_url is None
    for mint in (tailnet.mint_workspace_key, tailnet.mint_device_key):
        with pytest.raises(NotReady, match=r"tailnet\.provider is none"):
            await mint()
    await tailnet.revoke_key("1")
    await tailnet.delete_node("1")
    assert await tailnet.nodes() == [] and await tailnet.node("1") is None and await tailnet.unused_keys() == []
    info = await tailnet.info()
    assert not info.ready and info.owners == () and info.control_url is None
    await tailnet.remove()
    await tailnet.close()
