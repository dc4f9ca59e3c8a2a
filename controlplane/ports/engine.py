"""What is asked of Docker, while things run."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from controlplane.ports.containers import (
    ContainerSpec,
    ContainerState,
    EngineEvent,
    EngineInfo,
    ExecOutput,
    File,
    LogEntry,
    NetworkSpec,
    NetworkState,
    VolumeState,
)


class Process(Protocol):
    """A command that runs in a container, with its streams. Errors are EngineErrors."""

    async def read(self) -> tuple[str, bytes] | None:
        """(``stdout`` or ``stderr``, bytes), None at the end. While nobody reads, the command waits: nothing piles up.

        With a terminal all is ``stdout``.
        """

    async def write(self, data: bytes) -> None:
        """To its stdin; waits while the command does not read. What a command no longer reads is dropped."""

    async def end_input(self) -> None:
        """Close its stdin. With a terminal this does nothing."""

    async def resize(self, columns: int, rows: int) -> None:
        """Its terminal has another size."""

    async def exit_code(self) -> int | None:
        """None while it runs. 128 and more after a signal."""


class Engine(Protocol):
    """Docker. Errors are :class:`~controlplane.errors.EngineError` and its kind."""

    async def close(self) -> None: ...

    async def info(self) -> EngineInfo:
        """Raises EngineUnavailable with what to do when Docker does not answer."""

    async def image_id(self, image: str) -> str | None:
        """The id of a local image, None where it is missing."""

    async def labels_of(self, image: str) -> Mapping[str, str] | None:
        """The labels of a local image, which its containers have too; None where it is missing."""

    async def read_folder(self, image: str, path: str) -> bytes:
        """A folder of an image as a tar, whose names begin with the folder's own. ImageMissing; EngineError."""

    async def ensure_network(self, spec: NetworkSpec) -> None:
        """EngineConflict where the subnet overlaps another network's."""

    async def remove_network(self, name: str) -> None: ...

    async def networks(self, labels: Mapping[str, str]) -> list[NetworkState]: ...

    async def subnets_in_use(self) -> list[str]:
        """The subnets of all of Docker's networks, ours and others'."""

    async def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None: ...

    async def remove_volume(self, name: str) -> None: ...

    async def volumes(self, labels: Mapping[str, str]) -> list[VolumeState]: ...

    async def ensure_container(self, spec: ContainerSpec) -> str:
        """Its id. A container of that name with the same ``perry.spec`` label is kept, another is replaced."""

    async def start(self, container: str) -> None: ...

    async def stop(self, container: str, seconds: int = 10) -> None: ...

    async def signal(self, container: str, signal: str) -> None: ...

    async def pause(self, container: str) -> None:
        """Freeze all that runs in it; commands cannot be run then. EngineConflict where it does not run."""

    async def unpause(self, container: str) -> None:
        """Let it go on. Succeeds where it is not frozen, or not there."""

    async def remove_container(self, container: str) -> None:
        """By force; volumes stay."""

    async def commit(self, container: str, image: str, labels: Mapping[str, str]) -> None:
        """Make an image, ``name:tag``, of the container's own file system, without what is in its volumes.

        It gets the container's configuration, with ``labels`` above the container's own. A container that runs is not
        frozen meanwhile; freeze it where that matters.
        """

    async def remove_images(self, labels: Mapping[str, str]) -> None:
        """Those that carry all of ``labels``. What something still uses stays."""

    async def inspect(self, container: str) -> ContainerState | None:
        """None where there is none. One that is frozen counts as running; its status is ``paused``."""

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        """Running or not. ``address`` and ``network_of`` may be absent here; ``inspect`` has them."""

    async def send(self, container: str, data: bytes) -> None:
        """Put bytes on the standard input of a container that runs. Its spec has ``stdin``, or they are lost."""

    async def put_files(self, container: str, files: Sequence[File]) -> None:
        """Into a created container, running or not, volumes included. Not atomic.

        The deepest folder that has all of them must exist; folders below it are made, and belong to root.
        """

    async def put_archive(self, container: str, folder: str, archive: bytes) -> None:
        """Unpack a tar, gzipped or not, in a folder that exists. Not atomic."""

    async def exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str = "root",
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: AsyncIterator[bytes] | None = None,
        limit: int = 1 << 20,
    ) -> ExecOutput:
        """Run a command to its end. Cancelling the call does not end it; wrap it in ``timeout`` where it must end."""

    def exec_stream(
        self, container: str, command: Sequence[str], *, user: str = "root", cwd: str | None = None
    ) -> AsyncIterator[tuple[str, bytes]]:
        """Pairs of (``stdout`` or ``stderr``, bytes), at last (``exit``, the decimal exit code)."""

    def process(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        tty: bool = False,
    ) -> AbstractAsyncContextManager[Process]:
        """Start a command, the leader of a session of its own. Leaving the block closes its streams, and ends nothing.

        A command that cannot be started says so in its output, and has an exit code.
        """

    async def run_once(self, spec: ContainerSpec, *, seconds: float = 30) -> ExecOutput:
        """Create, run to its end, remove."""

    async def logs(self, container: str, *, tail: int, since: str | None = None) -> list[LogEntry]: ...

    def follow_logs(self, container: str, *, since: str | None = None) -> AsyncIterator[LogEntry]:
        """Lines after ``since``, and new ones as they come; each stream in its order. Ends when the container stops."""

    def follow_stdout(self, container: str) -> AsyncIterator[str]:
        """Lines of stdout from the container's latest start on, and new ones as they come; ends when it stops."""

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[EngineEvent]:
        """Ends with EngineUnavailable when Docker goes away."""
