"""Waiting for an agent that was just started."""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from cli import output
from cli.client import Client
from cli.errors import CliError, NotReachable, NotReady
from protocol.health import Readiness

POLL_SECONDS: Final = 0.1
READY_SECONDS: Final = 60.0
"""How long a control plane in the background may take to be ready before this says that it is not."""
QUIET_SECONDS: Final = 3.0
"""It is silent for so long; then it says what is missing, whenever that changes."""


def wait_until_ready(client: Client, ended: Callable[[], str | None], *, log: str) -> None:
    """Until it is ready. ``ended`` gives its last words once it has ended, and ``log`` is where all of them are."""
    began = time.monotonic()
    shown = ""
    while True:
        if (words := ended()) is not None:
            raise CliError(f"The agent ended as soon as it was started: {words}")
        ready, reason = _ready(client)
        if ready:
            return
        if time.monotonic() - began > READY_SECONDS:
            raise NotReady(
                f"The agent runs and is not ready after {READY_SECONDS:.0f} s: {reason or 'it does not answer.'} "
                f"Its log is {log}."
            )
        if reason and reason != shown and time.monotonic() - began > QUIET_SECONDS:
            shown = reason
            output.note(f"Not ready yet, waiting: {output.clean(reason)}")
        time.sleep(POLL_SECONDS)


def _ready(client: Client) -> tuple[bool, str]:
    try:
        code, body = client.get("/ready")
        found = msgspec.json.decode(body, type=Readiness)
    except NotReachable:
        return False, ""
    except msgspec.DecodeError:
        return False, f"it says HTTP {code}"
    return found.ready, found.error or ""
