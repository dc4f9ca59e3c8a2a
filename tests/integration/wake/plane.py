"""The half of a control plane that wakes pass through, as a process that tests kill: streams to workers, outbox,
forwarder.

    python -m tests.integration.wake.plane FOLDER GATEWAY-URL PAUSE WORKSPACE=ADDRESS…
"""

import sys
import time
from pathlib import Path

import anyio

from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.db import Database
from controlplane.settings.hooks import GatewaySettings, HookSettings
from controlplane.wake import verdict
from controlplane.wake.rate import Rate
from controlplane.wake.service import WakeService
from controlplane.wake.spools import Spools
from controlplane.workers.fleet import Fleet
from protocol.version import VERSION
from tests.fakes.surface import outgoing

SECRET = "s" * 43


async def main(folder: Path, url: str, pause: float, addresses: dict[str, str]) -> None:
    verdict.FIRST_PAUSE, verdict.LONGEST_PAUSE = 0.05, 0.3  # type: ignore[misc]
    known = GatewaySettings(name="home", url=url, token_file="token", pause=pause)
    wakes = WakeService(Database.open(folder / "state.db"), HookSettings(gateways=(known,)), folder, outgoing(folder))
    spools = Spools(wakes, Rate(time.monotonic, burst=10_000))

    async def address(workspace: str) -> str | None:
        return addresses[workspace]

    async def renew(workspace: str) -> None:
        pass

    fleet = Fleet(
        WebSocketWorkers(VERSION),
        secret=lambda _: SECRET,
        address=address,
        renew_secret=renew,
        changed=lambda _: None,
    )
    fleet.register(spools)
    async with anyio.create_task_group() as tasks:
        spools.run_in(tasks)
        fleet.run_in(tasks)
        tasks.start_soon(wakes.run)
        for workspace, at in addresses.items():
            fleet.follow(workspace, at)


if __name__ == "__main__":
    folder, url, pause, *places = sys.argv[1:]
    anyio.run(main, Path(folder), url, float(pause), dict(place.split("=") for place in places))
