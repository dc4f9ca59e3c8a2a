"""What features ask of others that stand above or beside them, so that imports point one way all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol


class Provisions(Protocol):
    """What the person's workspaces are given: credentials, settings, scripts."""

    async def bring(self, container: str, name: str) -> str | None:
        """Credentials and settings, before the clone. What is worth saying; PerryError where something failed."""

    async def prepare(self, container: str, name: str, progress: Callable[[str], None]) -> bool:
        """The person's own scripts, after the clone. False where there are none; PerryError where one failed."""


class Uploads(Protocol):
    """Bodies that a client sent ahead (git bundles)."""

    def path(self, upload_id: str) -> Path | None:
        """Where a complete upload lies; None where there is none."""

    def discard(self, upload_id: str) -> None: ...


class Waker(Protocol):
    """Takes a wake for whoever waits, for good; see :mod:`controlplane.wake`. What follows is the outbox's."""

    async def wake(
        self,
        text: str,
        *,
        mode: str = "now",
        session: str = "main",
        workspace: str | None = None,
        task: str | None = None,
        id: str | None = None,
    ) -> str:
        """The wake's id, once it is on the disk. A known ``id`` is the same wake. InvalidInput for an empty text;
        TooMany where far too many wait."""
