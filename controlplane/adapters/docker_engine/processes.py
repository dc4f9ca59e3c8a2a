"""A command in a container, on the connection that Docker hands over for its streams."""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import aiodocker

from controlplane.adapters.docker_engine.errors import translated

NEVER_TYPED: Final = ",".join(["ctrl-^", "ctrl-@"] * 8)
"""Docker detaches a terminal at certain keys, ctrl-p ctrl-q where it is told none, and keeps the first of them back."""


class DockerProcess:
    """See :class:`controlplane.ports.Process`."""

    def __init__(self, container: str, run: Any, stream: Any, tty: bool) -> None:
        self._container = container
        self._run = run
        self._stream = stream
        self._tty = tty

    async def read(self) -> tuple[str, bytes] | None:
        with translated(f"read from a command in {self._container}"):
            message = await self._stream.read_out()
        if message is None:
            return None
        return ("stdout" if message.stream == 1 else "stderr"), message.data

    async def write(self, data: bytes) -> None:
        if self._transport is None:
            return
        with contextlib.suppress(ConnectionError, RuntimeError):
            await self._stream.write_in(data)

    async def end_input(self) -> None:
        transport = self._transport
        if transport is not None and not self._tty:
            with contextlib.suppress(OSError, RuntimeError):
                transport.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        # A command that has just ended has no terminal any more.
        with translated("resize a terminal"), contextlib.suppress(aiodocker.DockerError):
            await self._run.resize(w=columns, h=rows)

    async def exit_code(self) -> int | None:
        with translated(f"look at a command in {self._container}"):
            shown = await self._run.inspect()
        return None if shown["Running"] else shown["ExitCode"]

    @property
    def _transport(self) -> Any:
        connection = self._stream._resp.connection if self._stream._resp is not None else None
        transport = None if connection is None else connection.transport
        return None if transport is None or transport.is_closing() else transport


@contextlib.asynccontextmanager
async def started(
    docker: aiodocker.Docker,
    container: str,
    command: Sequence[str],
    *,
    user: str,
    env: Mapping[str, str] | None,
    tty: bool,
) -> AsyncIterator[DockerProcess]:
    """Start a command; see :meth:`controlplane.ports.Engine.process`."""
    with translated(f"run {command[0]} in {container}"):
        run = await docker.containers.container(container).exec(
            list(command),
            stdin=True,
            tty=tty,
            user=user,
            environment=dict(env) if env else None,
            detach_keys=NEVER_TYPED if tty else None,
        )
        stream: Any = run.start(detach=False)
        await stream._init()
    try:
        yield DockerProcess(container, run, stream, tty)
    finally:
        connection = stream._resp.connection
        transport = None if connection is None else connection.transport
        await stream.close()
        if transport is not None:
            # What the command has not read by now would keep the connection open for as long as that runs.
            transport.abort()
