"""The gateway on fakes: that it is where it should be, whatever it lost."""

import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from controlplane.adapters.tailnet import NoTailnet
from controlplane.db import Database
from controlplane.errors import NotReady
from controlplane.gateway.service import Gateway
from controlplane.gateway.spec import AUTH_KEY_FILE, GatewaySettings, container
from controlplane.gateway.store import Place, Store
from controlplane.ports import GATEWAY_TAG, Tailnet
from tests.fakes.engine import FakeEngine
from tests.fakes.pods import IMAGES, FakePods
from tests.fakes.tailnet import FakeTailnet

pytestmark = pytest.mark.anyio

NAME = "t-gateway"


class Bench:
    """A gateway on fakes, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.engine = FakeEngine(IMAGES)
        self.tailnet = FakeTailnet()
        self.pods = FakePods(self.engine, self.tailnet)
        self.database = Database.open(None)
        self.folder = folder
        (folder / "out").mkdir()
        self.strangers: list[str] = []

    def gateway(self, tailnet: Tailnet | None = None, owners: tuple[str, ...] = ()) -> Gateway:
        async def strangers() -> list[str]:
            return self.strangers

        return Gateway(
            engine=self.engine,
            tailnet=tailnet or self.tailnet,
            store=self.store,
            settings=GatewaySettings(
                instance="t",
                image="perry/sidecar:latest",
                run_folder=str(self.folder),
                out_folder=str(self.folder / "out"),
                pool="10.9.0.0/24",
            ),
            owners=owners,
            reserved=lambda: ["10.9.0.0/28"],
            strangers=strangers,
        )

    @property
    def store(self) -> Store:
        return Store(self.database, self.tailnet.identity)

    async def nodes(self) -> list[str]:
        return [node.name for node in await self.tailnet.nodes() if GATEWAY_TAG in node.tags]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.database.close()


@asynccontextmanager
async def running(gateway: Gateway, looks: int = 2) -> AsyncIterator[Gateway]:
    """After so many looks; the sidecar's words are heard between them."""
    async with anyio.create_task_group() as tasks:
        gateway.run_in(tasks)
        for _ in range(looks):
            await gateway.once()
            await anyio.wait_all_tasks_blocked()
        yield gateway
        tasks.cancel_scope.cancel()


async def test_it_joins_under_its_name_and_its_place_is_kept(bench: Bench) -> None:
    async with running(bench.gateway()) as gateway:
        shown = gateway.shown()
        assert shown is not None and (shown.name, shown.online, shown.error) == ("perry", True, None)
        assert set(gateway.names()) == {"perry", "perry.perry.internal", *shown.ips}
        assert gateway.owners() == ("owner",)
    [node] = await bench.tailnet.nodes()
    assert node.tags == (GATEWAY_TAG,) and bench.store.place() == Place(node_id=node.id)
    assert AUTH_KEY_FILE not in bench.engine.by_name[NAME].files
    assert bench.engine.network_specs[NAME].subnet == "10.9.0.16/28", "the first is reserved"
    assert bench.engine.network_specs[NAME].interface.startswith("perry-")
    before = bench.engine.by_name[NAME].id
    async with running(bench.gateway()):
        assert bench.engine.by_name[NAME].id == before
    assert await bench.nodes() == ["perry"]


def test_it_has_no_right_on_the_machine_and_no_secret() -> None:
    settings = GatewaySettings(
        instance="t", image="i", run_folder="/c/run", out_folder="/c/run/out", pool="10.9.0.0/24"
    )
    spec = container(settings, "embedded", "http://192.0.2.1:7390")
    assert (spec.cap_drop, spec.cap_add, spec.devices, spec.host_network) == (("ALL",), ("DAC_OVERRIDE",), (), False)
    assert spec.read_only and spec.memory and spec.ports == () and "no-new-privileges" in spec.security_opt
    mounted = [(mount.volume, mount.read_only) for mount in spec.volumes]
    assert mounted == [("t-gateway", False), ("/c/run", True), ("/c/run/out", False)]
    assert spec == container(settings, "embedded", "http://192.0.2.1:7390")
    other = container(settings, "embedded", "http://192.0.2.2:7390")
    assert spec.labels["perry.spec"] != other.labels["perry.spec"]


async def test_it_leaves_when_it_is_asked_to_and_joins_again_with_the_next_start(bench: Bench) -> None:
    async with running(bench.gateway()) as gateway:
        await gateway.leave()
        await gateway.once()
        await gateway.leave()
        assert await bench.nodes() == [] and bench.store.place() == Place()
        assert NAME not in bench.engine.by_name and NAME not in bench.engine.volume_labels
        assert "has left the tailnet" in str((gateway.shown() or pytest.fail()).error)
    async with running(bench.gateway()):
        assert await bench.nodes() == ["perry"]
    with pytest.raises(NotReady):
        await bench.gateway(NoTailnet()).leave()


async def test_where_it_may_not_remove_its_node_it_says_so(bench: Bench) -> None:
    async with running(bench.gateway()) as gateway:
        bench.tailnet.manages = False
        with pytest.raises(NotReady) as caught:
            await gateway.leave()
        assert "remove 'perry' there by hand" in caught.value.message and NAME not in bench.engine.by_name


async def test_a_container_that_docker_never_starts_again_is_made_anew(bench: Bench) -> None:
    async with running(bench.gateway()) as gateway:
        stuck = bench.engine.by_name[NAME].id
        bench.engine.stuck = {stuck}
        await bench.engine.stop(NAME)
        await gateway.once()
        await gateway.once()
    assert bench.engine.by_name[NAME].running and bench.engine.by_name[NAME].id != stuck


