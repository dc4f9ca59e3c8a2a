"""The worker's half of tasks: begins them, finds them again after its own end, and tells how they stand."""

import asyncio
import contextlib
import logging
import os
import re
import shutil
import signal
import subprocess
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from protocol.tasks import ENDED, TaskState
from protocol.worker import (
    CancelTask,
    Done,
    ForgetTask,
    LookAtTask,
    ReadOutcome,
    ReadTaskLog,
    Request,
    StartTask,
    TaskLog,
    TaskLook,
    TaskOutcome,
    TaskSeen,
)
from worker import processes
from worker.opencode.client import Unusable
from worker.opencode.server import Server
from worker.ports import UNNUMBERED, Handler, RequestRefused, Told
from worker.sessions.liveness import Processes as Named
from worker.tasks import agents, look, outcome, record
from worker.tasks.record import State

log = logging.getLogger(__name__)

RUNNER_SECONDS: Final = 60.0
"""How long a task's runner may take to come up, on a machine that is busy."""

RUNNER_LOOK_SECONDS: Final = 0.02

LOOK_SECONDS: Final = 0.1
"""How often the state of a task under way is looked at; nothing is looked at while there is none."""

READY_SECONDS: Final = 90.0
AGAIN_SECONDS: Final = 2.0
"""Until OpenCode's server is asked for again, where it did not come up."""

LOG_PIECE: Final = 1 << 20
KEPT: Final = 200
"""Tasks that have ended whose logs are kept."""

_ID: Final = re.compile(r"^t-[0-9a-z]{12}$")


