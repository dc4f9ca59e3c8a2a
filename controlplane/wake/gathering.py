"""One commit for all that come at once."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import anyio

TICK: Final = 0.001
TICKS: Final = 10
"""A commit waits for others that come right after, in seconds, for as long as more of them do."""

T = TypeVar("T")


class _Ticket(Generic[T]):
    """Something that waits for its commit."""

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = anyio.Event()
        self.error: Exception | None = None


class Gathering(Generic[T]):
    """``commit`` is given all that came meanwhile, in order. What it raises, everybody hears who waited for it."""

    def __init__(self, commit: Callable[[list[T]], None]) -> None:
        self._commit = commit
        self._tickets: list[_Ticket[T]] = []

    async def add(self, item: T) -> None:
        """Returns when it is committed: by whoever came first, for all who come meanwhile. Cancelled or not, what was
        given is committed."""
        ticket = _Ticket(item)
        self._tickets.append(ticket)
        if len(self._tickets) == 1:
            with anyio.CancelScope(shield=True):
                await self._gather()
                self._commit_all()
        else:
            await ticket.done.wait()
        if ticket.error is not None:
            raise ticket.error

    async def _gather(self) -> None:
        for _ in range(TICKS):
            before = len(self._tickets)
            await anyio.sleep(TICK)
            if len(self._tickets) == before:
                return

    def _commit_all(self) -> None:
        tickets, self._tickets = self._tickets, []
        try:
            self._commit([ticket.item for ticket in tickets])
        except Exception as exc:
            for ticket in tickets:
                ticket.error = exc
        for ticket in tickets:
            ticket.done.set()
