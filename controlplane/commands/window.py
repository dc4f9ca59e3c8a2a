"""How much may be on its way: what one side has not taken yet, the other has not sent."""

from collections import deque

import anyio

from protocol.exec import WINDOW


class Broken(Exception):
    """The other side does not keep to the rules; the text says to which."""


class Credit:
    """What we may still send."""

    def __init__(self) -> None:
        self._left = WINDOW
        self._more = anyio.Event()

    async def take(self, most: int) -> int:
        """Wait until something may be sent, and say how much of ``most`` that is."""
        while self._left == 0:
            self._more = anyio.Event()
            await self._more.wait()
        taken = min(self._left, most)
        self._left -= taken
        return taken

    def give(self, count: int) -> None:
        """The other side has taken so much."""
        if self._left + count > WINDOW:
            raise Broken("more was reported as taken than was sent")
        self._left += count
        self._more.set()


class Inbox:
    """What has come and waits to be taken: no more than the window."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._news = anyio.Event()

    def put(self, data: bytes) -> None:
        if self._ended:
            raise Broken("stdin went on after its end")
        if self._held + len(data) > WINDOW:
            raise Broken("more stdin was sent than was reported as taken")
        self._held += len(data)
        self._waiting.append(data)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def get(self) -> bytes | None:
        """The next piece; None at the end."""
        while not self._waiting:
            if self._ended:
                return None
            self._news = anyio.Event()
            await self._news.wait()
        return self._waiting.popleft()

    def taken(self, count: int) -> None:
        """So much of what was got is out of our hands."""
        self._held -= count
