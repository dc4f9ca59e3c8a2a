"""Where the embedded coordinator listens, and by which addresses it is reached. IPv4.

It runs in the machine's own network namespace. Published from a bridge it could not be reached by pods: Docker drops
what goes from one bridge to another, also by the machine's address. Two kinds of node reach it at two addresses:

- workspaces at the gateway of Docker's own bridge, which is private, and stays when the machine changes networks. That
  it is private matters: towards any other host on plain http, a Tailscale client that dials a second time within two
  minutes insists on TLS at port 443, and each attempt renews the two minutes; after one restart of the coordinator
  it would never come back (control/ts2021 NewClient, controlhttp forceNoise443 in tailscale.com v1.102.5; tried);
- other devices at the address that this machine has in its network.

It listens at these two and no other, or at one alone where ``tailnet.address`` is private and this machine's own.
"""

import ipaddress
import socket
from collections.abc import Callable

import msgspec

from controlplane.errors import SettingsError

DOCUMENTATION_ADDRESS = "198.51.100.1"
"""Asking for the way there sends nothing, and names the address that this machine is known by (RFC 5737)."""

PRIVATE = tuple(ipaddress.ip_network(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
"""RFC 1918, which is what the client means by private."""

TAILNET = ipaddress.ip_network("100.64.0.0/10")

LOOPBACK = "127.0.0.1"
"""Where there is neither a network nor Docker's bridge; nothing but this machine reaches it."""


class Placement(msgspec.Struct, frozen=True):
    """``listen`` and ``also`` are this machine's addresses; ``workspaces`` and ``devices`` are what each is told.

    ``devices`` may be a name, or an address that a router passes on to ``also``.
    """

    listen: str
    also: str | None
    workspaces: str
    devices: str

    @property
    def outer(self) -> str:
        """The one of this machine's addresses that devices come to."""
        return self.also or self.listen


def place(
    configured: str, *, kept: str | None, found: str | None, bridge: str | None, is_own: Callable[[str], bool]
) -> Placement:
    """Decide. ``kept`` is the outer address so far, ``found`` the one of the default route.

    An address that is still this machine's is kept, so that a VPN that comes and goes moves nothing.
    """
    if configured and is_own(configured):
        outer = configured
    elif kept is not None and kept != bridge and is_own(kept):
        outer = kept
    else:
        outer = found or bridge or LOOPBACK
    devices = configured or outer
    if bridge is None or outer == bridge or (configured == outer and is_private(outer)):
        return Placement(outer, None, outer, devices)
    return Placement(bridge, outer, bridge, devices)


def checked(address: str) -> str:
    """``tailnet.address``, if other devices could reach it. A name is allowed."""
    parsed = as_address(address)
    if ":" in address or "/" in address or (parsed is not None and (parsed.is_unspecified or parsed.is_loopback)):
        raise SettingsError(
            f"tailnet.address is {address!r}, which other devices cannot reach; "
            "give an IPv4 address or a name of this machine, or leave it empty."
        )
    return address


def as_address(text: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None


def is_private(host: str) -> bool:
    """Whether clients on plain http come back by themselves after the coordinator was away."""
    address = as_address(host)
    return address is not None and any(address in block for block in PRIVATE)


def own_address() -> str | None:
    """The address by which this machine reaches others; None where it reaches nobody, or only by a tailnet."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((DOCUMENTATION_ADDRESS, 9))
        except OSError:
            return None
        address = ipaddress.IPv4Address(probe.getsockname()[0])
    # By an exit node of the machine's own tailnet: pods are kept from there.
    return None if address in TAILNET else str(address)


def is_own(address: str) -> bool:
    """Whether this machine has the address now."""
    return udp_is_free(address, 0)


def udp_is_free(address: str, port: int) -> bool:
    """Whether a UDP port could be bound now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True
