"""Where a request comes from, as its headers tell: the host it means, and the page that sent it.

A web page that a person looks at can make their browser send requests to any address that it reaches. So a request has
to name a host of ours (a rebound DNS name does not), and must not come from a page of another origin.
"""

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from controlplane.errors import InvalidInput, NotAllowed

Headers = Iterable[tuple[bytes, bytes]]

LOOPBACK_NAMES = frozenset({"localhost", "perry"})
"""Names that always mean this control plane, besides loopback addresses."""

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def single(headers: Headers, name: str) -> str | None:
    """The value of a header, None where it is missing. InvalidInput where it stands there twice."""
    wanted = name.lower().encode()
    found = [value for key, value in headers if key.lower() == wanted]
    if len(found) > 1:
        raise InvalidInput(f"The request has the header {name} twice; send it once.")
    return found[0].decode("latin-1").strip() if found else None


def check_origin(headers: Headers, *, allowed: frozenset[str], arrived_at: str | None) -> None:
    """Return for a request that means us and comes from no foreign page.

    ``allowed`` are names in lower case. ``arrived_at`` is the address of ours that the connection came in on.
    NotAllowed where it is foreign, InvalidInput where a header is missing, doubled or malformed.
    """
    headers = list(headers)
    host = single(headers, "Host")
    if host is None:
        raise InvalidInput("The request has no Host header; send one.")
    name, port = _authority(host)
    if not _is_ours(name, allowed, arrived_at):
        raise NotAllowed(f"{name!r} is no name of this control plane; use one that is, or add it to auth.allowedHosts.")
    origin = single(headers, "Origin")
    if origin is not None and not _same(origin, name, port):
        raise NotAllowed(f"A page of {origin!r} may not use this control plane.")
    site = single(headers, "Sec-Fetch-Site")
    if site is not None and site.lower() not in ("same-origin", "none"):
        raise NotAllowed("A page of another origin may not use this control plane.")


def bearer(headers: Headers) -> str | None:
    """The bearer token; None where there is none. InvalidInput where there are two, or another scheme."""
    value = single(headers, "Authorization")
    if value is None:
        return None
    scheme, _, token = value.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise InvalidInput("The Authorization header must be `Bearer <token>`.")
    return token.strip()


def normal_host(name: str) -> str:
    """A host's name or address as it is compared: lower case, no brackets, no final dot, one spelling an address."""
    name = name.strip("[]").removesuffix(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _authority(value: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(value)
    if match is None:
        raise InvalidInput("The Host header must be a name or an address, and a port.")
    return normal_host(match[1]), int(match[2]) if match[2] else None


def _is_ours(name: str, allowed: frozenset[str], arrived_at: str | None) -> bool:
    if name in LOOPBACK_NAMES or name in allowed:
        return True
    if arrived_at is not None and name == normal_host(arrived_at):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(origin: str, name: str, port: int | None) -> bool:
    try:
        page = urlsplit(origin)
        page_port = page.port
    except ValueError:
        return False
    default = _DEFAULT_PORTS.get(page.scheme)
    if default is None or page.hostname is None or "@" in page.netloc:
        return False
    return normal_host(page.hostname) == name and (page_port or default) == (port or default)
