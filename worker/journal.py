"""What has been told, numbered: enough of it that a control plane that was away for a moment goes on where it was.

The latest of each session (task, wake) is kept, and what came before it forgotten: a session that changes a thousand
times takes one place. The ring is bounded; when it is full the oldest goes, and whoever has not heard that yet has to
hear everything anew.
"""

import asyncio
import secrets

import msgspec

from protocol.worker import SessionGone, SessionSeen, StoreSeen
from worker.ports import Notice

RING = 16_384
"""Sessions, tasks and wakes whose latest news are kept."""


class Journal:
    """The news of one run of the worker. For one event loop."""

    def __init__(self, ring: int = RING) -> None:
        self.epoch = secrets.token_urlsafe(9)
        """Tells the runs of a worker apart: numbers mean nothing in another."""
        self.seq = 0
        """The number of the latest news."""
        self._ring = ring
        self._latest: dict[tuple[str, ...], Notice] = {}
        """By what they are of, in the order of their numbers."""
        self._floor = 0
        """The greatest number that was dropped."""
        self._news = asyncio.Event()

    def tell(self, notice: Notice) -> None:
        """Give it the next number, and wake whoever waits."""
        self.seq += 1
        key = _key(notice)
        self._latest.pop(key, None)
        self._latest[key] = msgspec.structs.replace(notice, seq=self.seq)
        if len(self._latest) > self._ring:
            self._floor = self._latest.pop(next(iter(self._latest))).seq
        self._news.set()

    def since(self, after: int) -> list[Notice] | None:
        """What came after that number, in its order; None where some of it is forgotten, or that number is not ours."""
        if not self._floor <= after <= self.seq:
            return None
        found: list[Notice] = []
        for notice in reversed(self._latest.values()):
            if notice.seq <= after:
                break
            found.append(notice)
        return found[::-1]

    async def beyond(self, after: int) -> None:
        """Wait until there is something after that number."""
        while self.seq <= after:
            self._news.clear()
            await self._news.wait()


def _key(notice: Notice) -> tuple[str, ...]:
    if isinstance(notice, SessionSeen | SessionGone):
        return ("session", notice.agent, notice.session_id)
    if isinstance(notice, StoreSeen):
        return ("store", notice.agent)
    return (type(notice).__name__, notice.id)
