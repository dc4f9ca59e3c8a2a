"""The section of ``config.json`` for wakes: the gateways that they go to."""

import ipaddress
from collections.abc import Iterable
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from controlplane.settings.section import Section

TAILNET: Final = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))

NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
"""Where networks without IPv4 reach it."""

LOCAL: Final = frozenset({"localhost", "ip6-localhost"})


class GatewaySettings(Section, frozen=True):
    """A gateway that waits for wakes."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
    url: str
    token_file: Annotated[str, msgspec.Meta(min_length=1)]
    kind: Literal["clawdbot", "openclaw", "generic"] = "openclaw"
    pause: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 20.0

    @property
    def pace(self) -> float:
        """Seconds between requests after some at once, of those that keep only a few; 0 is no pace."""
        return 0.0 if self.kind == "generic" else self.pause

    def __post_init__(self) -> None:
        if (wrong := url_problem(self.url)) is not None:
            raise ValueError(f"hooks.gateways: the url of {self.name!r} {wrong}")


class HookSettings(Section, frozen=True):
    """Wakes."""

    gateways: tuple[GatewaySettings, ...] = ()
    """Who is woken: `name`, `url`, `tokenFile`, `kind`, `pause`. See docs/howto/wakes.md."""
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


def is_tailnets(host: str, domain: str | None) -> bool:
    """Whether a URL's host is the tailnet's, where there is one whose own domain is ``domain``.

    That is: tailnet addresses, names without a dot, and names below ``domain`` or ts.net.
    """
    if (address := literal(host)) is not None:
        return any(address in network for network in TAILNET if network.version == address.version)
    suffixes = [".ts.net", *([f".{domain.strip('.').lower()}"] if domain else [])]
    return host not in LOCAL and ("." not in host or host.endswith(tuple(suffixes)))


def tailnet_ports(gateways: Iterable[GatewaySettings], domain: str | None) -> tuple[int, ...]:
    """The ports of the gateways that the tailnet reaches."""
    parts = [urlsplit(gateway.url) for gateway in gateways]
    ours = [part for part in parts if is_tailnets((part.hostname or "").removesuffix("."), domain)]
    return tuple(sorted({part.port or (443 if part.scheme == "https" else 80) for part in ours}))


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
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


_METADATA = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"})
"""Where clouds hand out credentials of a machine."""


def address_problem(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str | None:
    """Why nothing is ever sent to an address, as the end of a sentence; None where it may be."""
    if str(address) in _METADATA or address.is_link_local:
        return f"means {address}, which is for this machine's own metadata and its like, and no gateway's"
    if address.is_unspecified or address.is_multicast or str(address) == "255.255.255.255":
        return f"means {address}, which is nobody's address"
    return None
