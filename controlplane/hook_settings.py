"""The section of ``config.json`` for wakes: the gateways that they go to."""

import ipaddress
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from controlplane.section import Section


class GatewaySettings(Section, frozen=True):
    """A gateway that waits for wakes."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    url: str
    token_file: Annotated[str, msgspec.Meta(min_length=1)]
    kind: Literal["clawdbot", "openclaw", "generic"] = "openclaw"

    def __post_init__(self) -> None:
        if (wrong := url_problem(self.url)) is not None:
            raise ValueError(f"hooks.gateways: the url of {self.name!r} {wrong}")


class HookSettings(Section, frozen=True):
    """Wakes."""

    gateways: tuple[GatewaySettings, ...] = ()
    """Who is woken: `name`, `url`, `tokenFile`, `kind`. See docs/howto/wakes.md."""
    default: str = ""
    """The name of the gateway that wakes go to; the first where empty."""

    def __post_init__(self) -> None:
        names = [gateway.name for gateway in self.gateways]
        if len(set(names)) < len(names):
            raise ValueError("hooks.gateways has a name twice")
        if self.default and self.default not in names:
            raise ValueError(f"hooks.default is {self.default!r}, and no gateway of hooks.gateways has that name")

    @property
    def target(self) -> GatewaySettings | None:
        """Who is woken where nobody is named."""
        return next((each for each in self.gateways if self.default in ("", each.name)), None)


def url_problem(url: str) -> str | None:
    """What is wrong with a gateway's URL, as the end of a sentence; None where nothing is."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "cannot be read"
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "has characters that no URL has"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must begin with http:// or https:// and a name or an address"
    if "@" in parts.netloc:
        return "has a user or a password in it; the token stands in the tokenFile"
    if parts.query or parts.fragment or "?" in url or "#" in url:
        return "has something after its path; the token stands in the tokenFile"
    if port == 0:
        return "has the port 0"
    address = literal(parts.hostname)
    return None if address is None else address_problem(address)


def literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a URL's host is; None for a name. IPv4 inside of IPv6 is IPv4."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return plain(address)


def plain(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """IPv4 where an IPv6 address only wraps it."""
    if isinstance(address, ipaddress.IPv6Address) and (inside := address.ipv4_mapped or address.sixtofour):
        return inside
    return address


_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"})
"""Where clouds hand out credentials of a machine."""


def address_problem(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    """Why nothing is ever sent to an address, as the end of a sentence; None where it may be."""
    if str(address) in _METADATA or address.is_link_local:
        return f"means {address}, which is for this machine's own metadata and its like, and no gateway's"
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        return f"means {address}, which is nobody's address"
    return None
