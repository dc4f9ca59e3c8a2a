"""A headscale as a person runs it, beside Perry and not by it: for the contract, and for a whole system."""

import io
import ipaddress
import json
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from typing import Any

from controlplane.adapters.tailnet.headscale_api import API_KEY_PREFIX
from controlplane.adapters.tailnet.headscale_config import STATE, config
from controlplane.adapters.tailnet.placement import Placement

POLICY: dict[str, Any] = {
    "tagOwners": {"tag:perry-workspace": ["owner@"], "tag:perry-gateway": ["owner@"]},
    "acls": [
        {"action": "accept", "src": ["owner@"], "dst": ["tag:perry-workspace:*", "tag:perry-gateway:*", "owner@:*"]},
        {"action": "accept", "src": ["tag:perry-workspace"], "dst": ["tag:perry-workspace:*"]},
        {"action": "accept", "src": ["tag:perry-workspace"], "dst": ["tag:perry-gateway:80,443,7391,18789"]},
        {"action": "accept", "src": ["tag:perry-gateway"], "dst": ["owner@:18789"]},
    ],
    "nodeAttrs": [{"target": ["tag:perry-workspace", "tag:perry-gateway"], "attr": ["cache-network-maps"]}],
}
"""What docs/howto/your-own-tailnet.md tells people to have."""

UID = 65532
START_SECONDS = 30


class TheirHeadscale:
    """Listens at Docker's bridge, in the machine's network. ``instance`` is the label by which it is removed."""

    def __init__(self, instance: str, port: int) -> None:
        self.name = f"{instance}-coordinator"
        self._instance = instance
        self._port = port
        self._address = bridge_address()
        self.url = f"http://{self._address}:{port}"

    def start(self) -> None:
        """With the users ``owner`` and ``somebody``, and the policy that people are told to have."""
        told = json.loads(
            config(Placement(self._address, None, self._address, self._address), port=self._port, domain="home.example")
        )
        told["policy"] = {"mode": "file", "path": f"{STATE}/policy.json"}
        label = f"perry.instance={self._instance}"
        _docker("create", "--name", self.name, "--label", label, "--network", "host", "perry/headscale:latest")
        files = {"config.yaml": told, "policy.json": POLICY}
        _docker("cp", "-", f"{self.name}:{STATE}", stdin=_tar(files))
        _docker("start", self.name)
        self.wait()
        for user in ("owner", "somebody"):
            self.run("users", "create", user)

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}/key?v=113", timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                if time.monotonic() > end:
                    raise AssertionError(f"headscale does not answer: {_docker('logs', self.name)}") from None
                time.sleep(0.05)

    def api_key(self, lifetime: str = "720h") -> str:
        """A new one."""
        return self.run("apikeys", "create", "--expiration", lifetime).split()[-1]

    def expire_api_key(self, key: str) -> None:
        # The prefix may have any character of base64url, a hyphen too.
        self.run("apikeys", "expire", f"--prefix={key.removeprefix('hskey-api-')[:API_KEY_PREFIX]}")

    def device_key(self, user: str = "owner") -> str:
        """A key for a device of a person, made as they do."""
        number = next(
            each["id"] for each in json.loads(self.run("users", "list", "-o", "json")) if each["name"] == user
        )
        made = json.loads(self.run("preauthkeys", "create", "--user", str(number), "-o", "json"))
        return str(made["key"])

    def nodes(self) -> list[str]:
        """Names of the devices that it has."""
        return sorted(each["given_name"] for each in json.loads(self.run("nodes", "list", "-o", "json")) or [])

    def run(self, *command: str) -> str:
        """Output of one of its own commands."""
        return _docker("exec", self.name, "headscale", "-c", f"{STATE}/config.yaml", *command)

    def remove(self) -> None:
        _docker("rm", "-f", self.name)


def bridge_address() -> str:
    """This machine's address on Docker's own bridge."""
    shown = json.loads(_docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]
    return str(shown.get("Gateway") or ipaddress.IPv4Network(shown["Subnet"])[1])


def _tar(files: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            text = json.dumps(content).encode()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(text), 0o600, UID, UID
            archive.addfile(entry, io.BytesIO(text))
    return buffer.getvalue()


def _docker(*arguments: str, stdin: bytes | None = None) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, input=stdin, timeout=60)
    assert done.returncode == 0, f"docker {arguments[:2]}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode(errors="replace").strip()
