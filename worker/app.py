"""Puts the worker together, and runs it until a signal ends it."""

import asyncio
import logging
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from protocol.worker import (
    DeleteInStore,
    Done,
    ReadSession,
    ReadSessions,
    ReadStatus,
    RenameInStore,
    Request,
    WorkerStatus,
)
from worker.agents.registry import coding_agents
from worker.hooks.spool import Signals
from worker.journal import Journal
from worker.opencode.relay import OpenCode
from worker.opencode.server import Server
from worker.ports import Handler, Notice, Part, Sessions, Told
from worker.requests import Requests
from worker.sessions.service import LocalSessions
from worker.settings import Settings
from worker.stream import Stream
from worker.tasks.supervisor import Tasks
from worker.version import UNPACKED, own_version
from worker.wake.door import Wakes
from worker.wake.spool import Spool

log = logging.getLogger(__name__)

AGAIN_SECONDS = 5.0
"""After a part of the worker has failed, until it is tried again."""


class Following:
    """The sessions, as a part of the worker."""

    def __init__(self, sessions: Sessions, version: str) -> None:
        self._sessions = sessions
        self._version = version
        self._began = time.monotonic()

    async def run(self, told: Told) -> None:
        await self._sessions.run(told)

    async def looked(self) -> None:
        await self._sessions.looked()

    def seen(self) -> Sequence[Notice]:
        return self._sessions.seen()

    def handlers(self) -> Mapping[type[Request], Handler]:
        return {
            ReadSession: self._sessions.read,
            ReadSessions: self._sessions.read_several,
            RenameInStore: self._rename,
            DeleteInStore: self._delete,
            ReadStatus: self._status,
        }

    async def _rename(self, request: RenameInStore) -> Done:
        await self._sessions.rename(request)
        return Done()

    async def _delete(self, request: DeleteInStore) -> Done:
        await self._sessions.delete(request)
        return Done()

    async def _status(self, request: ReadStatus) -> WorkerStatus:
        return WorkerStatus(
            version=self._version,
            uptime=round(time.monotonic() - self._began, 3),
            memory=_resident(),
            watching=self._sessions.watching,
            agents=self._sessions.agents(),
        )


class Worker:
    """All parts, behind one stream."""

    def __init__(self, settings: Settings, parts: Sequence[Part], listening: Mapping[int, socket.socket]) -> None:
        self._settings = settings
        self._parts = parts
        self._listening = listening.get(settings.port)
        self._journal = Journal()
        self._stream = Stream(
            version=own_version(),
            journal=self._journal,
            requests=Requests(parts),
            looked=self._looked,
            seen=lambda: [notice for part in parts for notice in part.seen()],
            secret_file=settings.secret_file,
        )

    async def run(self) -> None:
        """Until cancelled. Listens first: the rest may take a while."""
        server = await self._stream.listen(self._settings.host, self._settings.port, self._listening)
        async with server, asyncio.TaskGroup() as tasks:
            port = server.sockets[0].getsockname()[1]
            log.info("worker %s listens on %s:%d", own_version(), self._settings.host, port)
            if self._settings.socket.parent.is_dir():
                tasks.create_task(self._inside())
            for part in self._parts:
                tasks.create_task(self._keep_running(part))

    async def _inside(self) -> None:
        async with await self._stream.listen_inside(self._settings.socket) as server:
            await server.serve_forever()

    async def _looked(self) -> None:
        for part in self._parts:
            await part.looked()

    async def _keep_running(self, part: Part) -> None:
        """A part that fails is begun again, and does not end the others."""
        while True:
            try:
                await part.run(self._journal.tell)
            except Exception:
                log.exception("%s failed", type(part).__name__)
            await asyncio.sleep(AGAIN_SECONDS)


def parts_of(settings: Settings, listening: Mapping[int, socket.socket]) -> list[Part]:
    """Everything that this worker does. ``listening`` has sockets that do so already, by their port."""
    sessions = LocalSessions(coding_agents(settings.home, os.environ), settings.home)
    project = settings.home / os.environ.get("PERRY_WORKSPACE", "")
    server = Server(settings.home)
    opencode = OpenCode(server, port=settings.opencode_port)
    tasks = Tasks(settings.home / ".local/state/perry/tasks", project, server, runner_command())
    signals = Signals(settings.home / ".local/state/perry/signals")
    spool = Spool(settings.home / ".local/state/perry/wakes")
    wakes = Wakes(
        spool,
        os.environ.get("PERRY_WORKSPACE", ""),
        port=settings.wake_port,
        listening=listening.get(settings.wake_port),
    )
    return [Following(sessions, own_version()), opencode, tasks, signals, wakes]


async def run(settings: Settings, listening: Mapping[int, socket.socket]) -> None:
    """Until SIGTERM or SIGINT. ``listening`` has sockets that do so already, by their port."""
    loop = asyncio.get_running_loop()
    worker = asyncio.create_task(Worker(settings, parts_of(settings, listening), listening).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.cancel)
    try:
        await worker
    except asyncio.CancelledError:
        log.info("ending")


def runner_command() -> list[str]:
    """How the process around a task is started: as this one was."""
    launcher = Path(sys.executable).with_name("perry")
    itself = [sys.executable, "-m", "worker"] if own_version() == UNPACKED else [str(launcher)]
    return [*itself, "run-task"]


def _resident() -> int:
    """Bytes of memory that this process has now."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
