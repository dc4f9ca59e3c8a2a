"""Follows what a workspace and its sidecar print, over their restarts, for as long as somebody reads."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Protocol

import anyio
from anyio.streams.memory import MemoryObjectSendStream

from controlplane.errors import EngineError, NotFound
from controlplane.ports import Engine
from controlplane.workspaces.log_times import exact
from protocol.workspaces import LogLine, LogLines, WorkspaceLogs

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

QUIET_SECONDS: Final = 15.0
AGAIN_SECONDS: Final = 1.0
"""Between looks for a container that does not run."""


class Workspaces(Protocol):
    """Knows the workspaces."""

    def must_exist(self, name: str) -> object:
        """NotFound where there is none."""

    async def logs(self, wanted: WorkspaceLogs) -> LogLines:
        """What was printed until now."""

    def log_sources(self, name: str) -> dict[str, str]:
        """The containers by what their lines are called."""


class Logs:
    """Everybody who follows. Nothing is read from Docker that was not taken: who reads slowly holds up nobody else."""

    def __init__(self, engine: Engine, workspaces: Workspaces) -> None:
        self._engine = engine
        self._workspaces = workspaces
        self._tasks: TaskGroup | None = None
        self._scopes: set[anyio.CancelScope] = set()

    def run_in(self, tasks: "TaskGroup") -> None:
        """Containers are followed in this task group."""
        self._tasks = tasks

    def close(self) -> None:
        """End all of it: the control plane stops."""
        for scope in self._scopes:
            scope.cancel()

    def must_exist(self, name: str) -> None:
        """NotFound where there is no such workspace."""
        self._workspaces.must_exist(name)

    async def follow(self, wanted: WorkspaceLogs) -> AsyncIterator[LogLine | None]:
        """The newest lines, then new ones as they come; None where there were none for a while. Ends with the
        workspace."""
        items = (await self._workspaces.logs(wanted)).items
        for line in items:
            yield line
        # A source that has no line among the newest had none after the oldest of them.
        begin = items[0].at if items else exact(wanted.since)
        since: dict[str, str | None] = dict.fromkeys(self._workspaces.log_sources(wanted.name), begin)
        since |= {line.source: line.at for line in items}
        scope = anyio.CancelScope()
        send, receive = anyio.create_memory_object_stream[LogLine](0)
        assert self._tasks is not None
        self._scopes.add(scope)
        self._tasks.start_soon(self._all, wanted.name, since, send, scope)
        try:
            while True:
                line_or_none = None
                with anyio.move_on_after(QUIET_SECONDS):
                    try:
                        line_or_none = await receive.receive()
                    except anyio.EndOfStream:
                        return
                yield line_or_none
        finally:
            self._scopes.discard(scope)
            scope.cancel()
            receive.close()

    async def _all(
        self, name: str, since: dict[str, str | None], to: MemoryObjectSendStream[LogLine], scope: anyio.CancelScope
    ) -> None:
        async with to:
            with scope:
                async with anyio.create_task_group() as group:
                    for source, container in self._workspaces.log_sources(name).items():
                        group.start_soon(self._one, name, source, container, since[source], to)

    async def _one(
        self, name: str, source: str, container: str, since: str | None, to: MemoryObjectSendStream[LogLine]
    ) -> None:
        while True:
            with contextlib.suppress(EngineError):  # It is made anew, or Docker is.
                async for entry in self._engine.follow_logs(container, since=since):
                    since = max(since or "", entry.at)
                    # The sidecar's stdout is for the control plane.
                    if source == "workspace" or entry.stream == "stderr":
                        await to.send(LogLine(at=entry.at, source=source, text=entry.text))
            await anyio.sleep(AGAIN_SECONDS)
            try:
                self._workspaces.must_exist(name)
            except NotFound:
                return
