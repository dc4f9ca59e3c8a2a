"""What the worker's parts can do for each other. The stream knows no coding agent, and the agents know no stream."""

from collections.abc import Callable
from typing import Protocol

from protocol.worker import (
    AgentStatus,
    DeleteInStore,
    Page,
    ReadSession,
    RenameInStore,
    SessionGone,
    SessionSeen,
)

UNNUMBERED = 0
"""The ``seq`` of what is told: the journal gives it its number."""

Told = Callable[[SessionSeen | SessionGone], None]
"""Hears that a session is new, has changed or is gone. Called on the event loop; it never waits and never raises.

Telling the same again is allowed and costs little: the latest of each session wins."""


class RequestRefused(Exception):
    """What was asked is not done; the message is a sentence for people."""

    def __init__(self, message: str, *, code: str = "failed") -> None:
        """``code`` is one of :class:`protocol.worker.Refused`."""
        super().__init__(message)
        self.code = code
        self.message = message


class SessionMissing(RequestRefused):
    """There is no such session, or no longer."""

    def __init__(self, agent: str, session_id: str) -> None:
        super().__init__(f"{agent} has no session {session_id!r} here.", code="missing")


class Sessions(Protocol):
    """The sessions of all coding agents of one home folder. All calls are made on the event loop; none blocks it."""

    async def run(self, told: Told) -> None:
        """Look and watch, for ever. Everything that is found at first is told too; it ends only by cancellation."""

    @property
    def watching(self) -> bool:
        """Whether changes are heard of by themselves, and not by looking again and again."""

    def seen(self) -> list[SessionSeen]:
        """Every session that was told and not gone, as it is, ``seq`` UNNUMBERED. For snapshots; no I/O."""

    async def read(self, request: ReadSession) -> Page:
        """RequestRefused where that cannot be."""

    async def rename(self, request: RenameInStore) -> None:
        """RequestRefused where that cannot be."""

    async def delete(self, request: DeleteInStore) -> None:
        """RequestRefused where that cannot be. That it is gone is told too."""

    def agents(self) -> list[AgentStatus]:
        """Each agent that left something here; no I/O."""
