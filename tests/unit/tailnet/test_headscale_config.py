"""What headscale is told."""

import json

from controlplane.adapters.tailnet.headscale_config import config, environment, policy
from controlplane.adapters.tailnet.placement import Placement

TWO = Placement("172.17.0.1", "192.168.1.7", "172.17.0.1", "192.168.1.7")


def test_it_listens_at_two_addresses_and_devices_come_to_the_outer() -> None:
    told = json.loads(config(TWO, port=7390, domain="perry.internal"))
    assert told["listen_addr"] == "172.17.0.1:7390"
    assert told["server_url"] == "http://192.168.1.7:7390"
    assert told["derp"]["server"]["stun_listen_addr"] == "192.168.1.7:7390"
    assert told["derp"]["server"]["ipv4"] == "192.168.1.7"
    assert environment(TWO, port=7390) == {"PERRY_AT": "172.17.0.1:7390", "PERRY_ALSO_AT": "192.168.1.7:7390"}


def test_a_name_is_left_to_devices_to_resolve() -> None:
    told = json.loads(config(Placement("10.0.0.1", None, "10.0.0.1", "box.lan"), port=1, domain="x.internal"))
    assert told["server_url"] == "http://box.lan:1" and "ipv4" not in told["derp"]["server"]
    assert environment(Placement("10.0.0.1", None, "10.0.0.1", "box.lan"), port=1) == {}


def test_it_talks_to_nobody_outside() -> None:
    told = json.loads(config(TWO, port=7390, domain="perry.internal"))
    assert told["derp"]["urls"] == [] and told["derp"]["paths"] == [] and not told["derp"]["auto_update_enabled"]
    assert told["disable_check_updates"] and not told["logtail"]["enabled"] and told["metrics_listen_addr"] == ""
    assert told["dns"] == {
        "magic_dns": True,
        "base_domain": "perry.internal",
        "override_local_dns": False,
        "nameservers": {"global": []},
    }


def test_no_rule_leads_from_a_workspace_to_an_owners_device() -> None:
    rules = json.loads(policy())["acls"]
    reached = {
        target.rsplit(":", 1)[0] for rule in rules if "tag:perry-workspace" in rule["src"] for target in rule["dst"]
    }
    assert reached == {"tag:perry-workspace", "tag:perry-gateway"}
    others = [rule["dst"] for rule in rules if not set(rule["src"]) <= {"owner@", "tag:perry-workspace"}]
    assert others == [["tag:perry-gateway:80,443,7391"]], "others reach the gateway, and nothing else"


def test_the_gateway_reaches_what_it_wakes_and_nothing_else() -> None:
    def reached(ports: tuple[int, ...]) -> list[list[str]]:
        return [rule["dst"] for rule in json.loads(policy(ports))["acls"] if rule["src"] == ["tag:perry-gateway"]]

    assert reached(()) == []
    assert reached((443, 18789)) == [["owner@:443,18789"]]
    assert json.loads(policy((1,)))["acls"][:-1] == json.loads(policy())["acls"], "nothing else changes"
