"""Finds the agent of the tailnet that this device is on, for a person who has set up nothing.

It is called ``perry`` there. A name alone proves nothing: any network's resolver may answer for it. So both ends of the
connection have to have addresses of a tailnet, between which WireGuard says who is who.
"""

import contextlib
import ipaddress
import socket
import threading
from typing import Final

NAME: Final = "perry"
SECONDS: Final = 1.0
"""For the name, and for the connection. Somebody waits for it who has no agent at all."""

RANGES: Final = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))


def found(port: int, name: str = NAME) -> bool:
    """Whether an agent listens at this name of the tailnet."""
    return any(_connects(address, port) for address in _resolved(name) if _is_of_a_tailnet(address))


def _resolved(name: str) -> list[str]:
    """Addresses of the name. A resolver may take half a minute to say that there are none; nobody waits so long."""
    answers: list[str] = []

    def ask() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            answers.extend(str(answer[4][0]) for answer in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(SECONDS)
    return list(answers)


def _connects(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=SECONDS) as connection:
            return _is_of_a_tailnet(str(connection.getsockname()[0]))
    except OSError:
        return False


def _is_of_a_tailnet(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address.version == network.version and address in network for network in RANGES)
