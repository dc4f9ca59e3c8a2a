"""Speaks to the worker of this workspace from a program beside it, over the socket that its user alone may use."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import WebSocketException

from protocol.worker import (
    FRAME_LIMIT,
    PROTOCOL,
    STREAM_PATH,
    Answer,
    Ask,
    Follow,
    FromWorker,
    Refused,
    Request,
    Result,
    SessionGone,
    SessionSeen,
    SnapshotEnd,
)


class Failed(Exception):
    """A sentence for people."""


class Conversation:
    """A conversation with the worker that runs."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._decoder = msgspec.json.Decoder(FromWorker)
        self._asked = 0

    async def sessions(self) -> list[SessionSeen]:
        """Every session that it knows, the most recently active first. Once, before anything is asked."""
        found: dict[tuple[str, str], SessionSeen] = {}
        while not isinstance(said := await self._next(), SnapshotEnd):
            if isinstance(said, SessionSeen):
                found[said.agent, said.session_id] = said
            elif isinstance(said, SessionGone):
                found.pop((said.agent, said.session_id), None)
        return sorted(found.values(), key=lambda each: str(each.last_activity or ""), reverse=True)

    async def ask(self, request: Request) -> Result:
        """Its answer. Failed where it refuses."""
        self._asked += 1
        await self._connection.send(msgspec.json.encode(Ask(id=self._asked, request=request)), text=True)
        while not (isinstance(said := await self._next(), Answer) and said.id == self._asked):
            pass
        if isinstance(said.result, Refused):
            raise Failed(said.result.message)
        return said.result

    async def _next(self) -> FromWorker:
        said: FromWorker = self._decoder.decode(await self._connection.recv())
        return said


@asynccontextmanager
async def conversation(socket: Path, version: str) -> AsyncIterator[Conversation]:
    """Failed where no worker answers."""
    try:
        async with unix_connect(
            str(socket), f"ws://worker{STREAM_PATH}", compression=None, max_size=FRAME_LIMIT, open_timeout=10
        ) as connection:
            await connection.send(msgspec.json.encode(Follow(version=version, protocol=PROTOCOL)), text=True)
            yield Conversation(connection)
    except PermissionError as exc:
        raise Failed("Only the user `workspace` may ask its worker.") from exc
    except (OSError, TimeoutError, WebSocketException) as exc:
        raise Failed(
            "The worker does not run at the moment; it is started again by itself, so try in a while."
        ) from exc
