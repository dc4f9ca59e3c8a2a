"""The process that stands around one task: ``perry run-task <folder>``.

It starts the agent, writes its log, ends it when it takes too long, and notes how it ended. It is nobody's child in
particular: the worker may end and come back. SIGTERM ends the task: it was cancelled, or the workspace stops.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import subprocess
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL
from typing import IO, Final

import msgspec

from protocol.tasks import TaskState
from worker import processes
from worker.tasks import agents, opencode, outcome, record
from worker.tasks.agents import Heard, Told
from worker.tasks.record import Spec, State

GRACE_SECONDS: Final = 10.0
"""Between the polite signal and the other one."""

SHELL_KILLED: Final = 128 + signal.SIGKILL
"""How a shell ends whose last command was killed."""

LINE_LIMIT: Final = 16 << 20
"""Bytes of one line of an agent's output, at most."""


class Log:
    """The task's log, which stays within bounds."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._left = record.LOG_LIMIT

    def write(self, text: str) -> None:
        data = text.encode(errors="replace")
        if self._left <= 0:
            return
        self._file.write(data[: self._left])
        self._left -= len(data)
        if self._left <= 0:
            self._file.write(b"\n[The log is full; what comes after is not kept.]\n")
            self.close()

    def close(self) -> None:
        """Nothing is written any more."""
        self._left = 0
        self._file.close()


class Runner:
    """One task, from its first process to its last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec: Spec = record.read_spec(folder)
        self.log = Log(folder / record.LOG)
        self.told_to_end = asyncio.Event()
        self._state = State(
            state=TaskState.RUNNING,
            started=datetime.now(UTC),
            pid=os.getpid(),
            pid_started=processes.started(os.getpid()) or 0,
            base=outcome.head(self.spec.folder),
        )

    def note(self, **changes: object) -> None:
        """Write down how it stands now."""
        self._state = msgspec.structs.replace(self._state, **changes)
        record.write_state(self.folder, self._state)

    def end(self, state: TaskState, *, reason: str | None = None, exit_code: int | None = None) -> None:
        """Write down how it ended."""
        self.note(state=state, ended=datetime.now(UTC), reason=reason, exit_code=exit_code)

    def heard(self, heard: Told) -> None:
        """Write down what is new of what the agent told."""
        message = heard.last_message[: record.MESSAGE_LIMIT] if heard.last_message else None
        if (heard.session_id, message) != (self._state.session_id, self._state.last_message):
            self.note(session_id=heard.session_id or self._state.session_id, last_message=message)

    async def run(self) -> None:
        """To the end, whatever it is."""
        self.note()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.told_to_end.set)
        work = opencode.work(self) if self.spec.agent == "opencode" else self._work()
        try:
            await self._within_time(work)
        except opencode.Unusable as exc:
            self.end(TaskState.FAILED, reason=str(exc))
        except Exception as exc:
            self.end(TaskState.FAILED, reason=f"The task's runner failed: {exc!r}.")
            raise

    async def _within_time(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        cancelled = asyncio.ensure_future(self.told_to_end.wait())
        try:
            await asyncio.wait({task, cancelled}, timeout=self.spec.timeout, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return
            told_to_end = cancelled.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if not told_to_end:
                self.end(TaskState.FAILED, reason=f"It took longer than {self.spec.timeout:g} s and was ended.")
            elif (self.folder / record.CANCEL).exists():
                self.end(TaskState.CANCELLED)
            else:
                self.end(TaskState.FAILED, reason=record.STOPPED)
        finally:
            cancelled.cancel()

    async def _work(self) -> None:
        launch = agents.launch(self.spec, self.folder / record.TEXT)
        killed_before = processes.out_of_memory_kills()
        environment = processes.session_environment(str(Path.home())) | {
            "PWD": self.spec.folder,
            "PERRY_TASK": self.spec.id,
        }
        heard = launch.heard()
        with contextlib.ExitStack() as files:
            stdin = files.enter_context((self.folder / record.TEXT).open("rb")) if launch.stdin else DEVNULL
            process = await Child.start(launch.argv, stdin, self.spec.folder, environment)
        try:
            reading = asyncio.ensure_future(self._read(process, heard))
            code = await process.wait()
            # What was left in the background may hold the output open; the agent itself has said what it had to say.
            await asyncio.wait({reading}, timeout=1)
            reading.cancel()
        except asyncio.CancelledError:
            await self._end_processes(process)
            raise
        self.heard(heard)
        if code == 0 and heard.failure is None:
            self.end(TaskState.SUCCEEDED, exit_code=0)
        else:
            starved = processes.out_of_memory_kills() > killed_before
            self.end(TaskState.FAILED, exit_code=code, reason=why(code, heard, starved))

    async def _read(self, process: "Child", heard: Heard) -> None:
        while True:
            try:
                line = await process.output.readuntil(b"\n")
            except asyncio.IncompleteReadError as exc:
                line = exc.partial
            except asyncio.LimitOverrunError as exc:
                await process.output.readexactly(exc.consumed)
                self.log.write("[A line of more than 16 MiB is left out.]\n")
                continue
            if not line:
                return
            self.log.write(heard.line(line))
            self.heard(heard)

    async def _end_processes(self, process: "Child") -> None:
        """The whole group, and whatever has left it: politely, then not."""
        processes.signal_all(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()
        processes.signal_all(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await process.wait()


class Child:
    """An agent's process. ``wait`` is for its end alone: asyncio's own also waits for whoever still has its output."""

    def __init__(self, process: "subprocess.Popen[bytes]", output: asyncio.StreamReader) -> None:
        self.pid = process.pid
        self.output = output
        self._process = process
        self._ended = asyncio.Event()

    @classmethod
    async def start(cls, argv: Sequence[str], stdin: IO[bytes] | int, cwd: str, env: Mapping[str, str]) -> "Child":
        loop = asyncio.get_running_loop()
        process = subprocess.Popen(  # noqa: ASYNC220 - it begins in milliseconds, and nothing else waits here
            argv,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        output = asyncio.StreamReader(limit=LINE_LIMIT)
        assert process.stdout is not None
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(output), process.stdout)
        child = cls(process, output)
        handle = os.pidfd_open(process.pid)

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            child._ended.set()

        loop.add_reader(handle, ended)
        return child

    async def wait(self) -> int:
        """Its exit code; negative where a signal ended it."""
        await self._ended.wait()
        return self._process.wait()


def why(code: int, heard: Heard, starved: bool) -> str:
    """Why it failed, in a sentence. Signals are negative, as in :mod:`subprocess`."""
    if starved and code in (-signal.SIGKILL, SHELL_KILLED):
        return "The agent was killed because the workspace was out of memory; give it more with --memory."
    if code < 0:
        name = signal.Signals(-code).name if -code in {each.value for each in signal.Signals} else str(-code)
        return f"The agent was ended by {name}."
    said = " ".join((heard.failure or heard.last_message or "").split())[:500]
    if heard.failure is not None:
        return f"The agent failed: {said}"
    return f"The agent ended with exit code {code}" + (f": {said}" if said else ".")


def main(folder: str) -> None:
    """Run the task of that folder to its end; where it runs already, end at once."""
    with (Path(folder) / record.TASK).open("rb") as own:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        processes.adopt_orphans()
        asyncio.run(Runner(Path(folder)).run())
