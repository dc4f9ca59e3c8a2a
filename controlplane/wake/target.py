"""Where a gateway is: read from its settings, and which addresses its name may turn out to have. Pure."""

import ipaddress
from collections.abc import Iterable
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

import msgspec

from controlplane.hook_settings import GatewaySettings, address_problem, literal, plain
from protocol.wake import WAKE_PATH

GENERIC: Final = "generic"

AGENT: Final = "agent"
"""The last part of the path of a gateway's door for sessions of their own, where that of its wake door is WAKE."""

WAKE: Final = "wake"

TAILNET: Final = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))

_LOCAL: Final = frozenset({"localhost", "ip6-localhost"})


class Way(StrEnum):
    """How a gateway is reached."""

    DIRECT = "direct"
    """From this machine."""
    TAILNET = "tailnet"
    """Through Perry's own node on the tailnet."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway: exactly this host and port, and nothing else."""

    name: str
    kind: str
    host: str
    port: int
    secure: bool
    path: str
    way: Way

    @property
    def generic(self) -> bool:
        """Whether it is neither clawdbot nor openclaw."""
        return self.kind == GENERIC

    @property
    def url(self) -> str:
        """As people read it, and as it is asked for."""
        return f"{self._origin}{self.path}"

    @property
    def agent_url(self) -> str | None:
        """The door for what is taken up in a session of its own; None where there is none, or nobody can tell."""
        above, _, door = self.path.rpartition("/")
        return f"{self._origin}{above}/{AGENT}" if door == WAKE and not self.generic else None

    @property
    def _origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.secure else 'http'}://{host}:{self.port}"


def target_of(gateway: GatewaySettings, *, on_tailnet: bool, domain: str | None) -> Target:
    """``on_tailnet``: Perry has a node there. ``domain`` is the tailnet's own, where known.

    Tailnet addresses, names without a dot, and names below ``domain`` or ts.net are the tailnet's where there is one.
    """
    parts = urlsplit(gateway.url)
    host = (parts.hostname or "").removesuffix(".")
    secure = parts.scheme == "https"
    generic = gateway.kind == GENERIC
    path = parts.path if generic or parts.path.strip("/") else WAKE_PATH
    return Target(
        name=gateway.name,
        kind=gateway.kind,
        host=host,
        port=parts.port or (443 if secure else 80),
        secure=secure,
        path=path or "/",
        way=Way.TAILNET if on_tailnet and _is_tailnets(host, domain) else Way.DIRECT,
    )


def _is_tailnets(host: str, domain: str | None) -> bool:
    if (address := literal(host)) is not None:
        return in_tailnet(address)
    suffixes = [".ts.net", *([f".{domain.strip('.').lower()}"] if domain else [])]
    return host not in _LOCAL and ("." not in host or host.endswith(tuple(suffixes)))


def in_tailnet(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in network for network in TAILNET if network.version == address.version)


def refused(target: Target, address: str, *, own_port: int, own_addresses: Iterable[str]) -> str | None:
    """Why the address that a target's host stands for is not connected to, as a sentence; None where it may be.

    A name that is not this machine's and suddenly means it is a trick, of whoever answers for that name.
    """
    found = plain(ipaddress.ip_address(address.partition("%")[0]))
    if (problem := address_problem(found)) is not None:
        return f"The url of {target.name!r} {problem}; mend hooks.gateways."
    own = found.is_loopback or str(found) in own_addresses
    if own and target.port == own_port:
        return f"The url of {target.name!r} is that of this Perry itself; give the gateway's in hooks.gateways."
    if found.is_loopback and literal(target.host) is None and target.host not in _LOCAL:
        return (
            f"The name {target.host!r} means this machine itself; where the gateway runs here, write 127.0.0.1 in "
            "hooks.gateways."
        )
    return None
