"""Where the coordinator listens, and what each kind of node is told."""

import socket

import pytest

from controlplane.adapters.tailnet import placement
from controlplane.adapters.tailnet.placement import Placement, checked, is_private, place
from controlplane.errors import SettingsError

BRIDGE = "172.17.0.1"
LAN = "192.168.1.7"
WIFI = "192.168.9.9"
PUBLIC = "203.0.113.5"
MINE = {BRIDGE, LAN, PUBLIC}


@pytest.mark.parametrize(
    ("configured", "kept", "found", "bridge", "expected"),
    [
        pytest.param("", None, LAN, BRIDGE, Placement(BRIDGE, LAN, BRIDGE, LAN), id="found"),
        pytest.param("", None, PUBLIC, BRIDGE, Placement(BRIDGE, PUBLIC, BRIDGE, PUBLIC), id="public"),
        pytest.param(LAN, None, PUBLIC, BRIDGE, Placement(LAN, None, LAN, LAN), id="named and private: that alone"),
        pytest.param(PUBLIC, None, LAN, BRIDGE, Placement(BRIDGE, PUBLIC, BRIDGE, PUBLIC), id="named and public"),
        pytest.param(
            "198.51.100.9", None, LAN, BRIDGE, Placement(BRIDGE, LAN, BRIDGE, "198.51.100.9"), id="a router's"
        ),
        pytest.param("box.lan", None, LAN, BRIDGE, Placement(BRIDGE, LAN, BRIDGE, "box.lan"), id="a name"),
        pytest.param("", LAN, PUBLIC, BRIDGE, Placement(BRIDGE, LAN, BRIDGE, LAN), id="kept while it is ours"),
        pytest.param("", WIFI, LAN, BRIDGE, Placement(BRIDGE, LAN, BRIDGE, LAN), id="moved to another network"),
        pytest.param("", None, None, BRIDGE, Placement(BRIDGE, None, BRIDGE, BRIDGE), id="no network"),
        pytest.param("", BRIDGE, LAN, BRIDGE, Placement(BRIDGE, LAN, BRIDGE, LAN), id="a network at last"),
        pytest.param("", None, LAN, None, Placement(LAN, None, LAN, LAN), id="Docker has no bridge"),
        pytest.param("", WIFI, None, None, Placement("127.0.0.1", None, "127.0.0.1", "127.0.0.1"), id="nothing at all"),
    ],
)
def test_place(configured: str, kept: str | None, found: str | None, bridge: str | None, expected: Placement) -> None:
    assert place(configured, kept=kept, found=found, bridge=bridge, is_own=MINE.__contains__) == expected


def test_private_is_what_the_client_means_by_it() -> None:
    assert all(is_private(host) for host in ("10.1.2.3", "172.31.0.1", "192.168.0.1"))
    assert not any(is_private(host) for host in ("192.0.2.2", "100.64.0.1", "172.32.0.1", "box.lan", "8.8.8.8"))


@pytest.mark.parametrize("wrong", ["0.0.0.0", "127.0.0.1", "::1", "http://box", "box:7390"])
def test_an_address_that_nobody_reaches_is_refused(wrong: str) -> None:
    with pytest.raises(SettingsError, match=r"tailnet\.address"):
        checked(wrong)


@pytest.mark.parametrize("right", ["", "192.168.1.7", "box.lan"])
def test_an_address_is_taken(right: str) -> None:
    assert checked(right) == right


def test_own_addresses_are_told_from_others() -> None:
    assert placement.is_own("127.0.0.1") and not placement.is_own("203.0.113.77")
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        assert not placement.udp_is_free("127.0.0.1", taken.getsockname()[1])
