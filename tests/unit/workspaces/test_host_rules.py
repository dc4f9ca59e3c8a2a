"""What the machine's packet rules are told of the coordinator."""

import pytest

from controlplane.workspaces.host_rules import HostRules
from tests.fakes.engine import FakeEngine
from tests.fakes.tailnet import FakeTailnet


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://172.17.0.1:7390", "172.17.0.1:7390"),
        ("http://10.0.0.1", "10.0.0.1:80"),
        ("https://10.0.0.1", "10.0.0.1:443"),
        ("http://headscale.lan:8080", ""),
        ("https://headscale.example.com", ""),
        (None, ""),
    ],
)
def test_a_coordinator_that_is_named_by_an_address_may_be_this_machines(url: str | None, told: str) -> None:
    tailnet = FakeTailnet()
    tailnet.control_url = url
    rules = HostRules(FakeEngine(()), tailnet, instance="i", image="x")
    assert rules._spec("host-rules").env["PERRY_COORDINATOR"] == told
