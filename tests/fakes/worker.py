"""Workers in memory, typed against the ports and held to the real one by tests/contract/worker.

A :class:`FakeWorker` is what runs inside one workspace: its sessions are lists of messages, and a cursor is how much of
them was read. :class:`FakeWorkers` dials them by their address.
"""

import secrets as randomness
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import anyio.lowlevel
import msgspec

from controlplane.errors import WorkerError, WorkerRefusesSecret, WorkerUnavailable
from controlplane.ports import WorkerLink, Workers
from protocol.sessions import Message, MessageRole, SessionStatus, Text
from protocol.version import VERSION
from protocol.worker import (
    PROTOCOL,
    AgentStatus,
    DeleteInStore,
    Done,
    Event,
    Hello,
    Page,
    Pages,
    ReadSession,
    ReadSessions,
    ReadStatus,
    Refused,
    RenameInStore,
    Request,
    Result,
    SessionFacts,
    SessionGone,
    SessionSeen,
    SnapshotEnd,
    StoreSeen,
    TaskSeen,
    WorkerStatus,
)
from tests.fakes.tasks import FakeTasks


def message(ordinal: int, text: str, role: MessageRole = MessageRole.ASSISTANT, at: datetime | None = None) -> Message:
    """One of plain text."""
    return Message(ordinal=ordinal, id=f"m{ordinal}", role=role, blocks=[Text(text=text)], at=at)


class FakeSession:
    """What an agent has stored of a session. ``written`` are its messages in the order in which they were written."""

    def __init__(self, agent: str, session_id: str, facts: SessionFacts) -> None:
        self.agent = agent
        self.session_id = session_id
        self.facts = facts
        self.written: list[Message] = []
        self.status = SessionStatus.IDLE
        self.last_activity = datetime(2026, 1, 1, tzinfo=UTC)
        self.version = 0
        self.lives = 0

    @property
    def mark(self) -> str:
        return f"{self.lives}.{self.version}"

    def truth(self) -> list[Message]:
        """Its messages as they stand: the last of each ordinal."""
        return [found for _, found in sorted({told.ordinal: told for told in self.written}.items())]


