"""A part of a worker that holds sessions in memory, and a stream that tells of it on a socket of this machine."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import msgspec
from websockets.asyncio.server import Server

from protocol.sessions import SessionStatus
from protocol.worker import Page, ReadSession, Request, SessionFacts, SessionGone, SessionSeen
from worker.journal import Journal
from worker.ports import UNNUMBERED, Handler, Notice, Part, SessionMissing, Told
from worker.requests import Requests
from worker.stream import Stream

SECRET = "s" * 43


class Shelf:
    """``marks`` is the truth: what each session's mark is. ``answer`` answers ReadSession."""

    def __init__(self) -> None:
        self.marks: dict[str, str] = {}
        self.ready = asyncio.Event()
        self.ready.set()
        self.told: Told = lambda notice: None
        self.answer: Callable[[ReadSession], Awaitable[Page]] = self._page

    def put(self, session_id: str, mark: str) -> None:
        self.marks[session_id] = mark
        self.told(_seen(session_id, mark))

    def remove(self, session_id: str) -> None:
        del self.marks[session_id]
        self.told(SessionGone(seq=UNNUMBERED, agent="claude", session_id=session_id))

    async def run(self, told: Told) -> None:
        self.told = told
        await asyncio.Event().wait()

    async def looked(self) -> None:
        await self.ready.wait()

    def seen(self) -> Sequence[Notice]:
        return [_seen(*each) for each in self.marks.items()]

    def handlers(self) -> Mapping[type[Request], Handler]:
        return {ReadSession: lambda request: self.answer(request)}

    async def _page(self, request: ReadSession) -> Page:
        if request.session_id not in self.marks:
            raise SessionMissing(request.agent, request.session_id)
        mark = self.marks[request.session_id]
        return Page(messages=[], facts=SessionFacts(), cursor="0", mark=mark, more=False)


_typed: type[Part] = Shelf


def _seen(session_id: str, mark: str) -> SessionSeen:
    return SessionSeen(seq=UNNUMBERED, agent="claude", session_id=session_id, mark=mark, status=SessionStatus.IDLE)


class Served:
    """A running stream. ``address`` is where."""

    def __init__(self, folder: Path, shelf: Shelf, *, ring: int, port: int = 0, version: str = "1") -> None:
        self.journal = Journal(ring)
        self.secret_file = folder / "secret"
        self.secret_file.write_text(SECRET)
        shelf.told = self.journal.tell
        self._port = port
        self.stream = Stream(
            version=version,
            journal=self.journal,
            requests=Requests([shelf]),
            looked=shelf.looked,
            seen=shelf.seen,
            secret_file=self.secret_file,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        self.server = await self.stream.listen("127.0.0.1", self._port)
        try:
            yield f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        finally:
            await shut(self.server)

    def drop_all(self) -> None:
        """Every connection breaks, without a word."""
        for connection in self.server.connections:
            connection.transport.abort()


def raw(frame: msgspec.Struct) -> str:
    """A frame, as text."""
    return msgspec.json.encode(frame).decode()


async def shut(server: Server) -> None:
    """Close it whole, also where a test is being cancelled: what is left open shows in another test."""
    with anyio.CancelScope(shield=True):
        server.close()
        await server.wait_closed()
