"""The machine that the control plane runs on, behind the port :class:`controlplane.ports.Machine`. Linux."""

import ipaddress
import json
import logging
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

log = logging.getLogger(__name__)

ADDED_CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Where an administrator of a Debian-like system adds certificates."""

RESOLV_CONF = Path("/etc/resolv.conf")
RESOLVED_CONF = Path("/run/systemd/resolve/resolv.conf")
"""The real servers, where /etc/resolv.conf names systemd-resolved's own stub."""

TUN = Path("/dev/net/tun")

TAILNET_RANGES = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
PUBLIC_DNS = ("1.1.1.1", "8.8.8.8")
"""What Docker takes too where a machine has none but loopback ones."""

BANNER_SECONDS = 1.0


class LocalMachine:
    """This machine. ``folder`` holds the control plane's own ssh key."""

    def __init__(self, folder: Path, *, dns: Sequence[str] = ()) -> None:
        self._folder = folder
        self._dns = tuple(dns)

    def port_is_free(self, address: str, port: int) -> bool:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
        return True

    def has_tun(self) -> bool:
        return TUN.exists()

    def own_tailnet_addresses(self) -> tuple[str, ...]:
        found: list[str] = []
        for entry in _ip_addresses():
            name = str(entry.get("ifname", ""))
            for info in entry.get("addr_info", []):
                address = ipaddress.ip_address(info["local"])
                ranged = any(address.version == r.version and address in r for r in TAILNET_RANGES)
                if ranged or (name.startswith("tailscale") and not address.is_link_local):
                    found.append(str(address))
        return tuple(sorted(found))

    def upstream_dns(self) -> tuple[str, ...]:
        if self._dns:
            return self._dns
        for file in (RESOLV_CONF, RESOLVED_CONF):
            if servers := _name_servers(file):
                return servers
        return PUBLIC_DNS

    def added_ca_certificates(self) -> Mapping[str, bytes]:
        if not ADDED_CERTIFICATES.is_dir():
            return {}
        return {file.name: file.read_bytes() for file in sorted(ADDED_CERTIFICATES.rglob("*.crt")) if file.is_file()}

    def authorized_keys(self) -> Sequence[str]:
        own = self._folder / "id_ed25519.pub"
        return [own.read_text().strip()] if own.exists() else []

    def ensure_ssh_key(self) -> None:
        """Make the control plane's own key pair, once. Without ssh-keygen there is none, and `perry ssh` says so."""
        own = self._folder / "id_ed25519"
        keygen = shutil.which("ssh-keygen")
        if own.exists() or keygen is None:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "perry", "-f", str(own)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)

    async def ssh_answers(self, address: str, port: int) -> bool:
        with anyio.move_on_after(BANNER_SECONDS):
            try:
                async with await anyio.connect_tcp(address, port) as stream:
                    return (await stream.receive(16)).startswith(b"SSH-")
            except (OSError, anyio.EndOfStream, anyio.BrokenResourceError):
                return False
        return False


def _ip_addresses() -> list[dict[str, list[dict[str, str]]]]:
    """What ``ip -j address`` says; nothing where there is no such program."""
    ip = shutil.which("ip", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if ip is None:
        return []
    try:
        done = subprocess.run([ip, "-j", "address"], check=True, capture_output=True, timeout=5)
        entries: list[dict[str, list[dict[str, str]]]] = json.loads(done.stdout or b"[]")
    except (OSError, subprocess.SubprocessError, json.JSONDecodeError) as exc:
        log.warning("this machine's addresses could not be read: %s", exc)
        return []
    return entries


def _name_servers(file: Path) -> tuple[str, ...]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return ()
    servers: list[str] = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            address = words[1].partition("%")[0]
            try:
                usable = not ipaddress.ip_address(address).is_loopback
            except ValueError:
                continue
            if usable:
                servers.append(address)
    return tuple(servers)
