"""What the control plane tells of itself, and how it is told to end."""

import socket
import time
from collections.abc import Awaitable, Callable

from protocol.agent import AgentInfo, Killed
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