async def test_a_container_that_is_removed_is_made_anew_and_keeps_its_place(bench: Bench) -> None:
    async with running(bench.gateway()) as gateway:
        place = bench.store.place()
        await bench.engine.remove_container(NAME)
        await anyio.wait_all_tasks_blocked()
        assert not (gateway.shown() or pytest.fail()).online
        await gateway.once()
        await gateway.once()
    assert bench.engine.by_name[NAME].running
    # The fake's node comes back by its name, as a real one does by its volume.
    assert bench.store.place() == place and await bench.nodes() == ["perry"]


async def test_a_node_that_is_deleted_joins_anew(bench: Bench) -> None:
    async with running(bench.gateway()) as gateway:
        lost = bench.store.place().node_id
        assert lost is not None
        await bench.tailnet.delete_node(lost)
        await gateway.once()
        await anyio.wait_all_tasks_blocked()
        await gateway.once()
        assert bench.store.place().node_id not in (None, lost)
    assert await bench.nodes() == ["perry"]


async def test_a_lost_volume_frees_the_name_first(bench: Bench) -> None:
    """Else it would be perry-1, beside a node that never comes back."""
    async with running(bench.gateway()) as gateway:
        lost = bench.store.place().node_id
        bench.pods.sidecar_joins = False
        await bench.engine.remove_container(NAME)
        await gateway.once()
        bench.pods.sidecar_joins = True
        bench.engine.by_name[NAME].say('{"border": false, "state": "needs-key", "error": "No key."}')
        await anyio.wait_all_tasks_blocked()
        await gateway.once()
        await anyio.wait_all_tasks_blocked()
        await gateway.once()
        assert bench.store.place().node_id not in (None, lost)
    assert await bench.nodes() == ["perry"]


async def test_a_node_of_somebody_else_with_our_old_id_stays(bench: Bench) -> None:
    bench.store.set(Place(node_id="1"))
    theirs = bench.tailnet.joined("laptop", (await bench.tailnet.mint_device_key()).secret, "1")
    assert theirs is not None
    bench.pods.sidecar_joins = False
    async with running(bench.gateway(), looks=1) as gateway:
        bench.engine.by_name[NAME].say('{"border": false, "state": "failed", "error": "The key was refused."}')
        await anyio.wait_all_tasks_blocked()
        await gateway.once()
    assert await bench.tailnet.node("1") == theirs


async def test_what_cannot_join_is_tried_with_pauses_and_said(bench: Bench) -> None:
    bench.pods.sidecar_joins = False
    async with running(bench.gateway(), looks=1) as gateway:
        bench.engine.by_name[NAME].say('{"border": false, "state": "failed", "error": "The key was refused."}')
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            await gateway.once()
        assert (gateway.shown() or pytest.fail()).error == "The key was refused."
        minted = bench.store.place().key_id
        await gateway.once()
        assert bench.store.place().key_id == minted, "one new key, and then a pause"


async def test_a_name_that_is_taken_is_said_with_what_to_do(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert bench.tailnet.joined("perry", (await bench.tailnet.mint_device_key()).secret) is not None
    async with running(bench.gateway()) as gateway:
        shown = gateway.shown()
        assert shown is not None and shown.name == "perry-1" and shown.online
        assert "`perry config worker perry-1`" in (shown.error or "")
        assert "perry" not in gateway.names() and "perry-1" in gateway.names()
        await gateway.once()
        assert caplog.messages.count(shown.error or "") == 1


async def test_a_coordinator_or_an_image_that_is_away_is_said(bench: Bench) -> None:
    bench.tailnet.away = True
    async with running(bench.gateway(), looks=1) as gateway:
        assert "does not answer" in ((gateway.shown() or pytest.fail()).error or "")
        bench.tailnet.away = False
        await gateway.once()
        await anyio.wait_all_tasks_blocked()
        await gateway.once()
        assert (gateway.shown() or pytest.fail()).online
        bench.engine.images.clear()
        await gateway.once()
        assert "`perry agent build`" in ((gateway.shown() or pytest.fail()).error or "")


async def test_a_way_out_that_is_shut_is_said(bench: Bench) -> None:
    async with running(bench.gateway()) as gateway:
        shown = gateway.shown() or pytest.fail()
        said = {
            "border": True,
            "state": "running",
            "online": True,
            "dnsName": "perry.perry.internal",
            "door": "No way.",
        }
        bench.engine.by_name[NAME].say(
            json.dumps(said | {"ips": list(shown.ips), "nodeId": bench.store.place().node_id})
        )
        await anyio.wait_all_tasks_blocked()
        shown = gateway.shown() or pytest.fail()
        assert (shown.online, shown.error) == (True, "No way.")


async def test_without_a_tailnet_all_of_it_goes(bench: Bench) -> None:
    async with running(bench.gateway()):
        pass
    async with running(bench.gateway(NoTailnet()), looks=1) as gateway:
        assert gateway.shown() is None
    assert NAME not in bench.engine.by_name
    assert bench.engine.network_specs == {} and bench.engine.volume_labels == {}


async def test_configured_owners_count_and_strangers_are_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.strangers = ["auth.owners names nobody that is there."]
    with caplog.at_level(logging.WARNING):
        async with running(bench.gateway(owners=("me@example.com",)), looks=3) as gateway:
            assert gateway.owners() == ("me@example.com",)
    assert caplog.messages.count(bench.strangers[0]) == 1


async def test_ids_of_another_tailnet_count_for_nothing(bench: Bench) -> None:
    Store(bench.database, "another").set(Place(node_id="7", key_id="8"))
    assert bench.store.place() == Place()
    async with running(bench.gateway()):
        assert bench.store.place().node_id is not None
