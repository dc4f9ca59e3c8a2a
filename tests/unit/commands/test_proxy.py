"""``perry proxy`` through the agent, as a program of its own, to servers that really listen."""

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from cli import relay
from tests.fakes.surface import TOKEN, Surface
from tests.waiting import until

pytestmark = pytest.mark.anyio

PERRY = str(Path(sys.executable).with_name("perry"))
MEBIBYTE = 1 << 20
AT_MOST_ON_THE_WAY = 24 * MEBIBYTE
"""Windows, and the kernel's own buffers of three sockets and two pipes."""

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Proxied:
    """A proxy that runs. ``port`` is the local one."""

    def __init__(
        self, surface: Surface, process: "subprocess.Popen[bytes]", port: int, environ: dict[str, str]
    ) -> None:
        self.surface = surface
        self.process = process
        self.port = port
        self.environ = environ

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Ends]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()

    async def said(self, wanted: bytes) -> bytes:
        """Its stderr, until it has said that."""
        assert self.process.stderr is not None
        said = b""
        with anyio.fail_after(20):
            while wanted not in said:
                data = await anyio.to_thread.run_sync(self.process.stderr.read1, abandon_on_cancel=True)  # type: ignore[attr-defined]
                assert data, said
                said += data
        return said

    async def ended(self) -> int:
        with anyio.fail_after(20):
            await until(lambda: self.process.poll() is not None, "perry has ended")
        return self.process.returncode


def begun(environ: dict[str, str], local: int, remote: int) -> "subprocess.Popen[bytes]":
    command = [PERRY, "proxy", "alpha", f"{local}:{remote}"]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@asynccontextmanager
async def proxied(surface: Surface, folder: Path, handler: Handler | None) -> AsyncIterator[Proxied]:
    """A proxy to a server of ``handler``; or to a port where nothing listens."""
    remote, local = free_port(), free_port()
    server = None
    if handler is not None:
        server = await asyncio.start_server(handler, "127.0.0.1", remote)
    # No ssh in its PATH: the agent has to carry it.
    async with surface.served(grace=1) as agent:
        environ = {
            "PATH": str(folder / "empty"),
            "PERRY_URL": f"http://127.0.0.1:{agent}",
            "PERRY_TOKEN": TOKEN,
            "PERRY_CONFIG_DIR": str(folder / "config"),
        }
        process = begun(environ, local, remote)
        try:
            assert process.stdout is not None and process.stderr is not None
            line = await anyio.to_thread.run_sync(process.stdout.readline, abandon_on_cancel=True)
            assert line == f"http://127.0.0.1:{local} is port {remote} of alpha\n".encode(), process.stderr.read()
            yield Proxied(surface, process, local, environ)
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            if server is not None:
                server.close()