class Tasks:
    """The tasks of one home folder, as a part of the worker (:class:`worker.ports.Part`)."""

    def __init__(self, folder: Path, project: Path, server: Server, runner: Sequence[str]) -> None:
        """``runner`` is the command of :mod:`worker.tasks.runner`, to which a task's folder is added."""
        self._folder = folder
        self._project = project
        self._server = server
        self._runner = runner
        self._seen: dict[str, TaskSeen] = {}
        self._news = asyncio.Event()
        self._starting: set[str] = set()
        self._runners: dict[str, subprocess.Popen[bytes]] = {}
        self._looked = asyncio.Event()
        self._in_server: set[str] = set()
        server.held_by(lambda: bool(self._in_server))

    async def run(self, told: Told) -> None:
        """Look at what goes on, for ever; everything that is not forgotten is told at first."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            self._news.clear()
            busy = False
            for folder in sorted(self._folder.iterdir()):
                if _ID.fullmatch(folder.name) and folder.name not in self._starting:
                    busy |= self._look(folder, told)
            self._looked.set()
            busy |= self._reap()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if busy else None):
                    await self._news.wait()

    def _reap(self) -> bool:
        """Let go of the runners that have ended, and were looked at since. True where others go on."""
        ended = [id_ for id_, runner in self._runners.items() if runner.poll() is not None]
        for id_ in ended:
            seen = self._seen.get(id_)
            if seen is None or seen.state in ENDED:
                del self._runners[id_]
        return bool(self._runners)

    def _look(self, folder: Path, told: Told) -> bool:
        """Tell what is new of one task. True while it goes on."""
        before = self._seen.get(folder.name)
        if (before is not None and before.state in ENDED) or (before is None and (folder / record.TOLD).exists()):
            return False
        state = record.read_state(folder)
        runner = self._runners.get(folder.name)
        over = runner.poll() is not None if runner is not None else None
        if state is None:
            if over is None and (folder / record.TASK).exists():
                shutil.rmtree(folder, ignore_errors=True)  # It was never begun: it is asked for again.
                return False
            if not over:
                return True
            state = _never_began()
        elif state.state not in ENDED and processes.started(state.pid) != state.pid_started:
            state = record.read_state(folder) or state  # It may have ended between the two looks.
            if state.state not in ENDED:
                state = _left_alone(state)
                record.write_state(folder, state)
        seen = _seen(folder.name, state)
        if seen.state in ENDED:
            self._in_server.discard(folder.name)
        elif before is None and record.read_spec(folder).agent == "opencode":
            self._in_server.add(folder.name)
        if seen != before:
            self._seen[folder.name] = seen
            told(seen)
        return seen.state not in ENDED

    async def looked(self) -> None:
        await self._looked.wait()

    def seen(self) -> Sequence[TaskSeen]:
        """Every task that is not forgotten, as it is."""
        return list(self._seen.values())

    def handlers(self) -> Mapping[type[Request], Handler]:
        return {
            StartTask: self.start,
            CancelTask: self.cancel,
            ForgetTask: self.forget,
            ReadTaskLog: self.read_log,
            ReadOutcome: self.outcome,
            LookAtTask: self.look_at,
        }

    async def start(self, request: StartTask) -> Done:
        """Begin it; asked for twice, it begins once. RequestRefused where it cannot."""
        if not _ID.fullmatch(request.id):
            raise RequestRefused(f"{request.id!r} is no task.")
        folder = self._folder / request.id
        if request.id in self._starting or folder.exists():
            return Done()
        self._starting.add(request.id)
        try:
            await self._start(folder, request)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._starting.discard(request.id)
            self._news.set()
        return Done()

    async def _start(self, folder: Path, request: StartTask) -> None:
        environment = processes.session_environment(str(Path.home()))
        if problem := agents.missing(request.agent, environment.get("PATH")):
            raise RequestRefused(problem, code="noAgent")
        async with self._server_for(request):
            runner = self._runners[request.id] = await asyncio.to_thread(self._begin, folder, request)
            try:
                await self._up(folder, runner)
            except BaseException:
                runner.kill()
                raise

    async def _up(self, folder: Path, runner: subprocess.Popen[bytes]) -> None:
        """Whoever hears that a task has begun finds it again, also where the workspace is restarted a moment later."""
        until = asyncio.get_running_loop().time() + RUNNER_SECONDS
        while record.read_state(folder) is None and runner.poll() is None:
            if asyncio.get_running_loop().time() > until:
                raise RequestRefused("The task's runner does not come up.")
            await asyncio.sleep(RUNNER_LOOK_SECONDS)

    def _begin(self, folder: Path, request: StartTask) -> subprocess.Popen[bytes]:
        self._clear_old()
        spec = record.Spec(
            id=request.id,
            agent=request.agent,
            folder=str(self._project if self._project.is_dir() else Path.home()),
            session_id=str(uuid.uuid4()),
            model=request.model,
            timeout=request.timeout,
        )
        folder.mkdir(mode=0o700, parents=True)
        record.write(folder / record.TEXT, request.text.encode())
        record.write(folder / record.TASK, msgspec.json.encode(spec))
        with (folder / "runner.log").open("ab") as errors:
            return subprocess.Popen(
                [*self._runner, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                start_new_session=True,
            )

    @contextlib.asynccontextmanager
    async def _server_for(self, request: StartTask) -> AsyncIterator[None]:
        """OpenCode's server runs while a task for it is begun, and from then on for as long as that goes on."""
        if request.agent != "opencode":
            yield
            return
        loop = asyncio.get_running_loop()
        until = loop.time() + READY_SECONDS
        async with contextlib.AsyncExitStack() as stack:
            while True:
                try:
                    async with asyncio.timeout_at(until):
                        await stack.enter_async_context(self._server.use())
                        break
                except TimeoutError as exc:
                    raise RequestRefused("OpenCode's server does not come up.") from exc
                except Unusable as exc:
                    if loop.time() + AGAIN_SECONDS > until:
                        raise RequestRefused(str(exc)) from exc
                await asyncio.sleep(AGAIN_SECONDS)
            yield
            self._in_server.add(request.id)

    def _clear_old(self) -> None:
        """Forget the oldest logs, so that they do not fill the home."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        told = [each for each in self._folder.iterdir() if (each / record.TOLD).exists()]
        for folder in sorted(told, key=lambda each: each.stat().st_mtime)[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)

    async def cancel(self, request: CancelTask) -> Done:
        """End it; ``told`` hears of the end."""
        folder = self._must_exist(request.id)
        (folder / record.CANCEL).touch()
        state = record.read_state(folder)
        if state is not None and state.state not in ENDED and processes.started(state.pid) == state.pid_started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(state.pid, signal.SIGTERM)
        self._news.set()
        return Done()

    async def forget(self, request: ForgetTask) -> Done:
        """Its end need not be told of any more."""
        with contextlib.suppress(OSError, RequestRefused):
            (self._must_exist(request.id) / record.TOLD).touch()
        self._seen.pop(request.id, None)
        self._news.set()
        return Done()

    async def read_log(self, request: ReadTaskLog) -> TaskLog:
        """A piece of its log."""
        path = self._must_exist(request.id) / record.LOG
        return await asyncio.to_thread(_piece, path, request.offset, min(request.limit, LOG_PIECE))

    async def outcome(self, request: ReadOutcome) -> TaskOutcome:
        """What it has left so far."""
        folder = self._must_exist(request.id)
        state, spec = record.read_state(folder), record.read_spec(folder)
        base, message = (state.base, state.last_message) if state is not None else (None, None)
        return await asyncio.to_thread(outcome.outcome, spec.folder, base, message)

    async def look_at(self, request: LookAtTask) -> TaskLook:
        """How it looks now."""
        if request.id is None:
            named = None if request.agent is None else Named().named(request.agent)
            return await asyncio.to_thread(look.look, str(self._project), None, None, named, around=0)
        folder = self._must_exist(request.id)
        state, spec = record.read_state(folder), record.read_spec(folder)
        pids = [] if state is None or processes.started(state.pid) != state.pid_started else [state.pid]
        if spec.agent == "opencode" and pids:
            pids += self._server.pids
        return await asyncio.to_thread(look.look, spec.folder, state, folder / record.LOG, pids)

    def _must_exist(self, id_: str) -> Path:
        folder = self._folder / id_
        if not _ID.fullmatch(id_) or not (folder / record.TASK).exists():
            raise RequestRefused(f"There is no task {id_!r} here.", code="missing")
        return folder


def _piece(path: Path, offset: int, limit: int) -> TaskLog:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            begin = min(max(offset if offset >= 0 else size + offset, 0), size)
            file.seek(begin)
            data = file.read(limit)
    except FileNotFoundError:
        return TaskLog(text="", offset=0, next=0, size=0)
    if begin + len(data) < size:
        # Not in the middle of a character: what follows begins with one that is whole.
        for back in range(1, min(4, len(data))):
            if data[-back] & 0xC0 == 0xC0:
                data = data[:-back]
                break
            if data[-back] & 0x80 == 0:
                break
    return TaskLog(text=data.decode(errors="replace"), offset=begin, next=begin + len(data), size=size)


def _seen(id_: str, state: State) -> TaskSeen:
    return TaskSeen(
        seq=UNNUMBERED,
        id=id_,
        state=state.state,
        started=state.started,
        ended=state.ended,
        exit_code=state.exit_code,
        reason=state.reason[:2000] if state.reason else None,
        session_id=state.session_id,
        last_message=state.last_message,
    )


def _left_alone(state: State) -> State:
    return msgspec.structs.replace(state, state=TaskState.FAILED, ended=datetime.now(UTC), reason=record.STOPPED)


def _never_began() -> State:
    now = datetime.now(UTC)
    reason = "The task's runner did not come up; its runner.log in ~/.local/state/perry/tasks says why."
    return State(state=TaskState.FAILED, started=now, ended=now, pid=0, pid_started=0, reason=reason)
