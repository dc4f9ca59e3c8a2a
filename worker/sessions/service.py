"""The sessions of all coding agents of one home folder: watched, looked at, read.

Three rules keep it cheap and steady. While nothing changes, nothing runs (but a look at everything every ten minutes,
as a safety net). A file that changes is looked at at once, and then at most fifty times a second. Whatever touches the
disk runs in threads: looking in one, one after the other; reading in two, and of several at once in a third.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from protocol.worker import (
    FRAME_LIMIT,
    PAGE_LIMIT,
    SESSIONS_LIMIT,
    AgentStatus,
    DeleteInStore,
    Page,
    Pages,
    ReadSession,
    ReadSessions,
    RenameInStore,
    SessionGone,
    SessionSeen,
    StoreSeen,
)
from worker.ports import UNNUMBERED, SessionMissing, Told
from worker.sessions import notices, several
from worker.sessions.agent import CodingAgent, Found, Looked, NotPossible
from worker.sessions.index import Changes, Index
from worker.sessions.watcher import Watcher

RESCAN_SECONDS: Final = 600.0

POLL_SECONDS: Final = 15.0
"""Between two looks at everything, where it cannot be watched, or where some of it cannot be read."""

LIVENESS_SECONDS: Final = 3.0
"""Between two looks at sessions that are busy, or wait for somebody: their process may be gone without a word."""

PATIENCE_SECONDS: Final = 30.0
"""At the start, for a store that cannot be read at the moment: so long nothing is told of the others either."""

AGAIN_SECONDS: Final = 1.0

LISTEN_SECONDS: Final = 0.005

PAUSE_SECONDS: Final = 0.02
"""Between two looks at the same file."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class AgentSessions:
    """One agent, with what is known of its sessions."""

    def __init__(self, agent: CodingAgent, limit: int) -> None:
        self.agent = agent
        self.index = Index(limit)
        self.pending: set[str] = set()
        self.everything = True
        self.looked = False
        self.problem: str | None = None
        self.looked_at: dict[str, float] = {}


