"""What a workspace is made of."""

import msgspec
import pytest

from controlplane.errors import Conflict, InvalidInput
from controlplane.workspaces import spec
from controlplane.workspaces.spec import PodSettings, Request, Reservation
from protocol.workspaces import Limits

SETTINGS = PodSettings(
    instance="perry",
    prefix="workspace-",
    sidecar_image="perry/sidecar:latest",
    ssh_bind="127.0.0.1",
    dns=("192.0.2.1", "192.0.2.2", "192.0.2.3"),
    joins=True,
    tailnet="embedded",
    control_url="http://192.0.2.9:7390",
    owners=("owner",),
    refused_addresses=(),
)
RESERVATION = Reservation(name="alpha", created="2026-01-01T00:00:00Z", ssh_port=22001, subnet="10.111.0.0/28")
REQUEST = Request(image="perry/workspace-base:latest", docker=True, limits=Limits(cpus=1, memory=1 << 30, pids=100))


def test_equal_inputs_give_equal_pods() -> None:
    assert spec.pod_spec(SETTINGS, RESERVATION, REQUEST) == spec.pod_spec(SETTINGS, RESERVATION, REQUEST)


def test_a_changed_setting_shows_in_the_hash_of_what_it_changes_alone() -> None:
    before = spec.pod_spec(SETTINGS, RESERVATION, REQUEST)
    after = spec.pod_spec(msgspec.structs.replace(SETTINGS, owners=("other",)), RESERVATION, REQUEST)
    assert before.tailnet.labels["perry.spec"] != after.tailnet.labels["perry.spec"]
    assert before.workspace.labels["perry.spec"] == after.workspace.labels["perry.spec"]


def test_what_was_asked_for_to_clone_recreates_nothing() -> None:
    before = spec.pod_spec(SETTINGS, RESERVATION, REQUEST)
    after = spec.pod_spec(SETTINGS, RESERVATION, msgspec.structs.replace(REQUEST, clone="https://example.org/a"))
    assert before.workspace.labels["perry.spec"] == after.workspace.labels["perry.spec"]


def test_without_docker_the_profile_is_the_plain_one() -> None:
    pod = spec.pod_spec(SETTINGS, RESERVATION, msgspec.structs.replace(REQUEST, docker=False))
    assert pod.workspace.cap_add == () and pod.workspace.security_opt == ()
    assert all("docker" not in mount.volume for mount in pod.workspace.volumes)
    assert "workspace-alpha-docker" not in pod.volumes


def test_only_the_sidecar_has_the_node_key() -> None:
    pod = spec.pod_spec(SETTINGS, RESERVATION, REQUEST)
    holders = [
        c.name for c in (pod.sandbox, pod.tailnet, pod.workspace) if any("-tailnet" in v.volume for v in c.volumes)
    ]
    assert holders == ["workspace-alpha.tailnet"]
    assert all(mount.read_only for mount in pod.workspace.volumes if mount.path == "/run/perry")


def test_docker_takes_at_most_three_name_servers() -> None:
    assert spec.pod_spec(SETTINGS, RESERVATION, REQUEST).sandbox.dns == ("127.0.0.53", "192.0.2.1", "192.0.2.2")


@pytest.mark.parametrize(
    "name", ["Alpha", "1a", "123", "a-", "-a", "a_b", "a.b", "", "a" * 64, "perry", "localhost", "a\n", "é"]
)
def test_names_that_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        spec.valid_name(name)


@pytest.mark.parametrize("name", ["a", "alpha", "a-1", "a" * 63])
def test_names_that_are_taken(name: str) -> None:
    assert spec.valid_name(name) == name


def test_addresses_never_overlap() -> None:
    assert spec.free_subnet("10.0.0.0/24", ["10.0.0.0/28", "172.17.0.0/16", "fd00::/64"]) == "10.0.0.16/28"
    with pytest.raises(Conflict):
        spec.free_subnet("10.0.0.0/24", ["10.0.0.0/16"])


def test_an_interface_name_fits_the_kernel() -> None:
    assert len(spec.Names("workspace-", "a" * 63).interface) <= 15


def test_gos_limit_is_reached_long_before_the_sidecars_container_is_full() -> None:
    sidecar = spec.pod_spec(SETTINGS, RESERVATION, REQUEST).tailnet
    number, unit = sidecar.env["GOMEMLIMIT"][:-3], sidecar.env["GOMEMLIMIT"][-3:]
    assert unit == "MiB"
    # The kernel's socket buffers and tables, and Go's stacks, are the container's too.
    assert sidecar.memory is not None and int(number) << 20 <= sidecar.memory * 2 // 3
