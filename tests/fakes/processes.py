"""Commands of a fake container: processes of this machine, each the leader of its own session as in a real one."""

import asyncio
import contextlib
import fcntl
import os
import pty
import shutil
import signal
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import anyio

CHUNK = 1 << 15


class FakeProcess:
    """See :class:`controlplane.ports.Process`. ``child`` leads its session."""

    def __init__(self, command: Sequence[str], home: Path, env: Mapping[str, str], *, tty: bool) -> None:
        self._tty = tty
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), **env}
        if tty:
            self._master, slave = pty.openpty()
            ends = (slave, slave, slave)
        else:
            stdin, self._stdin = os.pipe()
            self._stdout, stdout = os.pipe()
            self._stderr, stderr = os.pipe()
            ends = (stdin, stdout, stderr)
        if shutil.which(command[0], path=environ["PATH"]) is None:
            command = ["sh", "-c", 'echo "exec failed: $0: not found"; exit 127', command[0]]
        self.child = subprocess.Popen(
            list(command),
            stdin=ends[0],
            stdout=ends[1],
            stderr=ends[2],
            env=environ,
            cwd="/",
            start_new_session=True,
            preexec_fn=_take_terminal if tty else None,
        )
        for end in set(ends):
            os.close(end)
        if tty:
            self._stdin = os.dup(self._master)
            self._readers = {self._master: "stdout"}
        else:
            self._readers = {self._stdout: "stdout", self._stderr: "stderr"}
        for handle in (*self._readers, self._stdin):
            os.set_blocking(handle, False)
        self._input_open = True

    async def read(self) -> tuple[str, bytes] | None:
        while self._readers:
            await _ready(list(self._readers))
            for handle, name in list(self._readers.items()):
                try:
                    data = os.read(handle, CHUNK)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""  # What a terminal says when nobody is left on its other side.
                if data:
                    return name, data
                del self._readers[handle]
                os.close(handle)
        return None

    async def write(self, data: bytes) -> None:
        while data and self._input_open:
            try:
                data = data[os.write(self._stdin, data) :]
            except BlockingIOError:
                await anyio.wait_writable(self._stdin)
            except OSError:
                return

    async def end_input(self) -> None:
        if not self._tty:
            self._close_input()

    async def resize(self, columns: int, rows: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._stdin, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def exit_code(self) -> int | None:
        for _ in range(5):
            # Its streams end a moment before it does.
            if (code := self.child.poll()) is not None:
                return code if code >= 0 else 128 - code
            await anyio.sleep(0.02)
        return None

    def close(self) -> None:
        """Close its streams. A test must leave nothing behind, so the session ends with it."""
        self._close_input()
        for handle in self._readers:
            os.close(handle)
        self._readers.clear()
        if self.child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()

    def _close_input(self) -> None:
        if self._input_open:
            self._input_open = False
            os.close(self._stdin)


class FakeProcesses:
    """All that were started, by a home of their own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.all: list[FakeProcess] = []

    @contextlib.asynccontextmanager
    async def started(
        self, command: Sequence[str], env: Mapping[str, str] | None, *, tty: bool
    ) -> AsyncIterator[FakeProcess]:
        process = FakeProcess(command, self.home, env or {}, tty=tty)
        self.all.append(process)
        try:
            yield process
        finally:
            process.close()

    def signal(self, group: int, name: str) -> int:
        """Exit code of a ``kill`` of a process group: of one of ours only, whatever was asked for."""
        if group not in {process.child.pid for process in self.all}:
            return 1
        try:
            os.killpg(group, signal.Signals[f"SIG{name}"])
        except ProcessLookupError:
            return 1
        return 0


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def _ready(handles: list[int]) -> None:
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    for handle in handles:
        loop.add_reader(handle, event.set)
    try:
        await event.wait()
    finally:
        for handle in handles:
            loop.remove_reader(handle)