class LocalSessions:
    """Implements :class:`worker.ports.Sessions`."""

    def __init__(self, agents: Sequence[CodingAgent], home: Path, *, limit: int = SESSIONS_LIMIT) -> None:
        self._agents = {agent.name: AgentSessions(agent, limit) for agent in agents}
        self._home = home
        self._told: Told | None = None
        self._watcher: Watcher | None = None
        self._heard_at = 0.0
        self._unwatched: str | None = None
        self._wake = asyncio.Event()
        self._looked = asyncio.Event()
        self._looking = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._reading = ThreadPoolExecutor(2, thread_name_prefix="read")
        self._reading_several = ThreadPoolExecutor(1, thread_name_prefix="several")

    @property
    def watching(self) -> bool:
        return self._watcher is not None and self._watcher.problem is None

    async def looked(self) -> None:
        await self._looked.wait()

    def seen(self) -> list[SessionSeen | StoreSeen]:
        agents = self._agents.items()
        sessions = [notices.seen(name, found) for name, known in agents for found in known.index.sessions()]
        stores = [notices.store(name, whole=False) for name, known in agents if not known.looked]
        return [*sessions, *stores]

    def agents(self) -> list[AgentStatus]:
        statuses = []
        for name, known in self._agents.items():
            problem = known.problem
            if known.index.left_out:
                problem = f"There are {known.index.left_out} sessions more than can be followed: delete old ones."
            if self._unwatched and len(known.index):
                problem = problem or self._unwatched
            if problem or len(known.index):
                statuses.append(AgentStatus(agent=name, sessions=len(known.index), problem=problem))
        return statuses

    async def run(self, told: Told) -> None:
        self._told = told
        loop = asyncio.get_running_loop()
        places = [place for known in self._agents.values() for place in known.agent.places()]
        try:
            self._watcher = Watcher(places, self._home)
        except OSError as error:
            self._unwatched = f"Changes are noticed late: the kernel gives no inotify ({error.strerror})."
        try:
            if self._watcher is not None:
                await loop.run_in_executor(self._looking, self._watcher.settle)
                loop.add_reader(self._watcher.fileno(), self._hear)
            await self._look_for_ever()
        finally:
            if self._watcher is not None:
                loop.remove_reader(self._watcher.fileno())
                self._watcher.close()
                self._watcher = None

    async def read(self, request: ReadSession) -> Page:
        known, found = self._find(request.agent, request.session_id)
        limit = _limit(request.limit)
        return await self._try(
            request.agent, found, lambda: known.agent.read(found, request.cursor, limit), self._reading
        )

    async def read_several(self, request: ReadSessions) -> Pages:
        loop = asyncio.get_running_loop()
        wanted = []
        for each in request.sessions:
            known = self._agents.get(each.agent)
            found = known.index.get(each.session_id) if known else None
            wanted.append(
                several.Wanted(known.agent if known else None, each.agent, each.session_id, found, each.cursor)
            )

        def missing(agent: str, found: Found) -> None:
            loop.call_soon_threadsafe(self._changed, self._agents[agent], [found.key])

        work = partial(several.read, wanted, _limit(request.limit), missing)
        return Pages(pages=await loop.run_in_executor(self._reading_several, work))

    async def rename(self, request: RenameInStore) -> None:
        known, found = self._find(request.agent, request.session_id)
        await self._try(request.agent, found, lambda: known.agent.rename(found, request.title), self._reading)
        self._changed(known, [found.key])

    async def delete(self, request: DeleteInStore) -> None:
        known, found = self._find(request.agent, request.session_id)
        await self._try(request.agent, found, lambda: known.agent.delete(found), self._reading)
        await self._look(known, [found.key])

    async def _try(self, agent: str, found: Found, act: Callable[[], T], executor: ThreadPoolExecutor) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(executor, act)
        except (NotPossible, OSError) as error:
            if isinstance(error, FileNotFoundError):
                self._changed(self._agents[agent], [found.key])
            raise several.refusal(agent, found, error) from error

    def _find(self, agent: str, session_id: str) -> tuple[AgentSessions, Found]:
        known = self._agents.get(agent)
        found = known.index.get(session_id) if known else None
        if known is None or found is None:
            raise SessionMissing(agent, session_id)
        return known, found

    def _hear(self) -> None:
        """The kernel has something to say. While it says much, it is let speak for a moment before it is heard again:
        it says the same only once until then."""
        loop = asyncio.get_running_loop()
        assert self._watcher is not None
        if loop.time() - self._heard_at < LISTEN_SECONDS:
            loop.remove_reader(self._watcher.fileno())
            loop.call_later(LISTEN_SECONDS, self._listen, self._watcher)
            return
        self._heard_at = loop.time()
        heard = self._watcher.hear()
        for known in self._agents.values():
            if heard.dropped:
                known.everything = True
            paths = {path for path in heard.files if known.agent.concerns(path)}
            self._changed(known, paths | known.index.below(heard.folders))
        self._wake.set()

    def _listen(self, watcher: Watcher) -> None:
        if watcher is self._watcher:
            asyncio.get_running_loop().add_reader(watcher.fileno(), self._hear)

    def _changed(self, known: AgentSessions, paths: Iterable[str]) -> None:
        known.pending.update(paths)
        self._wake.set()

    async def _look_for_ever(self) -> None:
        began = rescan = liveness = retry = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= rescan:
                rescan = now + (RESCAN_SECONDS if self.watching else POLL_SECONDS)
                if self._watcher is not None:
                    # What could not be watched before may be there now; and what it heard meanwhile is looked at.
                    self._watcher.settle()
                for known in self._agents.values():
                    known.everything = True
            if now >= liveness:
                liveness = now + LIVENESS_SECONDS
                for known in self._agents.values():
                    known.pending |= known.index.restless
            self._wake.clear()
            worked, again = 0.0, rescan
            for known in self._agents.values():
                start = time.monotonic()
                due = self._due(known, start)
                if due or known.everything:
                    everything, known.everything = known.everything, False
                    await self._look(known, None if everything else due)
                    worked += time.monotonic() - start
                if known.pending:
                    again = min(again, time.monotonic() + PAUSE_SECONDS)
                if known.index.restless:
                    again = min(again, liveness)
            waiting = [known for known in self._agents.values() if not known.looked]
            patient = time.monotonic() - began <= PATIENCE_SECONDS
            if not waiting or not patient:
                self._looked.set()
            if waiting and now >= retry:
                retry = time.monotonic() + (AGAIN_SECONDS if patient else POLL_SECONDS)
                for known in waiting:
                    known.everything = True
            if waiting:
                again = min(again, retry)
            # Never more than a third of a core, whatever is written.
            await asyncio.sleep(min(worked * 2, 0.2))
            await self._sleep_until(again)

    async def _sleep_until(self, moment: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, moment - time.monotonic())):
                await self._wake.wait()
        except TimeoutError:
            return

    def _due(self, known: AgentSessions, now: float) -> list[str]:
        """Of what has changed, what was not looked at a moment ago."""
        known.looked_at = {path: at for path, at in known.looked_at.items() if now - at < PAUSE_SECONDS}
        due = [path for path in known.pending if path not in known.looked_at]
        known.pending.difference_update(due)
        known.looked_at.update(dict.fromkeys(due, now))
        return due

    async def _look(self, known: AgentSessions, paths: Sequence[str] | None) -> None:
        loop = asyncio.get_running_loop()
        try:
            looked = await loop.run_in_executor(self._looking, known.agent.look, paths, known.index)
        except Exception:
            # One agent's store must not keep the others from being followed.
            log.exception("looking at sessions of %s failed", known.agent.name)
            looked = Looked(problem="Its sessions cannot be looked at: the worker's log says why.")
        if paths is None or looked.problem or looked.settled:
            known.problem = looked.problem
        self._tell(known.agent.name, known.index.take(looked))
        if not known.looked and looked.everything and looked.problem is None:
            known.looked = True
            if self._looked.is_set():
                # It was said not to be whole.
                assert self._told is not None
                self._told(notices.store(known.agent.name, whole=True))

    def _tell(self, agent: str, changes: Changes) -> None:
        assert self._told is not None
        for found in changes.seen:
            self._told(notices.seen(agent, found))
        for session_id in changes.gone:
            self._told(SessionGone(seq=UNNUMBERED, agent=agent, session_id=session_id))


def _limit(wanted: int) -> int:
    return max(1, min(wanted, PAGE_LIMIT, FRAME_LIMIT // 4))
