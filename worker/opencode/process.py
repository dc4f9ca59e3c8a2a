"""The process of OpenCode's server. It is nobody's child in particular: a worker that ends leaves it, and the next one
finds it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from worker import processes
from worker.opencode.client import RECORD, Running, running

GRACE_SECONDS: Final = 5.0
"""Between the polite signal and the other one."""


class ServerProcess:
    """One that was started, here or by a worker before this one."""

    def __init__(self, found: Running, handle: int) -> None:
        """``handle`` is its pidfd, which is closed when it has ended."""
        self.found = found
        self.exit_code: int | None = None
        """None where it goes on, or was another worker's child."""
        self._ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            with contextlib.suppress(ChildProcessError):
                self.exit_code = os.waitstatus_to_exitcode(os.waitpid(found.pid, 0)[1])
            self._ended.set()

        loop.add_reader(handle, ended)

    @classmethod
    def start(cls, home: Path, environment: Mapping[str, str]) -> "ServerProcess":
        """Start one, and note it. OSError where that cannot be."""
        record = home / RECORD
        record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        port, since = _free_port(), int(time.time() * 1000)
        child = subprocess.Popen(
            ["opencode", "serve", "--hostname", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=home,
            env=dict(environment),
            start_new_session=True,
        )
        try:
            found = Running(pid=child.pid, started=processes.started(child.pid) or 0, port=port, since=since)
            fresh = record.with_suffix(".new")
            fresh.write_bytes(msgspec.json.encode(found))
            fresh.replace(record)
            server = cls(found, os.pidfd_open(child.pid))
        except BaseException:
            # One that is not noted would be found by nobody, and each attempt would leave another.
            child.kill()
            child.wait()
            raise
        child.returncode = 0  # It is waited for by its pid, and may outlive this process.
        return server

    @classmethod
    def left(cls, home: Path) -> "ServerProcess | None":
        """The one that an earlier worker has left running; None where there is none."""
        found = running(home)
        if found is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(found.pid)
            if processes.started(found.pid) == found.started:
                return cls(found, handle)
            os.close(handle)
        return None

    @property
    def over(self) -> bool:
        return self._ended.is_set()

    async def ended(self) -> None:
        """Returns when it has ended."""
        await self._ended.wait()

    @property
    def has_terminals(self) -> bool:
        """Whether somebody has a terminal open in it."""
        return any(processes.has_terminal(pid) for pid in processes.descendants(self.found.pid))

    async def end(self) -> None:
        """End it and what it had started for itself, language servers and the like: politely, then not."""
        pids = [self.found.pid, *processes.descendants(self.found.pid)]
        begun = {pid: processes.started(pid) for pid in pids}
        self._signal(self.found.pid, begun, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_SECONDS):
                await self._ended.wait()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                self._signal(pid, begun, number)
            if not any(started is not None and processes.started(pid) == started for pid, started in begun.items()):
                break
            await asyncio.sleep(0.2)
        await self._ended.wait()

    @staticmethod
    def _signal(pid: int, begun: Mapping[int, int | None], number: signal.Signals) -> None:
        """To the process that is meant, and not to another one that has its number now."""
        if (started := begun[pid]) is not None and processes.started(pid) == started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
