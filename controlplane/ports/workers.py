"""The workers inside workspaces: streams to them, who keeps those, and who listens."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import anyio

from controlplane.ports.containers import ContainerState, File
from protocol.worker import Event, Hello, Request, Result
from protocol.workspaces import WorkspaceWorker


class WorkerLink(Protocol):
    """An open stream to one workspace's worker. Errors are :class:`~controlplane.errors.WorkerError` and its kind.

    What comes out of it is within the bounds of :mod:`protocol.worker`, and otherwise as hostile as a workspace is.
    """

    @property
    def hello(self) -> Hello: ...

    def events(self) -> AsyncIterator[Event]:
        """As they come. While nobody reads, the worker waits. Ends with WorkerUnavailable when the stream breaks."""

    async def ask(self, request: Request) -> Result:
        """Its answer, which is of the kind that the request names. A refusal is a WorkerError, with its sentence."""


class Workers(Protocol):
    """Opens streams to workers."""

    def dial(
        self, address: str, secret: str, *, epoch: str | None = None, after: int | None = None
    ) -> AbstractAsyncContextManager[WorkerLink]:
        """WorkerUnavailable where none answers, WorkerError where it does not take the secret or speaks otherwise."""


class WorkerKeeper(Protocol):
    """Sees to it that each workspace has a worker, and that its stream stands."""

    def files(self, workspace: str) -> Sequence[File]:
        """What its container is given before it starts."""

    async def attend(
        self, workspace: str, container: ContainerState, address: str | None, enough: anyio.Event
    ) -> str | None:
        """Put the right worker in place where another is, and return when its stream stands. For a workspace that has
        just been started; ``address`` is its pod's. What is worth saying; PerryError where it cannot be.

        Once ``enough`` is set, the right one that is only coming up is not waited for.
        """

    def shown(self, workspace: str) -> WorkspaceWorker | None:
        """How its worker stands; None where nobody looks after it."""


class WorkerFollower(Protocol):
    """A feature that hears what every workspace's worker tells. Called on the event loop; nothing here waits."""

    def attached(self, workspace: str, link: WorkerLink) -> None:
        """A stream stands. Unless ``link.hello.resumed``, every session is told anew, then SnapshotEnd."""

    def told(self, workspace: str, event: Event) -> None: ...

    def detached(self, workspace: str) -> None:
        """The stream broke, or the workspace stopped. What was asked on its link fails by itself."""

    def deleted(self, workspace: str) -> None:
        """The workspace is gone for good."""
