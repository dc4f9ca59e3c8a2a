"""Whether the control plane can do its work now."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import anyio

from controlplane.errors import PerryError
from protocol.health import Check, Readiness

Probe = Callable[[], Awaitable[str | None]]
"""Asks one thing that we need. What it returns is shown; PerryError says that it is not ready, and what to do.
Degraded says so too, and is no reason not to be ready."""

PATIENCE: Final = 3.0


class Degraded(Exception):
    """What is asked works, and a person should mend something; the message says what, in a sentence."""


async def readiness(probes: Mapping[str, Probe]) -> Readiness:
    """Ask all of them at once; each has three seconds."""
    found: dict[str, Check] = {}
    async with anyio.create_task_group() as group:
        for name, probe in probes.items():
            group.start_soon(_ask, name, probe, found)
    checks = [found[name] for name in probes]
    failed = next((check for check in checks if not check.ok), None)
    return Readiness(ready=failed is None, checks=checks, error=failed.detail if failed else None)


async def _ask(name: str, probe: Probe, found: dict[str, Check]) -> None:
    try:
        with anyio.fail_after(PATIENCE):
            detail = await probe()
        found[name] = Check(name=name, ok=True, detail=detail)
    except Degraded as exc:
        found[name] = Check(name=name, ok=True, detail=str(exc), degraded=True)
    except PerryError as exc:
        found[name] = Check(name=name, ok=False, detail=exc.message)
    except TimeoutError:
        found[name] = Check(name=name, ok=False, detail=f"{name} does not answer within {PATIENCE:g} s.")
