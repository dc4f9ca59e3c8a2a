"""At a boot the worker waits for its first client before it loads the rest of itself.

Its imports cost a fifth of a second of CPU. When a workspace boots somebody waits for ssh, and the control plane comes
when that answers; who comes has the worker loaded, and finds his connection waiting. Where nobody comes, it goes on.
"""

import selectors
import socket
from collections.abc import Mapping

STREAM_PORT = 7392
DOOR_PORT = 18789
"""As protocol.worker and protocol.wake have them, which load much more than this module may (a test compares)."""


def until_somebody_comes(environ: Mapping[str, str], seconds: float) -> list[socket.socket]:
    """The sockets of stream and wake door, which listen, after the first client or so many seconds.

    Empty where one of them is taken: whoever listens then later says so, in its own words.
    """
    host = environ.get("PERRY_WORKER_HOST") or "0.0.0.0"
    addresses = [
        (host, int(environ.get("PERRY_WORKER_PORT") or STREAM_PORT)),
        ("127.0.0.1", int(environ.get("PERRY_WORKER_WAKE_PORT") or DOOR_PORT)),
    ]
    listening: list[socket.socket] = []
    try:
        listening.extend(socket.create_server(address, backlog=100) for address in addresses)
    except OSError:
        for each in listening:
            each.close()
        return []
    with selectors.DefaultSelector() as coming:
        for each in listening:
            coming.register(each, selectors.EVENT_READ)
        coming.select(seconds)
    return listening


def by_port(listening: list[socket.socket]) -> dict[int, socket.socket]:
    """Each under the port that it listens on."""
    return {each.getsockname()[1]: each for each in listening}
