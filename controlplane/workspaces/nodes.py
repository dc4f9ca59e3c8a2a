"""Who is on the tailnet, asked for as seldom as will do.

To know who asks costs a headscale some 60 ms of CPU each time, and others count what is asked of them.
"""

import time

from controlplane.ports import Node, Tailnet


class Nodes:
    """What the coordinator said lately. Errors are TailnetErrors."""

    def __init__(self, tailnet: Tailnet) -> None:
        self._tailnet = tailnet
        self._told: list[Node] = []
        self._at: float | None = None

    async def now(self) -> list[Node]:
        """Ask."""
        began = time.monotonic()
        self._told = await self._tailnet.nodes()
        self._at = began
        return self._told

    async def lately(self, seconds: float) -> list[Node]:
        """As they were at most so many seconds ago."""
        if self._at is None or time.monotonic() - self._at > seconds:
            return await self.now()
        return self._told
