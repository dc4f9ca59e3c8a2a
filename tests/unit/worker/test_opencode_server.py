"""When OpenCode's server is started and ended, and how its port leads to it; with real processes and sockets."""

import asyncio
import base64
import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until
from worker import processes
from worker.opencode import client, relay, server
from worker.opencode.client import Unusable, running
from worker.opencode.process import ServerProcess
from worker.opencode.relay import OpenCode
from worker.opencode.server import Server, keep_seconds, until_it_is_alone
from worker.sessions.liveness import Processes

SECONDS = 30
STAND_IN = Path(__file__).with_name("opencode_stand_in.py")


class Place:
    """A home, where ``opencode`` is the stand-in."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.keep: float | None = 600.0
        self.server = Server(home, lambda: self.keep)
        self.part = OpenCode(self.server, port=0)

    @contextlib.asynccontextmanager
    async def worker(self) -> AsyncIterator[OpenCode]:
        """A worker that runs; each has the home as the one before left it."""
        self.server = Server(self.home, lambda: self.keep)
        self.part = OpenCode(self.server, port=0)
        running = asyncio.create_task(self.part.run(lambda _: None))
        try:
            await until(lambda: self.part.port)
            yield self.part
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    @property
    def starts(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return len((self.home / "starts").read_text().split())
        return 0

    async def connect(self, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.part.port)
        secret = base64.b64encode(b"opencode:hush").decode()
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {secret}\r\n\r\n".encode())
        return reader, writer

    async def get(self, path: str) -> bytes:
        """All of the answer."""
        reader, writer = await self.connect(path)
        try:
            async with asyncio.timeout(SECONDS):
                return await reader.read()
        finally:
            writer.close()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "opencode"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    program.chmod(0o755)
    password = tmp_path / "password"
    password.write_text("hush\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(client, "PASSWORD_FILE", password)
    monkeypatch.setattr(server, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(server, "FIRST_PAUSE", 0.2)
    monkeypatch.setattr(server, "HEALTH_SECONDS", 0.15)
    monkeypatch.setattr(server, "READY_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(server, "FIRST_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(server, "Processes", lambda: Processes(tmp_path / "none"))
    (tmp_path / "none").mkdir()
    environment = {"HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}"}
    monkeypatch.setattr(processes, "session_environment", lambda _: environment)
    yield Place(tmp_path)
    if (left := running(tmp_path)) is not None:
        os.kill(left.pid, signal.SIGKILL)


async def test_it_starts_with_the_first_who_says_something(place: Place) -> None:
    async with place.worker() as part:
        _, looking = await asyncio.open_connection("127.0.0.1", part.port)
        looking.close()
        await asyncio.sleep(0.2)
        assert place.starts == 0
        answers = await asyncio.gather(*(place.get("/global/health") for _ in range(5)))
        assert all(answer.endswith(b'{"healthy":true}') for answer in answers)
        assert place.starts == 1
        # What came in the moment in which it began to listen would never have been answered.
        assert b" 401 " in await _raw(part.port, b"GET /global/health HTTP/1.1\r\nHost: x\r\n\r\n")


async def test_it_ends_when_nobody_uses_it_and_comes_back(place: Place) -> None:
    place.keep = 0.3
    async with place.worker():
        reader, writer = await place.connect("/event")
        await reader.readuntil(b"data: tick")
        await asyncio.sleep(1)
        assert running(place.home) is not None
        writer.close()
        await until(lambda: running(place.home) is None)
        assert (await place.get("/global/health")).endswith(b'{"healthy":true}')
        assert place.starts == 2


async def test_it_stays_while_something_works_in_it_that_nobody_watches(place: Place) -> None:
    place.keep = 0.2
    (place.home / "busy").touch()
    async with place.worker():
        await place.get("/global/health")
        await until(lambda: b"/session/status" in (place.home / "asked").read_bytes())
        await asyncio.sleep(0.5)
        assert running(place.home) is not None
        (place.home / "busy").unlink()
        await until(lambda: running(place.home) is None)


@pytest.mark.parametrize("odd", ["{", "[]", "null", '{"ses_1":7}', "[" * 100_000])
async def test_it_stays_and_is_reached_where_it_answers_something_odd(place: Place, odd: str) -> None:
    place.keep = 0.1
    (place.home / "odd").write_text(odd)
    async with place.worker():
        await place.get("/global/health")
        await until(lambda: (place.home / "asked").read_bytes().count(b"/session/status") > 2)
        assert (await place.get("/global/health")).endswith(b'{"healthy":true}')
        assert place.starts == 1


async def test_it_stays_for_a_task_and_is_started_again_for_it(place: Place) -> None:
    place.keep = 0.2
    async with place.worker():
        at_work = True
        place.server.held_by(lambda: at_work)
        async with place.server.use():
            pass
        await asyncio.sleep(0.6)
        found = running(place.home)
        assert found is not None
        os.kill(found.pid, signal.SIGKILL)
        await until(lambda: place.starts == 2 and running(place.home))
        at_work = False
        await until(lambda: running(place.home) is None)


async def test_what_it_had_started_for_itself_ends_with_it(place: Place) -> None:
    place.keep = 0.5
    async with place.worker():
        pid = int((await place.get("/child")).rpartition(b"\n")[2])
        assert processes.started(pid) is not None
        await until(lambda: running(place.home) is None)
        await until(lambda: processes.started(pid) is None)


async def test_kept_always(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.keep = None
    monkeypatch.setattr(server, "PATIENCE", 0.1)
    async with place.worker():
        await until(lambda: running(place.home))
        await asyncio.sleep(0.5)
        assert place.starts == 1 and running(place.home) is not None


async def test_a_worker_finds_the_server_of_the_one_before(place: Place) -> None:
    async with place.worker():
        await place.get("/global/health")
    left = running(place.home)
    place.keep = 0.3
    async with place.worker():
        assert (await place.get("/global/health")).endswith(b'{"healthy":true}')
        assert running(place.home) == left and place.starts == 1
        await until(lambda: running(place.home) is None)


async def test_a_server_that_does_not_come_up_is_said(place: Place) -> None:
    (place.home / "fails").touch()
    async with place.worker():
        said = await place.get("/global/health")
        assert said.startswith(b"HTTP/1.1 503 ") and b"OpenCode's server ended (exit code 7)" in said
        with pytest.raises(Unusable, match="exit code 7"):
            async with place.server.use():
                pass
        (place.home / "fails").unlink()
        await until(lambda: place.server._state is None)
        assert (await place.get("/global/health")).endswith(b'{"healthy":true}')


async def test_a_server_that_cannot_be_noted_is_not_left(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    run = subprocess.Popen

    def starting(*command: Any, **how: Any) -> subprocess.Popen[bytes]:
        started.append(run(*command, **how))
        return started[-1]

    def exhausted(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(subprocess, "Popen", starting)
    monkeypatch.setattr(os, "pidfd_open", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        ServerProcess.start(place.home, processes.session_environment(""))
    assert processes.started(started[0].pid) is None and running(place.home) is None
    shutil.rmtree((place.home / client.RECORD).parent.parent)
    (place.home / client.RECORD).parent.parent.write_text("a file where the folder should be")
    with pytest.raises(OSError, match=r"xist|Not a directory"):
        ServerProcess.start(place.home, processes.session_environment(""))
    assert len(started) == 1


async def test_opencode_is_not_installed(place: Place) -> None:
    (place.home / "bin" / "opencode").unlink()
    environment = processes.session_environment("")
    environment["PATH"] = str(place.home / "bin")
    async with place.worker():
        assert b"OpenCode is not installed in this workspace" in await place.get("/")


async def test_a_server_that_dies_is_started_again(place: Place) -> None:
    async with place.worker():
        await place.get("/global/health")
        first = running(place.home)
        assert await place.get("/die") == b""
        await until(lambda: running(place.home) != first)
        assert (await place.get("/global/health")).endswith(b'{"healthy":true}')
        assert place.starts == 2


async def test_a_worker_ends_while_somebody_is_connected(place: Place) -> None:
    worker = asyncio.create_task(place.part.run(lambda _: None))
    await until(lambda: place.part.port)
    reader, writer = await place.connect("/event")
    await reader.readuntil(b"data: tick")
    worker.cancel()
    assert (await asyncio.wait({worker}, timeout=SECONDS))[0]
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(SECONDS):
            await reader.read()
    writer.close()


async def test_bytes_go_both_ways_and_half_closed(place: Place) -> None:
    async with place.worker():
        reader, writer = await place.connect("/socket")
        sent = os.urandom(8 << 20)
        writer.write(sent)
        writer.write_eof()
        async with asyncio.timeout(SECONDS):
            heard = await reader.read()
        assert heard == b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + sent + b"that was all"
        writer.close()


async def test_who_does_not_read_is_not_sent_more(place: Place) -> None:
    async with place.worker():
        reader, writer = await place.connect("/endless")
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        before, now = -1, 0
        async with asyncio.timeout(SECONDS):
            while before != now:
                before = now
                await asyncio.sleep(0.5)
                now = int((place.home / "sent").read_text() or "0")
        assert now < 64 << 20
        writer.transport.abort()
        await until(lambda: not place.part._connections)


async def test_somebody_elses_program_has_the_port(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        place.part = OpenCode(place.server, port=other.getsockname()[1])
        holding = asyncio.create_task(place.part._hold())
        await until(lambda: place.part.problem)
        assert "leads to a program of its own" in str(place.part.problem)
        holding.cancel()


async def test_a_port_that_becomes_free(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "AGAIN_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as other:
        place.part = OpenCode(place.server, port=other.getsockname()[1])
        holding = asyncio.create_task(place.part._hold())
        await until(lambda: place.part.problem)
    await until(lambda: place.part.problem is None)
    holding.cancel()


async def test_there_is_a_bound(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MOST", 1)
    async with place.worker() as part:
        _, first = await asyncio.open_connection("127.0.0.1", part.port)
        await until(lambda: part._connections)
        assert await _raw(part.port, b"GET / HTTP/1.1\r\n\r\n") == b""
        first.close()
        await until(lambda: not part._connections)
        assert (await place.get("/global/health")).endswith(b'{"healthy":true}')


def test_how_long_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "KEEP_FILE", tmp_path / "keep")
    assert keep_seconds() == 600
    (tmp_path / "keep").write_text("always\n")
    assert keep_seconds() is None
    (tmp_path / "keep").write_text("42.0")
    assert keep_seconds() == 42


async def _raw(port: int, asked: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(asked)
    try:
        async with asyncio.timeout(SECONDS):
            return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    finally:
        writer.close()


async def test_it_waits_for_somebodys_first_opencode(tmp_path: Path) -> None:
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "cmdline").write_bytes(b"opencode\0run\0hello\0")
    waiting = asyncio.create_task(
        until_it_is_alone(str(tmp_path / "opencode.db"), Processes(tmp_path / "proc"), look=0.01)
    )
    await asyncio.sleep(0.1)
    assert not waiting.done()
    (process / "cmdline").unlink()
    await asyncio.wait_for(waiting, 20)


async def test_it_does_not_wait_where_the_database_is_there(tmp_path: Path) -> None:
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "cmdline").write_bytes(b"opencode\0")
    (tmp_path / "opencode.db").touch()
    began = time.monotonic()
    await until_it_is_alone(str(tmp_path / "opencode.db"), Processes(tmp_path / "proc"), look=60)
    assert time.monotonic() - began < 20
