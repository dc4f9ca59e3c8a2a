"""When OpenCode's server runs: from its first user until it was unused for a while.

It costs 300 MB and a percent of a processor at rest, in each workspace.
"""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from worker import processes
from worker.opencode import client
from worker.opencode.client import USER, Unusable, call
from worker.opencode.process import ServerProcess
from worker.sessions.liveness import Processes

log = logging.getLogger(__name__)

KEEP_FILE: Final = Path("/etc/perry/opencode-keep")
"""How long it is kept without a user: seconds, or ``always``. The control plane puts it there before each start."""
KEEP_SECONDS: Final = 600.0

PATIENCE: Final = 20.0
"""Until one that is kept always is started: a workspace that has just started has better things to do."""

READY_SECONDS: Final = 60.0
READY_LOOK_SECONDS: Final = 0.1
HEALTH_SECONDS: Final = 1.0
"""OpenCode 1.18 never answers a request that comes in the moment in which it has just begun to listen."""
LOOK_SECONDS: Final = 5.0
"""How often it is looked at whether it is used."""
FIRST_PAUSE: Final = 1.0
MOST_PAUSE: Final = 60.0
PATIENT_SECONDS: Final = 5.0
"""Who wants a server that has just ended waits for so long until the next one is started; else they are told."""
ASK_SECONDS: Final = 10.0
MOST_FOLDERS: Final = 50
"""So many folders are asked about work before it is ended."""

DATABASE: Final = ".local/share/opencode/opencode.db"
"""Below the home folder; OpenCode makes it when it is first started."""
FIRST_LOOK_SECONDS: Final = 0.5
FIRST_SECONDS: Final = 15.0
"""How long the first start waits at most for an OpenCode that somebody else has started."""


def keep_seconds() -> float | None:
    """How long the server is kept without a user; None for always."""
    try:
        said = KEEP_FILE.read_text().strip()
        return None if said == "always" else float(said)
    except (OSError, ValueError):
        return KEEP_SECONDS


async def until_it_is_alone(database: str, everything: Processes, *, look: float = FIRST_LOOK_SECONDS) -> None:
    """Of two that make OpenCode's database at once, one ends with "database is locked": not to be a person's.

    Returns at once where the database is there; else when nobody runs OpenCode, or that took long enough.
    """
    if await asyncio.to_thread(Path(database).exists):
        return
    for _ in range(int(FIRST_SECONDS / look)):
        if not everything.named("opencode"):
            return
        await asyncio.sleep(look)


class Ended(Unusable):
    """It had answered, and has ended by itself."""


