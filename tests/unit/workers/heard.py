"""A follower that believes what it is told, and no more."""

from collections.abc import Awaitable, Callable

from controlplane.ports import WorkerFollower, WorkerLink
from protocol.worker import Event, SessionGone, SessionSeen, SnapshotEnd


class Heard:
    """``marks`` is what it takes for the truth, by workspace; ``log`` what it was told of streams."""

    def __init__(self) -> None:
        self.marks: dict[str, dict[str, str]] = {}
        self.log: list[str] = []
        self.resumed: list[bool] = []
        self._told: dict[str, set[str] | None] = {}
        self.raises = False

    def attached(self, workspace: str, link: WorkerLink) -> None:
        self.log.append(f"attached {workspace}")
        self.resumed.append(link.hello.resumed)
        self.marks.setdefault(workspace, {})
        self._told[workspace] = None if link.hello.resumed else set()

    def told(self, workspace: str, event: Event) -> None:
        if self.raises:
            raise ZeroDivisionError
        marks, told = self.marks[workspace], self._told[workspace]
        if isinstance(event, SessionSeen):
            marks[event.session_id] = event.mark
            if told is not None:
                told.add(event.session_id)
        elif isinstance(event, SessionGone):
            marks.pop(event.session_id, None)
        elif isinstance(event, SnapshotEnd):
            assert told is not None
            self.marks[workspace] = {name: mark for name, mark in marks.items() if name in told}
            self._told[workspace] = None

    def detached(self, workspace: str) -> None:
        self.log.append(f"detached {workspace}")

    def deleted(self, workspace: str) -> None:
        self.log.append(f"deleted {workspace}")
        self.marks.pop(workspace, None)


_typed: type[WorkerFollower] = Heard


async def nothing(workspace: str) -> None:
    """A secret that is put nowhere."""


def at(addresses: dict[str, str]) -> Callable[[str], Awaitable[str | None]]:
    async def address(workspace: str) -> str | None:
        return addresses.get(workspace)

    return address


ACCEPTED_TOO_LATE = "ignore:unclosed:ResourceWarning"
"""For tests that close a server while it is dialled: Python 3.11 forgets a connection that it accepts in that moment.

They collect what was forgotten themselves, with ``gc.collect()``, so that it does not show in the next test.
"""
