"""``perry exec``, as a program of its own, on commands that really run."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from protocol.exec import WINDOW
from protocol.workspaces import WorkspaceStatus
from tests.fakes.surface import TOKEN, Surface
from tests.fakes.workspaces import workspace
from tests.unit.commands.test_exec import is_over
from tests.waiting import until

pytestmark = pytest.mark.anyio

PERRY = str(Path(sys.executable).with_name("perry"))


class Agent:
    """A surface that is served; ``environ`` points perry at it."""

    def __init__(self, surface: Surface, port: int, folder: Path) -> None:
        self.surface = surface
        self.environ = {
            "PATH": os.environ["PATH"],
            "PERRY_URL": f"http://127.0.0.1:{port}",
            "PERRY_TOKEN": TOKEN,
            "PERRY_CONFIG_DIR": str(folder / "config"),
            "TERM": "xterm",
        }

    async def exec(self, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        with anyio.fail_after(20):
            return await anyio.run_process([PERRY, "exec", *arguments], input=stdin, env=self.environ, check=False)

    def begun(self, *arguments: str, command: str = "exec", **options: int) -> subprocess.Popen[bytes]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([PERRY, command, *arguments], env=self.environ, start_new_session=True, **pipes)  # type: ignore[call-overload, no-any-return]


@asynccontextmanager
async def served(surface: Surface, folder: Path) -> AsyncIterator[Agent]:
    async with surface.served(grace=1) as port:
        yield Agent(surface, port, folder)


@pytest.fixture
async def agent(surface: Surface, tmp_path: Path) -> AsyncIterator[Agent]:
    async with served(surface, tmp_path) as agent:
        yield agent


async def ended(process: subprocess.Popen[bytes]) -> int:
    with anyio.fail_after(10):
        await until(lambda: process.poll() is not None, "perry has ended")
    return process.returncode


async def read_until(read: Callable[[], bytes], wanted: bytes) -> bytes:
    said = b""
    with anyio.fail_after(10):
        while wanted not in said:
            said += await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
    return said


async def test_streams_and_exit_code_are_passed_on(agent: Agent) -> None:
    script = 'cat; echo "$1" >&2; exit 42'
    done = await agent.exec("alpha", "--", "sh", "-c", script, "sh", "--json -t; id", stdin=b"\0in\xff" * 100_000)
    assert (done.returncode, done.stderr) == (42, b"--json -t; id\n")
    assert done.stdout == b"\0in\xff" * 100_000


async def test_input_larger_than_all_windows_and_output_too(agent: Agent) -> None:
    data = os.urandom(1 << 16) * 80
    assert len(data) > 4 * WINDOW
    done = await agent.exec("alpha", "cat", stdin=data)
    assert done.returncode == 0 and done.stdout == data


async def test_no_stdin(agent: Agent) -> None:
    done = await agent.exec("--no-stdin", "alpha", "cat", stdin=b"for somebody else")
    assert (done.returncode, done.stdout) == (0, b"")


async def test_what_cannot_be_run(agent: Agent) -> None:
    done = await agent.exec("alpha", "no-such-program")
    assert done.returncode == 127 and b"Error: There is no program 'no-such-program'; install it" in done.stderr
    done = await agent.exec("--cwd", "nowhere", "alpha", "ls")
    assert done.returncode == 2 and b"'nowhere'" in done.stderr
    done = await agent.exec("nobody", "ls")
    assert done.returncode == 4 and b"There is no workspace named 'nobody'" in done.stderr
    agent.surface.workspaces.put(workspace("alpha", status=WorkspaceStatus.STOPPED))
    done = await agent.exec("alpha", "ls")
    assert done.returncode == 7 and b"perry start alpha" in done.stderr
    agent.environ["PERRY_TOKEN"] = "wrong"
    done = await agent.exec("alpha", "ls")
    assert done.returncode == 6 and b"perry agent token" in done.stderr


async def test_it_ends_at_its_time(agent: Agent) -> None:
    began = time.monotonic()
    done = await agent.exec("--timeout", "0.5", "alpha", "sleep", "60")
    assert done.returncode == 124 and b"had not ended after 0.5 s" in done.stderr
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_signals_are_passed_on(agent: Agent, number: int, code: int) -> None:
    with agent.begun("alpha", "--", "sh", "-c", "echo up; exec sleep 60") as perry:
        assert perry.stdout is not None
        await read_until(perry.stdout.read1, b"up\n")  # type: ignore[attr-defined]
        perry.send_signal(number)
        assert await ended(perry) == code


async def test_ctrl_c_thrice_ends_perry_and_then_the_command(agent: Agent) -> None:
    with agent.begun("alpha", "--", "sh", "-c", "trap '' INT; echo up; sleep 60; sleep 60") as perry:
        assert perry.stdout is not None and perry.stderr is not None
        await read_until(perry.stdout.read1, b"up\n")  # type: ignore[attr-defined]
        for _ in range(3):
            perry.send_signal(signal.SIGINT)
            await anyio.sleep(0.2)
        assert await ended(perry) == 130
        assert b"Ended" in perry.stderr.read()
    await until(lambda: is_over(agent.surface), "the command is ended")


async def test_a_reader_that_goes_ends_it(agent: Agent) -> None:
    with agent.begun("alpha", "yes") as perry:
        assert perry.stdout is not None
        await anyio.to_thread.run_sync(perry.stdout.read, 100_000)
        perry.stdout.close()
        assert await ended(perry) == 141
    await until(lambda: is_over(agent.surface), "the command is ended")


async def test_a_perry_that_is_killed_ends_its_command(agent: Agent) -> None:
    with agent.begun("alpha", "sleep", "60") as perry:
        await until(lambda: bool(agent.surface.engine.processes.all), "it runs")
        perry.kill()
    await until(lambda: is_over(agent.surface), "the command is ended")


async def test_a_terminal(agent: Agent) -> None:
    ours, theirs = pty.openpty()
    try:
        script = 'echo "$TERM"; stty size; read -r x; echo "got $x"; read -r x; echo no'
        with agent.begun("-t", "alpha", "--", "sh", "-c", script, stdin=theirs, stdout=theirs, stderr=theirs) as perry:
            os.close(theirs)
            await read_until(lambda: os.read(ours, 100), b"xterm\r\n24 80\r\n")
            os.write(ours, b"typed\r")
            await read_until(lambda: os.read(ours, 100), b"got typed\r\n")
            os.write(ours, b"\x03")
            assert await ended(perry) == 130
    finally:
        os.close(ours)


async def test_a_terminal_that_is_none(agent: Agent) -> None:
    done = await agent.exec("-t", "alpha", "ls")
    assert done.returncode == 2 and b"--tty needs a terminal" in done.stderr


async def test_an_agent_that_stops(surface: Surface, tmp_path: Path) -> None:
    async with served(surface, tmp_path) as agent:
        with agent.begun("alpha", "--", "sh", "-c", "echo up; exec sleep 60") as perry:
            assert perry.stdout is not None and perry.stderr is not None
            await read_until(perry.stdout.read1, b"up\n")  # type: ignore[attr-defined]
            surface.stop.set()
            assert await ended(perry) == 7
            assert b"is stopping" in perry.stderr.read()


async def test_logs_are_followed_over_a_restart_of_the_agent(surface: Surface, tmp_path: Path) -> None:
    alpha = surface.engine.by_name["alpha"]
    alpha.say("\x1b[2Jold")
    async with served(surface, tmp_path) as agent:
        perry = agent.begun("-f", "alpha", command="logs")
        assert perry.stdin is not None and perry.stdout is not None and perry.stderr is not None
        said = await read_until(perry.stdout.read1, b" [2Jold\n")  # type: ignore[attr-defined]
        assert b"\x1b" not in said
        alpha.say("new")
        await read_until(perry.stdout.read1, b"new\n")  # type: ignore[attr-defined]
    port = int(agent.environ["PERRY_URL"].rsplit(":", 1)[1])
    alpha.say("while it was away")
    surface.stop = anyio.Event()
    async with surface.served(grace=1, port=port):
        said = await read_until(perry.stdout.read1, b"away\n")  # type: ignore[attr-defined]
        assert b"new" not in said
        perry.send_signal(signal.SIGINT)
        assert await ended(perry) == 130
    for stream in (perry.stdin, perry.stdout, perry.stderr):
        stream.close()
