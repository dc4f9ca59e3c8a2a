"""What headscale v0.29 is told: its configuration and its policy. Pure."""

import json
from collections.abc import Sequence
from typing import Any

from controlplane.adapters.tailnet.placement import Placement, as_address
from controlplane.ports import GATEWAY_TAG, WORKSPACE_TAG

USER = "owner"
"""Owns the untagged devices. WhoIs on a node names it just so."""

STATE = "/var/lib/headscale"
CONFIG_FILE = f"{STATE}/config.yaml"

POLICY: dict[str, Any] = {
    "tagOwners": {WORKSPACE_TAG: [f"{USER}@"], GATEWAY_TAG: [f"{USER}@"]},
    "acls": [
        {"action": "accept", "src": [f"{USER}@"], "dst": [f"{WORKSPACE_TAG}:*", f"{GATEWAY_TAG}:*", f"{USER}@:*"]},
        # Others too, who are told there who they are taken for; else they would wait for an answer in vain.
        {"action": "accept", "src": ["*"], "dst": [f"{GATEWAY_TAG}:80,443,7391"]},
        {"action": "accept", "src": [WORKSPACE_TAG], "dst": [f"{WORKSPACE_TAG}:*"]},
        {"action": "accept", "src": [WORKSPACE_TAG], "dst": [f"{GATEWAY_TAG}:80,443,7391,18789"]},
    ],
    # So that a node that restarts while the coordinator is away is back at once.
    "nodeAttrs": [{"target": ["*"], "attr": ["cache-network-maps"]}],
}
"""Owners reach everything of Perry's and their own devices; workspaces reach workspaces and no device of an owner.
Everybody reaches the gateway, which knows its callers."""


def policy(wake_ports: Sequence[int] = ()) -> str:
    """As headscale keeps it: the text itself. The gateway reaches these ports of the owner's devices, and no others."""
    acls = list(POLICY["acls"])
    if wake_ports:
        ports = ",".join(map(str, wake_ports))
        acls.append({"action": "accept", "src": [GATEWAY_TAG], "dst": [f"{USER}@:{ports}"]})
    return json.dumps({**POLICY, "acls": acls}, indent=1)


def environment(placement: Placement, *, port: int) -> dict[str, str]:
    """What images/headscale/main.go is told of the second address."""
    if placement.also is None:
        return {}
    return {"PERRY_AT": f"{placement.listen}:{port}", "PERRY_ALSO_AT": f"{placement.also}:{port}"}


def config(placement: Placement, *, port: int, domain: str) -> str:
    """The file ``config.yaml``; JSON is YAML too."""
    relay: dict[str, Any] = {
        "enabled": True,
        "region_id": 999,
        "region_code": "perry",
        "region_name": "Perry",
        # UDP, beside the TCP port of the same number: one number to open in a firewall.
        "stun_listen_addr": f"{placement.outer}:{port}",
        "private_key_path": f"{STATE}/derp_private.key",
        "automatically_add_embedded_derp_region": True,
        # Only nodes of this tailnet are relayed.
        "verify_clients": True,
    }
    if as_address(placement.devices) is not None:
        relay["ipv4"] = placement.devices
    told: dict[str, Any] = {
        "server_url": f"http://{placement.devices}:{port}",
        "listen_addr": f"{placement.listen}:{port}",
        # Off: it would serve debugging to everyone on the machine.
        "metrics_listen_addr": "",
        # Opened only with TLS, which it has not.
        "grpc_listen_addr": "127.0.0.1:0",
        "noise": {"private_key_path": f"{STATE}/noise_private.key"},
        "prefixes": {"v4": "100.64.0.0/10", "v6": "fd7a:115c:a1e0::/48", "allocation": "sequential"},
        "derp": {"server": relay, "urls": [], "paths": [], "auto_update_enabled": False},
        "disable_check_updates": True,
        "logtail": {"enabled": False},
        "database": {"type": "sqlite", "sqlite": {"path": f"{STATE}/db.sqlite", "write_ahead_log": True}},
        "log": {"level": "info"},
        "policy": {"mode": "database"},
        "dns": {
            "magic_dns": True,
            "base_domain": domain,
            "override_local_dns": False,
            "nameservers": {"global": []},
        },
        "unix_socket": f"{STATE}/headscale.sock",
        "unix_socket_permission": "0700",
        # Every change of state waits for a batch otherwise: joining took 1.9 s with the defaults, 0.35 s so.
        "tuning": {"node_store_batch_timeout": "5ms", "batch_change_delay": "10ms"},
    }
    return json.dumps(told, indent=1)
