"""In which order sessions are read: each takes its turn, a page at a time. What changes now comes before what is read
for the first time, and one that is to be read slowly waits.
"""

import heapq
import itertools
import time
from collections import deque
from typing import Final

import anyio

from controlplane.sessions.aggregate import Key

LIVE_TURNS: Final = 4
"""Of so many turns one is of what is read for the first time."""


class Turns:
    """Sessions that are to be read. One that is queued or under way is not queued again."""

    def __init__(self) -> None:
        self._live: deque[Key] = deque()
        self._first: list[tuple[float, int, Key]] = []
        self._later: list[tuple[float, int, Key]] = []
        self._taken: set[Key] = set()
        self._order = itertools.count()
        self._turns = itertools.cycle(range(LIVE_TURNS))
        self._ready = anyio.Event()

    @property
    def first(self) -> int:
        """How many are to be read for the first time."""
        return len(self._first)

    def put(self, key: Key, *, due: float, first: float | None = None) -> None:
        """Have it read, not before ``due``; ``first``: for the first time, in the order of these numbers."""
        if key in self._taken:
            return
        self._taken.add(key)
        if due > time.monotonic():
            heapq.heappush(self._later, (due, next(self._order), key))
        elif first is not None:
            heapq.heappush(self._first, (first, next(self._order), key))
        else:
            self._live.append(key)
        self._ready.set()

    async def next(self, most: int) -> tuple[list[Key], bool]:
        """Whose turn it is, and whether they are read for the first time; they are under way until :meth:`done`.

        One that has changed; or those that are read for the first time, at most so many. With 0 none of the latter.
        """
        while True:
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                self._live.append(heapq.heappop(self._later)[2])
            if self._live or (self._first and most):
                if self._first and most and (not self._live or next(self._turns) == 0):
                    return [heapq.heappop(self._first)[2] for _ in range(min(most, len(self._first)))], True
                return [self._live.popleft()], False
            if self._ready.is_set():
                # One for all who wait: each of them waits for the same.
                self._ready = anyio.Event()
            with anyio.move_on_after(self._later[0][0] - now if self._later else None):
                await self._ready.wait()

    def done(self, key: Key) -> None:
        """Its page was read; it may be queued again."""
        self._taken.discard(key)
