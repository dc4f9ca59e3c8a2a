"""Something under a worker's port that says what a test wants."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from websockets.asyncio.server import ServerConnection, serve

from protocol.worker import PROTOCOL
from tests.unit.worker.shelf import shut

HELLO = f'{{"type":"hello","version":"1","protocol":{PROTOCOL},"epoch":"e","seq":0,"resumed":false}}'

Behaviour = Callable[[ServerConnection], Awaitable[None]]


@asynccontextmanager
async def hostile(behaviour: Behaviour) -> AsyncIterator[str]:
    """Its address. It hears the first frame, then behaves so."""

    async def handle(connection: ServerConnection) -> None:
        await connection.recv()
        await behaviour(connection)

    server = await serve(handle, "127.0.0.1", 0, compression=None, max_size=None, close_timeout=0.1)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        await shut(server)


def saying(*frames: str | bytes) -> Behaviour:
    """Says these, then listens for ever."""

    async def behave(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(frame)
        await connection.wait_closed()

    return behave
