"""Wakes with a gateway that is an HTTP server on loopback; nothing else is needed."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from controlplane.db import Database
from controlplane.settings.hooks import GatewaySettings, HookSettings
from controlplane.wake.service import Outgoing, WakeService
from protocol.wake import WakeRef
from tests.fakes.wake_gateway import Gateway

Make = Callable[..., WakeService]


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    gateway = Gateway()
    async with gateway.open():
        yield gateway


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database.open(tmp_path / "state.db")
    yield database
    database.close()


def settings(folder: Path, *gateways: Gateway, kind: str = "openclaw", pause: float = 20) -> HookSettings:
    """Settings with these gateways, named g0, g1 …, whose tokens stand in files."""
    made = []
    for number, gateway in enumerate(gateways):
        file = folder / f"token-{number}"
        file.write_text(gateway.token)
        file.chmod(0o600)
        made.append(
            GatewaySettings(name=f"g{number}", url=gateway.url, token_file=str(file), kind=kind, pause=pause)  # type: ignore[arg-type]
        )
    return HookSettings(gateways=tuple(made))


def outgoing(folder: Path, *, on_tailnet: bool = False, own_port: int = 7391) -> Outgoing:
    return Outgoing(
        on_tailnet=on_tailnet,
        domain=lambda: "perry.internal",
        forward=folder / "forward.sock",
        places=folder / "places.json",
        own_port=own_port,
        own_addresses=lambda: ["100.64.0.9"],
    )


@asynccontextmanager
async def running(wakes: WakeService) -> AsyncIterator[WakeService]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakes.run)
        yield wakes
        tasks.cancel_scope.cancel()


def state(wakes: WakeService, id_: str) -> str:
    return str(wakes.show(WakeRef(id=id_)).wake.state)