class Server:
    """OpenCode's server of one home."""

    def __init__(self, home: Path, keep: Callable[[], float | None] = keep_seconds) -> None:
        self._home = home
        self._keep = keep
        self._users = 0
        self._used = 0.0
        self._holders: list[Callable[[], bool]] = []
        self._wanted = asyncio.Event()
        self._process: ServerProcess | None = None
        self._state: int | str | None = None
        """The port of a server that answers, a sentence where it cannot be started for now, None where it may be."""
        self._known = asyncio.Event()

    # --- using it

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[int]:
        """Its port on loopback; it answers there. It is started where it does not run, and stays for as long as the
        block lasts. Unusable where it cannot be had."""
        self._users += 1
        self._wanted.set()
        try:
            while self._state is None:
                await self._known.wait()
            if isinstance(self._state, str):
                raise Unusable(self._state)
            yield self._state
        finally:
            self._users -= 1
            self._used = asyncio.get_running_loop().time()

    def held_by(self, holder: Callable[[], bool]) -> None:
        """It also stays for as long as this is true, and is started again where it ends meanwhile."""
        self._holders.append(holder)

    @property
    def pids(self) -> list[int]:
        """Of the server, while it runs."""
        return [self._process.found.pid] if self._process is not None else []

    # --- keeping it

    async def run(self) -> None:
        """For ever. A server that runs when this is cancelled goes on; the next one that runs this finds it."""
        pause = FIRST_PAUSE
        while True:
            began = asyncio.get_running_loop().time()
            try:
                if (left := ServerProcess.left(self._home)) is None:
                    await self._until_wanted()
                    began = asyncio.get_running_loop().time()
                await self._serve(left)
            except (Unusable, OSError) as exc:
                if asyncio.get_running_loop().time() - began > MOST_PAUSE:
                    pause = FIRST_PAUSE
                log.warning("%s It is started again in %g s, where somebody uses it.", exc, pause)
                if not isinstance(exc, Ended) or pause > PATIENT_SECONDS:
                    self._be(str(exc))  # Else whoever comes waits for the next one.
                await asyncio.sleep(pause)
                pause = min(pause * 2, MOST_PAUSE)
                self._be(None)

    def _be(self, state: int | str | None) -> None:
        self._state = state
        if state is None:
            self._known.clear()
        else:
            self._known.set()

    async def _until_wanted(self) -> None:
        if not self._in_use():
            self._wanted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE if self._keep() is None else None):
                while not self._in_use():
                    self._wanted.clear()
                    await self._wanted.wait()
        await until_it_is_alone(str(self._home / DATABASE), Processes())

    def _in_use(self) -> bool:
        return self._users > 0 or any(holds() for holds in self._holders)

    async def _serve(self, left: ServerProcess | None) -> None:
        """One server, to its end. Unusable where it did not come up, or ended by itself."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        process = left or await self._start()
        self._process = process
        try:
            try:
                async with asyncio.timeout(READY_SECONDS):
                    await self._until_it_answers(process)
            except TimeoutError as exc:
                await process.end()
                raise Unusable(f"OpenCode's server did not answer within {READY_SECONDS:g} s.") from exc
            log.info("OpenCode's server answers after %.1f s", loop.time() - began)
            self._used = loop.time()
            self._be(process.found.port)
            await self._until_unused(process)
            self._be(None)
            if not process.over:
                log.info("OpenCode's server is not used any more, and ends")
                await process.end()
                return
        finally:
            self._process = None
            self._be(None)
        raise Ended(_why(process))

    async def _start(self) -> ServerProcess:
        environment = processes.session_environment(str(self._home))
        if shutil.which("opencode", path=environment.get("PATH")) is None:
            raise Unusable("OpenCode is not installed in this workspace; install it there.")
        environment |= {"OPENCODE_SERVER_PASSWORD": client.password(), "OPENCODE_SERVER_USERNAME": USER}
        return ServerProcess.start(self._home, environment)

    async def _until_it_answers(self, process: ServerProcess) -> None:
        while not process.over:
            with contextlib.suppress(Unusable, KeyError, TypeError):
                if (await call("GET", "/global/health", None, seconds=HEALTH_SECONDS))["healthy"]:
                    return
            await asyncio.sleep(READY_LOOK_SECONDS)
        raise Unusable(_why(process))

    async def _until_unused(self, process: ServerProcess) -> None:
        """Until it has ended by itself, or nobody has used it for long enough."""
        loop = asyncio.get_running_loop()
        while True:
            keep = self._keep()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS if keep is None else min(LOOK_SECONDS, max(keep, 0.1))):
                    await process.ended()
                    return
            if self._in_use():
                self._used = loop.time()
            if keep is None or loop.time() - self._used < keep:
                continue
            if await self._is_at_work(process):
                self._used = loop.time()
            elif not self._in_use():
                return

    async def _is_at_work(self, process: ServerProcess) -> bool:
        """Whether a session goes on in it, or waits for an answer, though nobody watches; or a terminal is open."""
        if await asyncio.to_thread(lambda: process.has_terminals):
            return True
        try:
            # Its sessions of all projects, the latest first; where one is at work, its folder's status has it.
            sessions = await call("GET", "/experimental/session?limit=100", None, seconds=ASK_SECONDS)
            moved = [each for each in sessions if each["time"]["updated"] >= process.found.since]
            for folder in list(dict.fromkeys(str(each["directory"]) for each in moved))[:MOST_FOLDERS]:
                asked = f"/session/status?directory={quote(folder, safe='')}"
                if _busy(await call("GET", asked, None, seconds=ASK_SECONDS)):
                    return True
        except (Unusable, AttributeError, KeyError, TypeError, ValueError) as exc:
            log.warning("whether OpenCode's server is at work cannot be seen, so it stays: %s", exc)
            return True
        return False


def _why(process: ServerProcess) -> str:
    code = f" (exit code {process.exit_code})" if process.exit_code is not None else ""
    return f"OpenCode's server ended{code}; `opencode serve` in the workspace may say why."


def _busy(status: Any) -> bool:
    return any(each.get("type") != "idle" for each in status.values())
