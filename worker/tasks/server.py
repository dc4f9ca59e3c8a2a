"""OpenCode's server in a workspace: kept alive, on a port that only the workspace itself reaches, behind a password.

The password stands in a file that the control plane puts there; the door on the tailnet (the sidecar's) knows it too.
"""

import asyncio
import base64
import contextlib
import json
import logging
import os
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

from worker.sessions.liveness import Processes
from worker.tasks import processes
from worker.tasks.agents import missing

log = logging.getLogger(__name__)

PORT: Final = 4096
PASSWORD_FILE: Final = Path("/etc/perry/opencode-password")
USER: Final = "opencode"

READY_SECONDS: Final = 60.0
READY_LOOK_SECONDS: Final = 0.1
CALL_SECONDS: Final = 60.0
HEALTH_SECONDS: Final = 1.0
"""OpenCode 1.18 never answers a request that comes in the moment in which it has just begun to listen."""
ANSWER_LIMIT: Final = 64 << 20
EVENT_LIMIT: Final = 16 << 20
MOST_PAUSE: Final = 60.0

DATABASE: Final = ".local/share/opencode/opencode.db"
"""Below the home folder; OpenCode makes it when it is first started."""
FIRST_LOOK_SECONDS: Final = 0.5
FIRST_SECONDS: Final = 15.0
"""How long the first start waits at most for an OpenCode that somebody else has started."""


class Unusable(Exception):
    """OpenCode's server is not there, or refused; the message is a sentence."""


def password() -> str:
    """Unusable where there is none."""
    try:
        return PASSWORD_FILE.read_text().strip()
    except OSError as exc:
        raise Unusable(
            f"The password of OpenCode's server cannot be read ({exc.strerror}); a restart of the workspace makes one."
        ) from exc


def headers() -> dict[str, str]:
    """What every request has."""
    credentials = base64.b64encode(f"{USER}:{password()}".encode()).decode()
    return {"Authorization": f"Basic {credentials}", "Accept-Encoding": "identity"}


async def call(method: str, path: str, body: Any, *, seconds: float = CALL_SECONDS) -> Any:
    """One request to the server; its answer's JSON, None where it has no body. Unusable where it refuses."""
    return await asyncio.to_thread(_call, method, path, body, seconds)


def _call(method: str, path: str, body: Any, seconds: float) -> Any:
    data = None if body is None else json.dumps(body).encode()
    typed = {} if data is None else {"Content-Type": "application/json"}
    connection = HTTPConnection("127.0.0.1", PORT, timeout=seconds)
    try:
        connection.request(method, path, data, headers() | typed)
        response = connection.getresponse()
        answer = response.read(ANSWER_LIMIT)
    except (OSError, HTTPException) as exc:
        raise Unusable(f"OpenCode's server does not answer ({exc or type(exc).__name__}).") from exc
    finally:
        connection.close()
    if response.status >= 400 or "json" not in response.getheader("Content-Type", "json"):
        said = _said(answer)
        raise Unusable(f"OpenCode's server refused {method} {path.partition('?')[0]} ({response.status}): {said}")
    return json.loads(answer) if answer.strip() else None


def events(path: str, silent_seconds: float) -> Iterator[bytes]:
    """The data of each of the server's events, until it is silent for so long (OSError) or the stream ends. Blocks."""
    connection = HTTPConnection("127.0.0.1", PORT, timeout=silent_seconds)
    try:
        connection.request("GET", path, headers=headers() | {"Accept": "text/event-stream"})
        response = connection.getresponse()
        if response.status != 200:
            raise Unusable(f"OpenCode's server does not tell its events ({response.status}).")
        while line := response.readline(EVENT_LIMIT):
            if line.startswith(b"data:"):
                yield line[5:]
    finally:
        connection.close()


def _said(answer: bytes) -> str:
    return " ".join(answer.decode(errors="replace").split())[:300]


async def until_it_is_alone(database: str, everything: Processes, *, look: float = FIRST_LOOK_SECONDS) -> None:
    """Of two that make OpenCode's database at once, one ends with "database is locked": not to be a person's.

    Returns at once where the database is there; else when nobody runs OpenCode, or that took long enough.
    """
    if await asyncio.to_thread(os.path.exists, database):
        return
    for _ in range(int(FIRST_SECONDS / look)):
        if not everything.named("opencode"):
            return
        await asyncio.sleep(look)


class Server:
    """Keeps it alive. ``ready`` is set while it answers."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.problem: str | None = None
        self.pids: list[int] = []
        """Of the server, while it runs."""
        self._wanted = asyncio.Event()

    def want(self) -> None:
        """Start it now, and not only when there is time for it."""
        self._wanted.set()

    async def run(self, *, patience: float) -> None:
        """For ever. It is started after ``patience`` seconds, or as soon as it is wanted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await self._wanted.wait()
        await until_it_is_alone(str(Path.home() / DATABASE), Processes())
        pause = 1.0
        while True:
            try:
                began = asyncio.get_running_loop().time()
                await self._serve()
                if asyncio.get_running_loop().time() - began > MOST_PAUSE:
                    pause = 1.0
            except (Unusable, OSError) as exc:
                self.problem = str(exc)
            finally:
                self.ready.clear()
            log.info("OpenCode's server is not running; it is started again in %g s", pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, MOST_PAUSE)

    async def _serve(self) -> None:
        environment = processes.session_environment(str(Path.home()))
        if problem := missing("opencode", environment.get("PATH")):
            raise Unusable(problem)
        environment |= {"OPENCODE_SERVER_PASSWORD": password(), "OPENCODE_SERVER_USERNAME": USER}
        process = await asyncio.create_subprocess_exec(
            "opencode",
            "serve",
            "--hostname",
            "127.0.0.1",
            "--port",
            str(PORT),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            cwd=str(Path.home()),
            env=environment,
            start_new_session=True,
        )
        self.pids = [process.pid]
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._until_it_answers(process)
            code = await process.wait()
            self.problem = f"OpenCode's server ended ({code}); something else may have port {PORT} in the workspace."
        except TimeoutError as exc:
            raise Unusable(f"OpenCode's server did not answer within {READY_SECONDS:g} s.") from exc
        finally:
            self.pids = []
            await _end(process)

    async def _until_it_answers(self, process: Process) -> None:
        while process.returncode is None:
            if await self._answers():
                self.problem = None
                self.ready.set()
                return
            await asyncio.sleep(READY_LOOK_SECONDS)

    async def _answers(self) -> bool:
        try:
            return bool((await call("GET", "/global/health", None, seconds=HEALTH_SECONDS))["healthy"])
        except (Unusable, KeyError, TypeError):
            return False


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await process.wait()
                return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