async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The digest of all that came, once no more comes."""
    with contextlib.suppress(OSError):
        digest = hashlib.sha256()
        while data := await reader.read(1 << 16):
            digest.update(data)
        writer.write(digest.hexdigest().encode())
        await writer.drain()
        writer.close()


async def test_a_client_that_closes_its_half_first_still_hears_the_answer(surface: Surface, tmp_path: Path) -> None:
    data = os.urandom(MEBIBYTE) * 5
    async with proxied(surface, tmp_path, answer_at_the_end) as proxy, proxy.connected() as (reader, writer):
        writer.write(data)
        writer.write_eof()
        with anyio.fail_after(30):
            assert await reader.read() == hashlib.sha256(data).hexdigest().encode()


async def test_a_server_that_closes_its_half_first_still_hears_the_rest(surface: Surface, tmp_path: Path) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"that is all")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    async with proxied(surface, tmp_path, handler) as proxy, proxy.connected() as (reader, writer):
        with anyio.fail_after(30):
            assert await reader.read() == b"that is all"
            writer.write(b"and yet")
            writer.write_eof()
            assert await heard == b"and yet"


async def test_a_reader_that_stops_holds_up_its_own_connection_and_nothing_piles_up(
    surface: Surface, tmp_path: Path
) -> None:
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            if await reader.readexactly(1) == b"a":
                while True:
                    writer.write(b"x" * MEBIBYTE)
                    await writer.drain()
                    sent += MEBIBYTE
            await answer_at_the_end(reader, writer)

    async with proxied(surface, tmp_path, handler) as proxy, proxy.connected() as (_, greedy):
        greedy.write(b"a")
        before = -1
        with anyio.fail_after(30):
            while before != sent or not sent:
                before = sent
                await anyio.sleep(0.5)
        assert sent < AT_MOST_ON_THE_WAY
        async with proxy.connected() as (reader, writer):
            writer.write(b"b")
            writer.write_eof()
            with anyio.fail_after(30):
                assert await reader.read() == hashlib.sha256(b"").hexdigest().encode()


async def test_many_connections_at_once(surface: Surface, tmp_path: Path) -> None:
    async with proxied(surface, tmp_path, answer_at_the_end) as proxy:

        async def one(number: int) -> None:
            data = number.to_bytes(4, "big") * 20_000
            async with proxy.connected() as (reader, writer):
                writer.write(data)
                writer.write_eof()
                assert await reader.read() == hashlib.sha256(data).hexdigest().encode()

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                for number in range(200):
                    tasks.start_soon(one, number)
        assert len(surface.engine.processes.all) == 1, "one command carries all of them"


async def test_a_server_that_breaks_off_is_no_end(surface: Surface, tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"begun")
        await writer.drain()
        await reader.readexactly(1)
        writer.transport.abort()

    async with proxied(surface, tmp_path, handler) as proxy, proxy.connected() as (reader, writer):
        with anyio.fail_after(30):
            assert await reader.readexactly(5) == b"begun"
            writer.write(b"x" * 100_000)
            with pytest.raises(OSError):
                assert await reader.read() == b"", "an end, where it broke"
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await anyio.sleep(0.01)


async def test_where_nothing_listens_it_says_so_once_and_goes_on(surface: Surface, tmp_path: Path) -> None:
    async with proxied(surface, tmp_path, None) as proxy:
        for _ in range(2):
            async with proxy.connected() as (reader, _writer):
                with contextlib.suppress(OSError):
                    assert await reader.read() == b""
        said = await proxy.said(b"perry ports alpha")
        assert b"does not answer (Connection refused)" in said and said.count(b"does not answer") == 1
        proxy.process.send_signal(signal.SIGINT)
        assert await proxy.ended() == 0


async def test_a_workspace_that_stops_in_the_middle(surface: Surface, tmp_path: Path) -> None:
    async with proxied(surface, tmp_path, answer_at_the_end) as proxy, proxy.connected() as (reader, writer):
        writer.write(b"x")
        await writer.drain()
        await until(lambda: bool(surface.engine.processes.all), "it is carried")
        await surface.engine.stop("alpha")
        assert b"was stopped while the command ran" in await proxy.said(b"perry start")
        assert await proxy.ended() == 7
        with contextlib.suppress(OSError):
            assert await reader.read() == b""


async def test_a_port_that_is_taken_here(surface: Surface, tmp_path: Path) -> None:
    async with proxied(surface, tmp_path, None) as proxy:
        done = await anyio.run_process([PERRY, "proxy", "alpha", f"{proxy.port}:3000"], env=proxy.environ, check=False)
        assert done.returncode == 1 and done.stdout == b""
        assert f"Port {proxy.port} of this device cannot be listened on".encode() in done.stderr


async def _never(kind: int, number: int, value: int, data: bytes) -> None:
    raise AssertionError("nothing is to be sent")


async def test_neither_half_may_send_more_than_the_other_takes() -> None:
    connection = relay.Connection(1, _never)
    connection.arrived(b"x" * relay.WINDOW)
    with pytest.raises(relay.Broken):
        connection.arrived(b"x")
    with pytest.raises(relay.Broken):
        relay.Connection(1, _never).taken(1)
    ended = relay.Connection(1, _never)
    ended.ended()
    with pytest.raises(relay.Broken):
        ended.arrived(b"x")
