"""``/exec``: over a real server, with commands that really run (on this machine, as the fake engine does it)."""

import json
import time
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from controlplane.commands import service
from protocol.exec import FRAME_LIMIT, WINDOW, Exited, Failed, Started
from protocol.workspaces import WorkspaceStatus
from tests.fakes.processes import FakeProcess
from tests.fakes.surface import TOKEN, Surface
from tests.fakes.workspaces import workspace
from tests.unit.commands.conftest import AUTHORISED, opened, started
from tests.waiting import until

pytestmark = pytest.mark.anyio


def is_over(surface: Surface) -> bool:
    """Whether all commands have ended."""
    return all(process.child.poll() is not None for process in surface.engine.processes.all)


async def test_streams_exit_code_and_close_code(surface: Surface) -> None:
    async with surface.served() as port, started(port, "sh", "-c", "cat; echo no >&2; exit 7") as client:
        await client.stdin(b"some \0")
        await client.stdin(b"")
        await client.stdin("ü".encode())
        await client.say("endInput")
        assert await client.frame() == Exited(code=7)
        assert (client.out, client.err) == ("some \0ü".encode(), b"no\n")
        assert await client.close_code() == 1000


@pytest.mark.parametrize(("limit", "err"), [(1 << 20, b"no\n"), (2, b"no")])
async def test_stderr_may_come_before_the_first_line_of_stdout(
    surface: Surface, monkeypatch: pytest.MonkeyPatch, limit: int, err: bytes
) -> None:
    """What is more of it than is kept in that time is dropped, and the command goes on."""
    monkeypatch.setattr(service, "_HELD_LIMIT", limit)
    read, held = FakeProcess.read, list[tuple[str, bytes]]()

    async def stderr_first(process: FakeProcess) -> tuple[str, bytes] | None:
        while (chunk := await read(process)) is not None and chunk[0] == "stdout":
            held.append(chunk)
        return chunk or (held.pop(0) if held else None)

    monkeypatch.setattr(FakeProcess, "read", stderr_first)
    async with surface.served() as port, started(port, "sh", "-c", "echo no >&2; echo yes; exit 7") as client:
        assert await client.frame() == Exited(code=7)
        assert (client.out, client.err) == (b"yes\n", err)


async def test_arguments_are_never_for_a_shell(surface: Surface) -> None:
    odd = ["", " ", "$(id)", "`id`", "a\nb", "'\"\\", "--", "-x", "*", "ü"]
    async with surface.served() as port, started(port, "printf", "%s|", *odd) as client:
        assert await client.frame() == Exited(code=0)
        assert client.out.decode() == "".join(f"{word}|" for word in odd)


