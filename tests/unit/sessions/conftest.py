"""Sessions on a fake worker: what a fleet would do, the parts behind it, and what is looked at."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest

from controlplane.errors import NotFound, NotReady, WorkerError
from controlplane.sessions.changes import Changes
from controlplane.sessions.database import SessionsDatabase
from controlplane.sessions.follower import Follower
from controlplane.sessions.service import Sessions
from protocol.sessions import ListMessages, ListSessions, Message, SearchSessions, SessionInfo
from tests.fakes.worker import FakeWorker


class Index:
    """The parts, put together as wiring does, with ``workers`` by the name of their workspace."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "sessions.db"
        self.workers: dict[str, FakeWorker] = {}
        self.created: dict[str, str] = {}
        self.secrets: list[str] = []
        self.database = SessionsDatabase(self.file)
        self.changes = Changes()
        self.follower = Follower(
            self.database,
            self.changes,
            created=lambda name: self.created.get(name, "2026-01-01T00:00:00Z"),
            secrets=lambda: self.secrets,
        )
        self.sessions = Sessions(self.database, self.changes, self.follower, lambda name: name in self.workers)

    def worker(self, name: str = "alpha", *, page: int = 100) -> FakeWorker:
        self.workers[name] = FakeWorker(page=page)
        return self.workers[name]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follows while the block lasts; the file stays."""
        async with anyio.create_task_group() as tasks:
            self.follower.run_in(tasks)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
        self.database.close()

    @asynccontextmanager
    async def followed(
        self, name: str = "alpha", epoch: str | None = None, after: int | None = None
    ) -> AsyncIterator[None]:
        """One stream to one of them."""
        async with followed(self.follower, name, self.workers[name], epoch, after):
            yield

    async def all(self, **wanted: object) -> list[SessionInfo]:
        return (await self.sessions.list_(ListSessions(subagents=True, limit=500, **wanted))).items  # type: ignore[arg-type]

    async def messages(self, session_id: str, name: str = "alpha", agent: str = "claude") -> list[Message]:
        wanted = ListMessages(workspace=name, agent=agent, session_id=session_id, limit=500)
        return (await self.sessions.messages(wanted)).items

    async def found(self, query: str, **wanted: object) -> list[tuple[str, int]]:
        hits = await self.sessions.search(SearchSessions(query=query, **wanted))  # type: ignore[arg-type]
        return [(hit.session.session_id, hit.ordinal) for hit in hits.items]

    async def settled(self, name: str = "alpha") -> None:
        """Until what the worker has is what is kept, and searched."""

        def kept(db: sqlite3.Connection) -> tuple[dict[tuple[str, str], tuple[str | None, str]], int]:
            rows = db.execute(
                "SELECT agent, session_id, mark, status FROM sessions JOIN workspaces ON workspaces.id = workspace "
                "WHERE workspaces.name = ? AND NOT deleted",
                (name,),
            )
            waiting = db.execute("SELECT count(*) FROM pending").fetchone()[0]
            return {(row["agent"], row["session_id"]): (row["mark"], row["status"]) for row in rows}, waiting

        async def same() -> bool:
            there = {key: (each.mark, each.status.value) for key, each in self.workers[name].sessions.items()}
            return await self.database.read(kept) == (there, 0)

        await until(same, "what the worker has is kept")


@asynccontextmanager
async def followed(
    follower: Follower, name: str, worker: FakeWorker, epoch: str | None = None, after: int | None = None
) -> AsyncIterator[None]:
    """One stream to a worker, as the fleet holds it."""
    link = worker.open(epoch, after)

    async def listen() -> None:
        with suppress(WorkerError):
            async for event in link.events():
                follower.told(name, event)

    follower.attached(name, link)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
            worker.close(link)
            follower.detached(name)


async def until(condition: Callable[[], object], what: str) -> None:
    """As :func:`tests.waiting.until`, but the condition may be a coroutine function; what is not found, or not ready,
    is not met."""
    with anyio.move_on_after(30):
        while True:
            with suppress(NotFound, NotReady):
                met = condition()
                if await met if hasattr(met, "__await__") else met:
                    return
            await anyio.sleep(0.005)
    raise AssertionError(f"not in time: {what}")


@pytest.fixture
async def index(tmp_path: Path, anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Index]:
    monkeypatch.setattr("controlplane.sessions.follower.SETTLED_SECONDS", 0.0)
    made = Index(tmp_path)
    async with made.running():
        yield made