class FakeWorker:
    """One workspace's worker. ``page`` is how many messages fit into a page.

    ``away`` refuses to be dialled; :meth:`restart` loses what it told; :meth:`hang_up` breaks its streams. ``answers``
    is asked before the worker itself: a test gives what a hostile one would.
    """

    def __init__(self, secret: str = "secret", *, page: int = 100, kept: int = 1_000) -> None:
        self.secret = secret
        self.away = False
        self.page = page
        self.asked: list[Request] = []
        self.answers: Callable[[Request], Result | None] = lambda request: None
        self.sessions: dict[tuple[str, str], FakeSession] = {}
        self.unreadable: set[str] = set()
        self.tasks = FakeTasks(lambda seen: self.tell(seen))
        self._kept = kept
        self._links: set[_Link] = set()
        self.restart()

    # --- what an agent does

    def write(self, session_id: str, *messages: Message, agent: str = "claude", **facts: object) -> FakeSession:
        """An agent adds messages to a session, which is new if need be."""
        session = self.sessions.get((agent, session_id))
        if session is None:
            session = self.sessions[agent, session_id] = FakeSession(agent, session_id, SessionFacts())
        session.facts = msgspec.structs.replace(session.facts, **facts)
        session.written += messages
        self.changed(session)
        return session

    def rewrite(self, session_id: str, *messages: Message, agent: str = "claude") -> None:
        """An agent writes a session anew: what was read of it is void."""
        session = self.sessions[agent, session_id]
        session.written = list(messages)
        session.lives += 1
        self.changed(session)

    def remove(self, session_id: str, agent: str = "claude") -> None:
        """An agent deletes a session."""
        del self.sessions[agent, session_id]
        self.tell(SessionGone(seq=0, agent=agent, session_id=session_id))

    def set_status(self, session_id: str, status: SessionStatus, agent: str = "claude") -> None:
        session = self.sessions[agent, session_id]
        session.status = status
        self.changed(session)

    def changed(self, session: FakeSession) -> None:
        session.version += 1
        self.tell(self._seen(session))

    # --- what happens to the worker

    def restart(self) -> None:
        """Another run: it does not know what it told."""
        self.hang_up()
        self.epoch = randomness.token_hex(4)
        self.seq = 0
        self._news: list[Event] = []

    def hang_up(self) -> None:
        """Every stream breaks."""
        for link in self._links:
            link.broken.set()

    @property
    def streams(self) -> int:
        """How many stand now."""
        return len(self._links)

    def can_read(self, agent: str) -> None:
        """An agent's store was ``unreadable`` until now."""
        self.unreadable.remove(agent)
        for session in self.sessions.values():
            if session.agent == agent:
                self.tell(self._seen(session))
        self.tell(StoreSeen(seq=0, agent=agent, whole=True))

    def tell(self, event: SessionSeen | SessionGone | StoreSeen | TaskSeen) -> None:
        self.seq += 1
        self._news.append(msgspec.structs.replace(event, seq=self.seq))
        for link in self._links:
            link.news.set()

    def _seen(self, session: FakeSession) -> SessionSeen:
        return SessionSeen(
            seq=self.seq,
            agent=session.agent,
            session_id=session.session_id,
            mark=session.mark,
            status=session.status,
            last_activity=session.last_activity,
        )

    # --- the other end of a stream

    def open(self, epoch: str | None, after: int | None) -> "_Link":
        resumes = epoch == self.epoch and after is not None and self.seq - self._kept <= after <= self.seq
        hello = Hello(version=VERSION, protocol=PROTOCOL, epoch=self.epoch, seq=self.seq, resumed=resumes)
        link = _Link(self, hello, after if resumes and after is not None else None)
        self._links.add(link)
        return link

    def close(self, link: "_Link") -> None:
        link.broken.set()
        self._links.discard(link)

    def snapshot(self) -> list[Event]:
        sessions = [session for session in self.sessions.values() if session.agent not in self.unreadable]
        stores = [StoreSeen(seq=self.seq, agent=agent, whole=False) for agent in self.unreadable]
        tasks = [msgspec.structs.replace(seen, seq=self.seq) for seen in self.tasks.seen()]
        return [*map(self._seen, sessions), *tasks, *stores, SnapshotEnd(seq=self.seq)]

    def news(self, after: int) -> Iterable[Event]:
        return self._news[max(after, 0) :]

    def answer(self, request: Request) -> Result:
        self.asked.append(request)
        if (given := self.answers(request) or self.tasks.answer(request)) is not None:
            return given
        if isinstance(request, ReadStatus):
            agents = [AgentStatus(agent="claude", sessions=len(self.sessions))]
            return WorkerStatus(version=VERSION, uptime=1.0, memory=1 << 20, watching=True, agents=agents)
        if isinstance(request, ReadSessions):
            return self._read_several(request)
        if not isinstance(request, ReadSession | RenameInStore | DeleteInStore):
            raise WorkerError("This worker does not know what it was asked; `perry sync` brings a newer one.")
        session = self.sessions.get((request.agent, request.session_id))
        if session is None:
            raise WorkerError(f"{request.agent} has no session {request.session_id!r} here.")
        if isinstance(request, RenameInStore):
            session.facts = msgspec.structs.replace(session.facts, title=request.title)
            self.changed(session)
            return Done()
        if isinstance(request, DeleteInStore):
            self.remove(request.session_id, request.agent)
            return Done()
        return self._read(session, request)

    def _read_several(self, request: ReadSessions) -> Pages:
        """A page of half of them."""
        pages: list[Page | Refused] = []
        for each in request.sessions[: (len(request.sessions) + 1) // 2]:
            asked = ReadSession(agent=each.agent, session_id=each.session_id, cursor=each.cursor)
            try:
                page = self.answer(asked)
                pages.append(page if isinstance(page, Page) else Refused(code="failed", message="That is no page."))
            except WorkerError as exc:
                pages.append(Refused(code="missing", message=exc.message))
        return Pages(pages=pages)

    def _read(self, session: FakeSession, request: ReadSession) -> Page:
        life, _, read = (request.cursor or f"{session.lives}.0").partition(".")
        reset = life != str(session.lives)
        begin = 0 if reset else int(read)
        end = min(begin + self.page, len(session.written))
        return Page(
            messages=session.written[begin:end],
            facts=session.facts,
            cursor=f"{session.lives}.{end}",
            mark=session.mark,
            more=end < len(session.written),
            reset=reset,
        )


class _Link:
    """A stream to a worker."""

    def __init__(self, worker: FakeWorker, hello: Hello, after: int | None) -> None:
        self.hello = hello
        self.broken = anyio.Event()
        self.news = anyio.Event()
        self._worker = worker
        self._after = after

    async def events(self) -> AsyncIterator[Event]:
        after = self._after
        if after is None:
            after = self._worker.seq
            for event in self._worker.snapshot():
                await self._turn()
                yield event
        while True:
            self.news = anyio.Event()
            fresh = list(self._worker.news(after))
            for event in fresh:
                await self._turn()
                after = event.seq
                yield event
            if not fresh:
                await self._wait()

    async def ask(self, request: Request) -> Result:
        await self._turn()
        return self._worker.answer(request)

    async def _turn(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.broken.is_set():
            raise WorkerUnavailable("The stream to the worker broke; it is opened again by itself.")

    async def _wait(self) -> None:
        async with anyio.create_task_group() as group:

            async def until(event: anyio.Event) -> None:
                await event.wait()
                group.cancel_scope.cancel()

            group.start_soon(until, self.news)
            group.start_soon(until, self.broken)
        await self._turn()


class FakeWorkers:
    """Dials the workers that are in ``workers``, by their address."""

    def __init__(self) -> None:
        self.workers: dict[str, FakeWorker] = {}

    @asynccontextmanager
    async def dial(
        self, address: str, secret: str, *, epoch: str | None = None, after: int | None = None
    ) -> AsyncIterator[WorkerLink]:
        worker = self.workers.get(address)
        if worker is None or worker.away:
            raise WorkerUnavailable(f"No worker answers at {address}; it is tried again by itself.")
        if secret != worker.secret:
            raise WorkerRefusesSecret("The worker does not take the secret; `perry sync` brings it a new one.")
        link = worker.open(epoch, after)
        try:
            yield link
        finally:
            worker.close(link)


_: type[Workers] = FakeWorkers
