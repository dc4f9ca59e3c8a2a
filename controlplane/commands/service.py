"""Runs commands in workspaces for as long as somebody listens."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol

import anyio

from controlplane.commands import launcher
from controlplane.errors import EngineError, InvalidInput, NotReady, PerryError, TookTooLong
from controlplane.ports import Engine, Process
from controlplane.workspaces.checkout import USER
from protocol.exec import ExecSignal, Run

START_SECONDS: Final = 20.0
HANG_UP_SECONDS: Final = 5.0
"""What a command has to end by itself after its client has gone."""

_FIRST_LOOK = 0.01
_LOOK_SECONDS = 0.2
_ENDED_FROM_OUTSIDE = (129, 137, 143)
"""As a workspace ends what runs in it: SIGHUP, SIGKILL, SIGTERM."""
_CTRL_D = b"\x04"
_HELD_LIMIT = 1 << 20
"""Bytes of stderr that are kept while the first line of stdout is on its way; what is more of them is dropped."""


class Located(Protocol):
    """Knows the workspaces."""

    def must_exist(self, name: str) -> object:
        """NotFound where there is none."""

    def is_wanted(self, name: str) -> bool:
        """Whether a workspace is there and meant to run."""

    async def container(self, name: str) -> str:
        """The container of a workspace that runs. NotFound; NotReady where it does not run."""


class NothingToRun(Exception):
    """There is no such program, or it cannot be run. ``code`` is what a shell would end with."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Command:
    """A command that runs. ``read`` gives its output; see :class:`controlplane.ports.Process`."""

    def __init__(
        self,
        engine: Engine,
        container: str,
        process: Process,
        is_wanted: Callable[[], bool],
        *,
        group: int,
        said: list[tuple[str, bytes]],
        tty: bool,
    ) -> None:
        self._engine = engine
        self._is_wanted = is_wanted
        self._container = container
        self._process = process
        self._group = group
        self._said = said
        self._tty = tty
        self.ended = False
        """Its exit code is known, or that there is none."""

    async def read(self) -> tuple[str, bytes] | None:
        if self._said:
            return self._said.pop(0)
        return await self._process.read()

    async def write(self, data: bytes) -> None:
        await self._process.write(data)

    async def end_input(self) -> None:
        if self._tty:
            await self._process.write(_CTRL_D)
        await self._process.end_input()

    async def resize(self, columns: int, rows: int) -> None:
        if self._tty:
            await self._process.resize(columns, rows)

    async def signal(self, signal: ExecSignal) -> None:
        """To its process group. Nothing happens where that has ended, or the workspace has."""
        with contextlib.suppress(EngineError):
            await self._engine.exec(self._container, launcher.signalling(self._group, signal))

    async def exit_code(self) -> int:
        """After its output has ended. NotReady where the workspace was stopped under it."""
        code = await self._over()
        self.ended = True
        if code in _ENDED_FROM_OUTSIDE and await self._stopped():
            raise NotReady("The workspace was stopped while the command ran; `perry start` starts it again.")
        return code

    async def _over(self) -> int:
        """Its exit code, once it has ended: a command may close its output and go on."""
        pause = _FIRST_LOOK
        while True:
            if (code := await self._process.exit_code()) is not None:
                return code
            await anyio.sleep(pause)
            pause = min(pause * 2, _LOOK_SECONDS)

    async def _stopped(self) -> bool:
        """Whether the workspace has stopped or does; a command ends a moment before Docker knows of its container."""
        for _ in range(3):
            if not self._is_wanted():
                return True
            container = await self._engine.inspect(self._container)
            if container is None or not container.running:
                return True
            await anyio.sleep(_LOOK_SECONDS)
        return False

    async def hang_up(self) -> None:
        """End it: SIGHUP, and SIGKILL where it is still there five seconds later."""
        with anyio.CancelScope(shield=True), contextlib.suppress(PerryError):
            await self.signal(ExecSignal.HUP)
            with anyio.move_on_after(HANG_UP_SECONDS):
                await self._over()
                return
            await self.signal(ExecSignal.KILL)


class Commands:
    """All commands that run for somebody. ``ended`` is set when the control plane stops."""

    def __init__(self, engine: Engine, workspaces: Located) -> None:
        self._engine = engine
        self._workspaces = workspaces
        self.ended = anyio.Event()

    def close(self) -> None:
        """End all of them: the control plane stops."""
        self.ended.set()

    def must_exist(self, name: str) -> None:
        """NotFound where there is no such workspace."""
        self._workspaces.must_exist(name)

    @contextlib.asynccontextmanager
    async def run(self, name: str, wanted: Run) -> AsyncIterator[Command]:
        """Run a command in a workspace. A command that has not ended when the block does is ended.

        NotFound and NotReady where the workspace is not there, InvalidInput where the folder is not, NothingToRun where
        the program is not.
        """
        container = await self._workspaces.container(name)
        env = {"TERM": wanted.tty.term} if wanted.tty else None
        arguments = launcher.argv(name, wanted)
        tty = wanted.tty is not None
        async with self._engine.process(container, arguments, user=USER, env=env, tty=tty) as process:
            try:
                with anyio.fail_after(START_SECONDS):
                    group, said = await _begun(process, wanted)
            except TimeoutError as exc:
                raise TookTooLong(f"The command did not start within {START_SECONDS:g} s; try again.") from exc
            command = Command(
                self._engine,
                container,
                process,
                lambda: self._workspaces.is_wanted(name),
                group=group,
                said=said,
                tty=tty,
            )
            try:
                yield command
            finally:
                if not command.ended:
                    await command.hang_up()


async def _begun(process: Process, wanted: Run) -> tuple[int, list[tuple[str, bytes]]]:
    """The command's process group, and what it has said by now.

    The first line is stdout's. What the command says on stderr after it may come before it: Docker brings the two
    streams with nothing that orders them.
    """
    out, errors = b"", b""
    while b"\n" not in out and len(out) < launcher.FIRST_LINE_LIMIT:
        chunk = await process.read()
        if chunk is None:
            break
        if chunk[0] == "stderr":
            errors += chunk[1][: _HELD_LIMIT - len(errors)]
        else:
            out += chunk[1]
    line, _, rest = out.partition(b"\n")
    outcome = launcher.understood(line.strip().decode(errors="replace"), wanted)
    if isinstance(outcome, launcher.Refused):
        if outcome.bad_folder:
            raise InvalidInput(outcome.message)
        raise NothingToRun(outcome.code, outcome.message)
    if outcome is None:
        words = "".join(c if c.isprintable() else " " for c in (out + errors).decode(errors="replace")).strip()
        raise EngineError(f"The command could not be started in the workspace: {words[:300] or 'it said nothing'}")
    return outcome, [(stream, data) for stream, data in (("stdout", rest), ("stderr", errors)) if data]
