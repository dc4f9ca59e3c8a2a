"""A served surface with the workspace ``alpha``, and the other side of ``/exec``."""

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from protocol.exec import ServerFrame, Started, Taken, server_frames
from tests.fakes.surface import TOKEN, Surface

AUTHORISED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def surface(tmp_path: Path, anyio_backend: str) -> Surface:
    surface = Surface(tmp_path)
    await surface.running("alpha")
    return surface


class Client:
    """One connection. ``out`` and ``err`` are what came, ``taken`` is what was taken of stdin."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.out = b""
        self.err = b""
        self.taken = 0

    async def frame(self) -> ServerFrame:
        """The next control frame; output before it is kept, and reported as taken."""
        with anyio.fail_after(10):
            while True:
                data = await self.ws.recv()
                if isinstance(data, str):
                    frame = server_frames.decode(data)
                    if not isinstance(frame, Taken):
                        return frame
                    self.taken += frame.bytes
                elif data[0] == 1:
                    self.out += data[1:]
                else:
                    assert data[0] == 2
                    self.err += data[1:]
                if isinstance(data, bytes):
                    # It may have closed by now, with the rest of what it said still to be read.
                    with contextlib.suppress(ConnectionClosed):
                        await self.say("taken", bytes=len(data) - 1)

    async def say(self, kind: str, **fields: Any) -> None:
        await self.ws.send(json.dumps({"type": kind, **fields}))

    async def stdin(self, data: bytes) -> None:
        await self.ws.send(b"\0" + data)

    async def until_out(self, wanted: bytes) -> None:
        """Until it has said that."""
        with anyio.fail_after(10):
            while wanted not in self.out:
                data = await self.ws.recv()
                assert isinstance(data, bytes), data
                self.out += data[1:]

    async def close_code(self) -> int:
        with anyio.fail_after(10), pytest.raises(ConnectionClosed) as caught:
            while True:
                await self.ws.recv()
        assert caught.value.rcvd is not None
        return caught.value.rcvd.code


@asynccontextmanager
async def opened(port: int, *command: str, name: str = "alpha", **run: Any) -> AsyncIterator[Client]:
    """A connection on which a command has been started, or refused."""
    url = f"ws://127.0.0.1:{port}/exec/{name}"
    async with connect(url, additional_headers=AUTHORISED, proxy=None, compression=None) as ws:
        client = Client(ws)
        if command:
            await client.say("run", command=list(command), **run)
        yield client


@asynccontextmanager
async def started(port: int, *command: str, **run: Any) -> AsyncIterator[Client]:
    async with opened(port, *command, **run) as client:
        assert await client.frame() == Started()
        yield client
