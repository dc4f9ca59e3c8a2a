"""What the worker's parts can do for each other. The stream knows no coding agent, and the agents know no stream."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from protocol.worker import (
    AgentSignal,
    AgentStatus,
    DeleteInStore,
    Page,
    Pages,
    ReadSession,
    ReadSessions,
    RenameInStore,
    Request,
    Result,
    SessionGone,
    SessionSeen,
    StoreSeen,
    TaskSeen,
    WakeSpooled,
)

UNNUMBERED = 0
"""The ``seq`` of what is told: the journal gives it its number."""

Notice = SessionSeen | SessionGone | StoreSeen | TaskSeen | WakeSpooled | AgentSignal

Told = Callable[[Notice], None]
"""Hears that a session (a task, a wake, a signal) is new, has changed or is gone. Called on the event loop; it never
waits and never raises. Telling the same again is allowed and costs little: the latest of each wins."""


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


Handler = Callable[[Any], Awaitable[Result]]
"""Answers one kind of request. RequestRefused where that cannot be."""


class Part(Protocol):
    """A feature of the worker, as the stream sees it. All calls are made on the event loop; none blocks it."""

    async def run(self, told: Told) -> None:
        """Do what it does, for ever. Everything that is found at first is told too; only cancellation ends it."""

    async def looked(self) -> None:
        """Returns when all that was there at the start is ``seen``: what is not by then, is taken for gone."""

    def seen(self) -> Sequence[Notice]:
        """All that stands now, ``seq`` UNNUMBERED: what a control plane hears that was away too long. No I/O.

        What changes here is told in the same moment, with no waiting in between.
        """

    def handlers(self) -> Mapping[type[Request], Handler]:
        """What it answers, by the kind of request."""


class Sessions(Protocol):
    """The sessions of all coding agents of one home folder. All calls are made on the event loop; none blocks it."""

    async def run(self, told: Told) -> None:
        """Look and watch, for ever. Everything that is found at first is told too; it ends only by cancellation."""

    @property
    def watching(self) -> bool:
        """Whether changes are heard of by themselves, and not by looking again and again."""

    async def looked(self) -> None:
        """Returns when all that was there at the start is ``seen``, or has been waited for long enough."""

    def seen(self) -> list[SessionSeen | StoreSeen]:
        """Every session that was told and not gone, as it is, and each agent whose store could not be looked at as a
        whole yet; ``seq`` UNNUMBERED. For snapshots; no I/O."""

    async def read(self, request: ReadSession) -> Page:
        """RequestRefused where that cannot be."""

    async def read_several(self, request: ReadSessions) -> Pages:
        """A session that cannot be read is refused in its place."""

    async def rename(self, request: RenameInStore) -> None:
        """RequestRefused where that cannot be."""

    async def delete(self, request: DeleteInStore) -> None:
        """RequestRefused where that cannot be. That it is gone is told too."""

    def agents(self) -> list[AgentStatus]:
        """Each agent that left something here; no I/O."""
