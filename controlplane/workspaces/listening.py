"""What listens in a workspace, from what ``ss`` says there. Pure. It may say anything, and is bounded here."""

import ipaddress
import re
from typing import Final

from protocol.workspaces import ListeningPort

COMMAND: Final = ("timeout", "10", "ss", "-Htulnp")
OUTPUT_LIMIT: Final = 1 << 18
PORTS_SHOWN: Final = 500

_HIDDEN: Final = frozenset({(7392, "tcp"), (18789, "tcp"), (41641, "udp")})
"""Perry's own: the worker, the wake door, the sidecar's WireGuard."""

_LINE: Final = re.compile(r"^(tcp|udp)\s+\S+\s+\d+\s+\d+\s+(\S+):(\d{1,5})\s+\S+(?:\s+users:\(\(\"([^\"]{1,64})\")?")
_DNS: Final = ("127.0.0.11", "127.0.0.53")
"""Docker's resolver and the sidecar's."""


def listening(output: str) -> list[ListeningPort]:
    """Ports by number, each address of a port once. What makes no sense is left out."""
    found: dict[tuple[int, str, str], ListeningPort] = {}
    for line in output.splitlines():
        if (match := _LINE.match(line)) is None:
            continue
        protocol, address, number, process = match[1], _address(match[2]), int(match[3]), match[4]
        if address is None or not 0 < number < 65536 or (number, protocol) in _HIDDEN or address in _DNS:
            continue
        found.setdefault(
            (number, protocol, address),
            ListeningPort(
                port=number,
                protocol=protocol,
                address=address,
                loopback=ipaddress.ip_address(address).is_loopback,
                process=process if process and process.isprintable() else None,
            ),
        )
        if len(found) >= PORTS_SHOWN:
            break
    return [found[key] for key in sorted(found)]


def _address(text: str) -> str | None:
    text = text.strip("[]").partition("%")[0].strip("[]")
    if text == "*":
        return "::"
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