async def test_the_folder(surface: Surface, tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    async with surface.served() as port:
        for cwd, found in ((None, tmp_path), ("a b", tmp_path / "a b"), ("/etc", "/etc"), ("./a b/..", tmp_path)):
            async with started(port, "pwd", cwd=cwd) as client:
                assert await client.frame() == Exited(code=0)
                assert client.out.decode() == f"{found}\n"
        for cwd in ("nowhere", "/etc/passwd", "-", "$HOME"):
            async with opened(port, "pwd", cwd=cwd) as client:
                frame = await client.frame()
                assert isinstance(frame, Failed) and (frame.code, frame.status) == ("BAD_REQUEST", 400)
                assert repr(cwd) in frame.message
                assert await client.close_code() == 1011


@pytest.mark.parametrize(
    ("program", "code", "words"),
    [
        ("no-such-program", 127, "install it"),
        ("/no/such", 127, "install it"),
        ("", 127, "install it"),
        ("/etc/passwd", 126, "chmod"),
        ("/etc", 126, "chmod"),
        ("export", 127, "install it"),
    ],
)
async def test_what_cannot_be_run_says_so(surface: Surface, program: str, code: int, words: str) -> None:
    async with surface.served() as port, opened(port, program, "x") as client:
        frame = await client.frame()
        assert isinstance(frame, Exited) and frame.code == code
        assert frame.message is not None and repr(program) in frame.message and words in frame.message
        assert await client.close_code() == 1000


async def test_a_signal_reaches_the_whole_group_though_stdin_is_stuck(surface: Surface) -> None:
    script = "trap 'echo caught; kill %1; exit 3' INT; sleep 60 & echo up; wait"
    async with surface.served() as port, started(port, "bash", "-c", script) as client:
        await client.until_out(b"up\n")
        for _ in range(WINDOW // FRAME_LIMIT):
            await client.stdin(bytes(FRAME_LIMIT))
        await client.say("signal", signal="INT")
        assert await client.frame() == Exited(code=3)
        assert client.out.endswith(b"caught\n")


async def test_a_signal_that_ends_it_is_its_exit_code(surface: Surface) -> None:
    async with surface.served() as port, started(port, "sleep", "60") as client:
        await client.say("signal", signal="TERM")
        assert await client.frame() == Exited(code=143)


async def test_a_terminal_with_its_size(surface: Surface) -> None:
    size = {"columns": 101, "rows": 31, "term": "dumb"}
    script = 'stty -echo; trap "stty size" WINCH; echo "$TERM"; stty size; while read -r x; do echo "got $x"; done'
    async with surface.served() as port, started(port, "bash", "-c", script, tty=size) as client:
        await client.until_out(b"dumb\r\n31 101\r\n")
        await client.say("resize", columns=90, rows=30)
        await client.stdin(b"one\r")
        await client.until_out(b"got one\r\n")
        await client.stdin(b"\x03")
        assert await client.frame() == Exited(code=130)
        assert b"30 90\r\n" in client.out
        assert client.err == b""


async def test_a_terminals_end_of_input_is_typed(surface: Surface) -> None:
    async with surface.served() as port, started(port, "cat", tty={"columns": 80, "rows": 24}) as client:
        await client.say("endInput")
        assert await client.frame() == Exited(code=0)


# --- backpressure


async def test_a_client_that_takes_nothing_is_sent_no_more_than_the_window(surface: Surface) -> None:
    size = 4 * WINDOW
    async with surface.served() as port, started(port, "head", "-c", str(size), "/dev/zero") as client:
        got = 0
        with anyio.move_on_after(1):
            while True:
                frame = await client.ws.recv()
                assert isinstance(frame, bytes) and len(frame) <= FRAME_LIMIT + 1
                got += len(frame) - 1
        assert got == WINDOW
        assert not is_over(surface)
        await client.say("taken", bytes=WINDOW)
        assert await client.frame() == Exited(code=0)
        assert len(client.out) == size - WINDOW


async def test_stdin_is_taken_as_the_command_takes_it(surface: Surface) -> None:
    script = "read x; echo $x; sleep 0.3; cat | wc -c"
    async with surface.served() as port, started(port, "bash", "-c", script) as client:
        await client.stdin(b"go\n")
        await client.until_out(b"go\n")
        for _ in range(4):
            await client.stdin(bytes(WINDOW // 4 - 1))
        sent = WINDOW - 4
        while sent < 3 * WINDOW:
            message = await client.ws.recv()
            assert isinstance(message, str)
            more = json.loads(message)["bytes"]
            for _ in range(more // FRAME_LIMIT):
                await client.stdin(bytes(FRAME_LIMIT))
                sent += FRAME_LIMIT
        await client.say("endInput")
        assert await client.frame() == Exited(code=0)
        assert int(client.out.split()[-1]) == sent


@pytest.mark.parametrize(
    "frames",
    [
        [b"\0" + bytes(FRAME_LIMIT)] * (WINDOW // FRAME_LIMIT + 2),
        [b"\1out"],
        [b""],
        ["nonsense"],
        ['{"type":"dance"}'],
        ['{"type":"taken","bytes":5}'],
        ['{"type":"taken","bytes":-5}'],
        ['{"type":"signal","signal":"STOP"}'],
        ['{"type":"resize","columns":0,"rows":1}'],
        ['{"type":"endInput"}', b"\0late"],
        ['{"type":"run","command":["id"]}'],
    ],
)
async def test_who_breaks_the_rules_is_told_which(surface: Surface, frames: list[str | bytes]) -> None:
    async with surface.served() as port, started(port, "sleep", "60") as client:
        for frame in frames:
            await client.ws.send(frame)
        failed = await client.frame()
        assert isinstance(failed, Failed) and failed.message.startswith("The client broke the rules")
        assert await client.close_code() == 1008
        await until(lambda: is_over(surface), "the command is ended")


# --- who comes and goes


@pytest.mark.parametrize("run", [{}, {"command": []}, {"command": "ls"}, {"command": ["a\0b", 5]}])
async def test_a_wrong_first_frame(surface: Surface, run: dict[str, Any]) -> None:
    async with surface.served() as port, opened(port) as client:
        await client.say("run", **run)
        failed = await client.frame()
        assert isinstance(failed, Failed) and "first frame" in failed.message
        assert await client.close_code() == 1011


async def test_the_token_may_come_first(surface: Surface) -> None:
    async with surface.served() as port, connect(f"ws://127.0.0.1:{port}/exec/alpha", proxy=None) as ws:
        await ws.send(json.dumps({"type": "auth", "token": TOKEN}))
        await ws.send(json.dumps({"type": "run", "command": ["true"]}))
        assert msgspec.json.decode(await ws.recv(), type=Started) == Started()
    async with surface.served() as port, connect(f"ws://127.0.0.1:{port}/exec/nobody", proxy=None) as ws:
        await ws.send(json.dumps({"type": "auth", "token": TOKEN + "x"}))
        await ws.wait_closed()
        assert ws.close_code == 4001
    assert len(surface.engine.processes.all) == 1


@pytest.mark.parametrize(
    ("name", "headers", "status"),
    [("nobody", {}, 404), ("..%2F", {}, 404), ("alpha", {"Origin": "http://evil.example"}, 403)],
)
async def test_refused_before_the_upgrade(surface: Surface, name: str, headers: dict[str, str], status: int) -> None:
    async with surface.served() as port:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(
                f"ws://127.0.0.1:{port}/exec/{name}", additional_headers=AUTHORISED | headers, proxy=None
            ):
                pass
        assert caught.value.response.status_code == status
        if name == "nobody":
            assert b"There is no workspace named" in (caught.value.response.body or b"")


async def test_a_workspace_that_does_not_run(surface: Surface) -> None:
    surface.workspaces.put(workspace("alpha", status=WorkspaceStatus.STOPPED))
    async with surface.served() as port, opened(port, "true") as client:
        failed = await client.frame()
        assert isinstance(failed, Failed) and failed.code == "PRECONDITION_FAILED"
        assert "perry start alpha" in failed.message
        assert await client.close_code() == 1011


async def test_a_workspace_that_stops_under_it(surface: Surface) -> None:
    async with surface.served() as port, started(port, "sleep", "60") as client:
        await surface.engine.stop("alpha")
        failed = await client.frame()
        assert isinstance(failed, Failed) and "was stopped while the command ran" in failed.message
        assert await client.close_code() == 1001


async def test_a_command_that_is_killed_in_a_workspace_that_runs(surface: Surface) -> None:
    async with surface.served() as port, started(port, "sh", "-c", "kill -KILL $$") as client:
        assert await client.frame() == Exited(code=137)


async def test_a_client_that_goes_ends_its_command(surface: Surface, tmp_path: Path) -> None:
    async with surface.served() as port:
        script = f"trap 'echo hup > {tmp_path}/said; exit' HUP; echo up; while :; do sleep 0.05; done"
        async with started(port, "sh", "-c", script) as client:
            await client.until_out(b"up\n")
            client.ws.transport.abort()
        await until(lambda: is_over(surface), "it is over")
    assert (tmp_path / "said").read_text() == "hup\n"


async def test_what_does_not_hang_up_is_killed(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HANG_UP_SECONDS", 0.3)
    async with surface.served() as port:
        async with started(port, "sh", "-c", "trap '' HUP TERM; echo up; sleep 60 & wait; sleep 60") as client:
            await client.until_out(b"up\n")
        await until(lambda: is_over(surface), "it is over")


async def test_a_command_may_leave_something_behind(surface: Surface, tmp_path: Path) -> None:
    script = f"(sleep 0.5; echo later > {tmp_path}/said) >/dev/null 2>&1 </dev/null &"
    async with surface.served() as port:
        async with started(port, "sh", "-c", script) as client:
            assert await client.frame() == Exited(code=0)
        await until(lambda: (tmp_path / "said").exists(), "it went on")


async def test_a_command_may_close_its_output_and_go_on(surface: Surface) -> None:
    async with surface.served() as port, started(port, "sh", "-c", "exec >&- 2>&-; sleep 0.5; exit 9") as client:
        assert await client.frame() == Exited(code=9)


async def test_the_control_plane_stops(surface: Surface) -> None:
    async with surface.served() as port, started(port, "sleep", "60") as client:
        began = time.monotonic()
        surface.stop.set()
        failed = await client.frame()
        assert isinstance(failed, Failed) and failed.code == "SERVICE_UNAVAILABLE"
        assert await client.close_code() == 1001
    assert time.monotonic() - began < 4
    assert is_over(surface)
