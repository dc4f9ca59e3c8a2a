"""What the control plane tells of itself, and how it is told to end."""

import socket
import time
from collections.abc import Awaitable, Callable

import msgspec

from controlplane.personal_settings import masked
from controlplane.settings import Loaded, Settings
from protocol.agent import AgentInfo, Killed
from protocol.config import Config, ConfigValue
from protocol.version import VERSION


class Agent:
    """This run of the control plane.

    ``count`` says how many workspaces there are; ``docker_version`` asks Docker, and gives None where it is away;
    ``stop`` begins the graceful end, and returns at once.
    """

    def __init__(
        self,
        *,
        count: Callable[[], int],
        docker_version: Callable[[], Awaitable[str | None]],
        tailnet_provider: str,
        stop: Callable[[], None],
    ) -> None:
        self._began = time.monotonic()
        self._count = count
        self._docker_version = docker_version
        self._tailnet_provider = tailnet_provider
        self._stop = stop

    async def info(self) -> AgentInfo:
        return AgentInfo(
            version=VERSION,
            hostname=socket.gethostname(),
            uptime=round(time.monotonic() - self._began, 3),
            workspaces_count=self._count(),
            docker_version=await self._docker_version(),
            tailnet_provider=self._tailnet_provider,
        )

    async def kill(self) -> Killed:
        """Stop. A graceful end finishes running requests, so this one is answered."""
        self._stop()
        return Killed(ok=True)


def config(loaded: Loaded) -> Config:
    """Every setting with its source, in the order of the settings' declaration."""
    return Config(
        folder=str(loaded.folder),
        items=[
            ConfigValue(key=key, value=masked(key, _value(loaded.settings, key)), source=source)
            for key, source in loaded.sources.items()
        ],
    )


def _value(settings: Settings, key: str) -> object:
    value: object = msgspec.to_builtins(settings)
    for part in key.split("."):
        assert isinstance(value, dict)
        value = value[part]
    return value
