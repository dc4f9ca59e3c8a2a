"""Where a gateway is: read from its settings, and which addresses its name may turn out to have. Pure."""

import ipaddress
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

import msgspec

from controlplane.settings.hooks import LOCAL, GatewaySettings, address_problem, is_tailnets, literal, plain
from protocol.wake import WAKE_PATH, WakeWay

GENERIC: Final = "generic"

AGENT: Final = "agent"
"""The last part of the path of a gateway's door for sessions of their own, where that of its wake door is WAKE."""

WAKE: Final = "wake"

UNKNOWN: Final = 404
"""What Perry's node says of devices that there are not."""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway: exactly this host and port, and nothing else."""

    name: str
    kind: str
    host: str
    port: int
    secure: bool
    path: str
    way: WakeWay

    @property
    def generic(self) -> bool:
        """Whether it is neither clawdbot nor openclaw."""
        return self.kind == GENERIC

    @property
    def place(self) -> str:
        """Host and port, as one word."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

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
        return f"{'https' if self.secure else 'http'}://{self.place}"


def target_of(gateway: GatewaySettings, *, on_tailnet: bool, domain: str | None) -> Target:
    """``on_tailnet``: Perry has a node there. ``domain`` is the tailnet's own, where known."""
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
        way=WakeWay.TAILNET if on_tailnet and is_tailnets(host, domain) else WakeWay.DIRECT,
    )


def may_go_directly(target: Target, status: int | None, *, on_tailnet_itself: bool) -> bool:
    """Whether a gateway that should be the tailnet's is tried from this machine, after Perry's node answered with
    ``status`` (None: the node is away).

    Only where that node knows nobody there: a device that it knows and does not reach now is waited for, since the same
    name or address may be a stranger's on another network, who would be told the token. A machine that is on a tailnet
    itself may then try all, and any other a plain name, which may mean something nearby.
    """
    if status != UNKNOWN:
        return False
    return on_tailnet_itself or (literal(target.host) is None and "." not in target.host)


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
    if found.is_loopback and literal(target.host) is None and target.host not in LOCAL:
        return (
            f"The name {target.host!r} means this machine itself; where the gateway runs here, write 127.0.0.1 in "
            "hooks.gateways."
        )
    return None
