"""The outside systems that a control plane works on."""

import msgspec

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.adapters.machine import LocalMachine
from controlplane.adapters.tailnet import make_tailnet
from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.ports import Engine, Machine, Tailnet, Workers
from controlplane.settings import Loaded
from protocol.version import VERSION


class Outside(msgspec.Struct, frozen=True):
    """The outside systems of a control plane; tests and `make dev` give fakes."""

    engine: Engine
    tailnet: Tailnet
    machine: Machine
    workers: Workers


def real(loaded: Loaded) -> Outside:
    """This machine, its Docker, and the tailnet that the settings name."""
    settings = loaded.settings
    engine = DockerEngine()
    machine = LocalMachine(loaded.folder / "ssh", dns=settings.network.dns)
    machine.ensure_ssh_key()
    tailnet = make_tailnet(settings, loaded.folder, engine, machine)
    return Outside(engine=engine, tailnet=tailnet, machine=machine, workers=WebSocketWorkers(VERSION))
