"""Tasks in a workspace, with real processes: begun once, found again, cancelled whole, and told of as they ended."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from protocol.tasks import ENDED, TaskState
from protocol.worker import CancelTask, ForgetTask, LookAtTask, ReadOutcome, ReadTaskLog, StartTask, TaskSeen
from worker import processes
from worker.opencode.server import Server
from worker.ports import Notice, RequestRefused
from worker.tasks import agents, record, runner
from worker.tasks.supervisor import Tasks

SECONDS = 30
RUNNER = [sys.executable, "-m", "worker", "run-task"]


def id_of(number: int) -> str:
    return f"t-{number:012d}"


class Place:
    """A home with a project, and the worker's tasks in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.project = home / "alpha"
        self.project.mkdir(exist_ok=True)
        self.folder = home / "tasks"
        self.told: list[TaskSeen] = []
        self._news = asyncio.Event()
        self.workers: list[Tasks] = []
        self.tasks = self.worker()

    def worker(self) -> Tasks:
        """Another worker for the same home."""
        self.tasks = Tasks(self.folder, self.project, Server(self.home), RUNNER)
        self.workers.append(self.tasks)
        return self.tasks

    def hear(self, notice: Notice) -> None:
        assert isinstance(notice, TaskSeen)
        self.told.append(notice)
        self._news.set()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[Tasks]:
        running = asyncio.create_task(self.tasks.run(self.hear))
        try:
            yield self.tasks
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def until(self, id_: str, *states: TaskState, said: str | None = None) -> TaskSeen:
        async with asyncio.timeout(SECONDS):
            while True:
                for seen in reversed(self.told):
                    if seen.id == id_ and seen.state in (states or ENDED) and said in (None, seen.last_message):
                        return seen
                self._news.clear()
                await self._news.wait()

    async def run(self, text: str, number: int = 1, within: float | None = None) -> TaskSeen:
        await self.tasks.start(StartTask(id=id_of(number), agent="command", text=text, timeout=within))
        return await self.until(id_of(number))

    async def log(self, number: int = 1) -> str:
        return (await self.tasks.read_log(ReadTaskLog(id=id_of(number), offset=0, limit=1 << 20))).text


def commands() -> list[str]:
    """What runs on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
    return found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    place = Place(tmp_path)
    yield place
    for runner_ in (each for tasks in place.workers for each in tasks._runners.values()):
        runner_.wait(SECONDS)


async def test_a_command_that_ends_well(place: Place) -> None:
    async with place.at_work():
        seen = await place.run("echo one; echo two; echo $PWD; cat; echo $PERRY_TASK $#")
        assert (seen.state, seen.exit_code, seen.reason) == (TaskState.SUCCEEDED, 0, None)
        assert await place.log() == f"one\ntwo\n{place.project}\n{id_of(1)} 0\n"
        assert seen.last_message == f"{id_of(1)} 0"


async def test_a_command_that_fails(place: Place) -> None:
    async with place.at_work():
        seen = await place.run("echo what went wrong; exit 3")
    assert (seen.state, seen.exit_code) == (TaskState.FAILED, 3)
    assert seen.reason == "The agent ended with exit code 3: what went wrong"


async def test_a_command_that_is_killed(place: Place) -> None:
    async with place.at_work():
        seen = await place.run("kill -9 $$")
    assert (seen.state, seen.reason) == (TaskState.FAILED, "The agent was ended by SIGKILL.")


async def test_the_text_is_what_it_was_to_the_last_byte(place: Place) -> None:
    text = "cat <<'END' >out\n“$(rm)” `x` 'y' \\ \t🙂\r\n" + "x" * (1 << 20) + "\nEND\n"
    async with place.at_work():
        assert (await place.run(text)).state is TaskState.SUCCEEDED
    assert (place.project / "out").read_bytes() == text.partition("\n")[2].removesuffix("END\n").encode()


async def test_it_takes_too_long(place: Place) -> None:
    async with place.at_work():
        seen = await place.run("sleep 60", within=0.5)
    assert (seen.state, seen.reason) == (TaskState.FAILED, "It took longer than 0.5 s and was ended.")


async def test_cancelling_ends_all_of_its_processes(place: Place) -> None:
    async with place.at_work() as tasks:
        text = "sleep 301 & setsid sleep 302 & (setsid sh -c 'sleep 303; true' &) ; echo begun; wait"
        await tasks.start(StartTask(id=id_of(1), agent="command", text=text))
        await place.until(id_of(1), TaskState.RUNNING, said="begun")
        await tasks.cancel(CancelTask(id=id_of(1)))
        assert (await place.until(id_of(1))).state is TaskState.CANCELLED
        await tasks.cancel(CancelTask(id=id_of(1)))
    assert not {"sleep 301", "sleep 302", "sleep 303"} & set(commands())


async def test_asked_for_twice_it_begins_once(place: Place) -> None:
    async with place.at_work() as tasks:
        request = StartTask(id=id_of(1), agent="command", text="echo once >>count; sleep 0.3")
        await asyncio.gather(*(tasks.start(request) for _ in range(5)))
        await place.until(id_of(1))
        await tasks.start(request)
    assert (place.project / "count").read_text() == "once\n"


async def test_a_worker_that_ended_finds_its_tasks(place: Place) -> None:
    async with place.at_work() as tasks:
        await tasks.start(
            StartTask(id=id_of(1), agent="command", text="while [ ! -e go ]; do sleep 0.02; done; echo hi")
        )
        await tasks.start(
            StartTask(id=id_of(2), agent="command", text="while [ ! -e go ]; do sleep 0.02; done; exit 4")
        )
        await place.until(id_of(1), TaskState.RUNNING)
        await place.until(id_of(2), TaskState.RUNNING)
    place.told.clear()
    (place.project / "go").touch()
    place.worker()
    async with place.at_work() as tasks:
        first, second = await place.until(id_of(1)), await place.until(id_of(2))
        assert {seen.id for seen in tasks.seen()} == {id_of(1), id_of(2)}
    assert (first.state, first.last_message) == (TaskState.SUCCEEDED, "hi")
    assert (second.state, second.exit_code) == (TaskState.FAILED, 4)


async def test_what_was_left_alone_has_failed(place: Place) -> None:
    """As after a stop of the workspace in the middle."""
    async with place.at_work() as tasks:
        await tasks.start(StartTask(id=id_of(1), agent="command", text="sleep 304"))
        await place.until(id_of(1), TaskState.RUNNING)
        state = record.read_state(place.folder / id_of(1))
        assert state is not None
        below = processes.descendants(state.pid)
        os.kill(state.pid, signal.SIGKILL)
        seen = await place.until(id_of(1))
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert seen.state is TaskState.FAILED
    assert seen.reason is not None and "stopped while the task was running" in seen.reason


async def test_what_is_said_to_have_begun_is_found_again(place: Place) -> None:
    """As where the workspace is restarted right after the answer."""
    await place.tasks.start(StartTask(id=id_of(1), agent="command", text="sleep 307"))
    state = record.read_state(place.folder / id_of(1))
    assert state is not None
    below = processes.descendants(state.pid)
    os.kill(state.pid, signal.SIGKILL)
    place.tasks._runners[id_of(1)].wait(SECONDS)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    place.worker()
    async with place.at_work():
        assert (await place.until(id_of(1))).reason == record.STOPPED


async def test_two_runners_of_one_task_are_one(place: Place) -> None:
    async with place.at_work() as tasks:
        command = "echo begun >>count; while [ ! -e go ]; do sleep 0.02; done"
        await tasks.start(StartTask(id=id_of(1), agent="command", text=command))
        again = await asyncio.create_subprocess_exec(*RUNNER, str(place.folder / id_of(1)))
        async with asyncio.timeout(SECONDS):
            assert await again.wait() == 0
        (place.project / "go").touch()
        assert (await place.until(id_of(1))).state is TaskState.SUCCEEDED
    assert (place.project / "count").read_text() == "begun\n"


async def test_a_workspace_that_stops_is_not_one_that_cancels(place: Place) -> None:
    """Its init sends everything a SIGTERM."""
    async with place.at_work() as tasks:
        await tasks.start(StartTask(id=id_of(1), agent="command", text="sleep 306"))
        await place.until(id_of(1), TaskState.RUNNING)
        state = record.read_state(place.folder / id_of(1))
        assert state is not None
        os.kill(state.pid, signal.SIGTERM)
        seen = await place.until(id_of(1))
    assert (seen.state, seen.reason) == (TaskState.FAILED, record.STOPPED)


async def test_what_is_forgotten_is_not_told_again(place: Place) -> None:
    async with place.at_work() as tasks:
        await place.run("echo hi")
        await tasks.forget(ForgetTask(id=id_of(1)))
        assert list(tasks.seen()) == []
        assert await place.log() == "hi\n"
    place.told.clear()
    async with place.at_work() as tasks:
        place.worker()
        await tasks.looked()
        assert place.told == []


async def test_an_agent_that_is_not_installed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SESSION_FILES", ())
    for agent in ("codex", "nobody"):
        with pytest.raises(RequestRefused) as refused:
            await place.tasks.start(StartTask(id=id_of(1), agent=agent, text="x"))
        assert refused.value.code == "noAgent"
    assert not place.folder.exists() or list(place.folder.iterdir()) == []


@pytest.mark.parametrize("id_", ["../../etc", "t-1", "", "t-00000000000G"])
async def test_what_is_no_task(place: Place, id_: str) -> None:
    with pytest.raises(RequestRefused):
        await place.tasks.start(StartTask(id=id_, agent="command", text="x"))
    with pytest.raises(RequestRefused):
        await place.tasks.read_log(ReadTaskLog(id=id_, offset=0, limit=1))


async def test_pieces_of_a_log(place: Place) -> None:
    async with place.at_work() as tasks:
        await place.run("printf 'aé🙂z'")
        text, offset = "", 0
        while True:
            piece = await tasks.read_log(ReadTaskLog(id=id_of(1), offset=offset, limit=4))
            text, offset = text + piece.text, piece.next
            if offset >= piece.size:
                break
        assert text == "aé🙂z"
        assert (await tasks.read_log(ReadTaskLog(id=id_of(1), offset=-1, limit=4))).text == "z"


async def test_a_log_stays_within_bounds(place: Place, tmp_path: Path) -> None:
    log = runner.Log(tmp_path / "log")
    log._left = 10
    for _ in range(5):
        log.write("12345678")
    log.close()
    assert (tmp_path / "log").read_text() == "1234567812\n[The log is full; what comes after is not kept.]\n"


async def test_a_line_without_an_end(place: Place) -> None:
    async with place.at_work():
        seen = await place.run("head -c 20000000 /dev/zero | tr '\\0' x; echo; echo after")
        assert seen.last_message == "after"
        log = await place.tasks.read_log(ReadTaskLog(id=id_of(1), offset=0, limit=200))
    assert log.text.startswith("[A line of more than 16 MiB is left out.]\n")


async def test_what_stays_in_the_background_holds_nothing_up(place: Place) -> None:
    began = time.monotonic()
    async with place.at_work():
        seen = await place.run("sleep 305 & echo $! >pid; echo begun")
    assert seen.state is TaskState.SUCCEEDED
    assert time.monotonic() - began < 60
    os.kill(int((place.project / "pid").read_text()), signal.SIGKILL)


def git(place: Place, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=place.project, check=True, capture_output=True, text=True
    ).stdout


async def test_what_it_left(place: Place) -> None:
    git(place, "init", "-q", "-b", "main")
    git(place, "commit", "-q", "--allow-empty", "-m", "before")
    commit = "git -c user.name=a -c user.email=a@b commit -q -m 'Add “a”'"
    text = f"echo a >a; echo b >b; git add a; {commit}; echo c >a; echo ok"
    async with place.at_work() as tasks:
        await place.run(text)
        left = await tasks.outcome(ReadOutcome(id=id_of(1)))
    assert [commit.subject for commit in left.commits] == ["Add “a”"]
    assert (left.uncommitted, left.unpushed, left.last_message) == (2, 2, "ok")
    assert left.diff_stat is not None and "1 file changed" in left.diff_stat


async def test_what_others_did_is_not_what_it_left(place: Place) -> None:
    """As ``gh pr checkout`` does it for a fork: under a branch's name, and under none of a remote."""
    origin = place.project.parent / "origin"
    git(place, "init", "-q", "-b", "main")
    git(place, "commit", "-q", "--allow-empty", "-m", "before")
    git(place, "clone", "-q", "--bare", ".", str(origin))
    git(place, "switch", "-q", "-c", "theirs")
    git(place, "commit", "-q", "--allow-empty", "-m", "Theirs")
    git(place, "push", "-q", str(origin), "HEAD:refs/pull/7/head")
    git(place, "switch", "-q", "main")
    git(place, "branch", "-q", "-D", "theirs")
    git(place, "remote", "add", "origin", str(origin))
    git(place, "fetch", "-q", "origin")
    async with place.at_work() as tasks:
        await place.run("git fetch -q origin refs/pull/7/head:patch-1 && git switch -q patch-1")
        left = await tasks.outcome(ReadOutcome(id=id_of(1)))
        assert (left.commits, left.unpushed, left.diff_stat, left.unknown) == ((), 0, None, None)
        commit = "git -c user.name=a -c user.email=a@b commit -qm Mine"
        await place.run(f"echo a >a && git add a && {commit} && git branch -q -D main", number=2)
        left = await tasks.outcome(ReadOutcome(id=id_of(2)))
    assert [commit.subject for commit in left.commits] == ["Mine"]
    assert left.unpushed == 1


async def test_a_pull_request_of_the_same_repository_is_others_work_too(place: Place) -> None:
    """As ``gh pr checkout`` does it there; then with a commit on top, pushed."""
    origin = place.project.parent / "origin"
    git(place, "init", "-q", "-b", "main")
    git(place, "commit", "-q", "--allow-empty", "-m", "before")
    git(place, "clone", "-q", "--bare", ".", str(origin))
    git(place, "commit", "-q", "--allow-empty", "-m", "Theirs")
    git(place, "push", "-q", str(origin), "main:theirs")
    git(place, "reset", "-q", "--hard", "HEAD~")
    git(place, "remote", "add", "origin", str(origin))
    git(place, "fetch", "-q", "origin")
    async with place.at_work() as tasks:
        await place.run("git checkout -q -b theirs --track origin/theirs")
        left = await tasks.outcome(ReadOutcome(id=id_of(1)))
        assert (left.commits, left.unpushed, left.diff_stat, left.unknown) == ((), 0, None, None)
        await place.run("git checkout -q main", number=2)
        commit = "git -c user.name=a -c user.email=a@b commit -qm Mine"
        await place.run(f"git checkout -q theirs && echo a >a && git add a && {commit} && git push -q", number=3)
        left = await tasks.outcome(ReadOutcome(id=id_of(3)))
    assert [commit.subject for commit in left.commits] == ["Mine"]
    assert left.unpushed == 0 and left.diff_stat is not None and "1 file changed" in left.diff_stat


async def test_what_comes_from_a_folder_is_nowhere_else(place: Place) -> None:
    git(place, "init", "-q", "-b", "main")
    git(place, "commit", "-q", "--allow-empty", "-m", "before")
    git(place, "clone", "-q", ".", "../near")
    git(place, "-C", "../near", "commit", "-q", "--allow-empty", "-m", "Near")
    async with place.at_work() as tasks:
        await place.run("git fetch -q ../near main:near && git switch -q near")
        left = await tasks.outcome(ReadOutcome(id=id_of(1)))
    assert [commit.subject for commit in left.commits] == ["Near"]
    assert left.unpushed == 2


async def test_what_it_left_where_there_is_no_repository(place: Place) -> None:
    async with place.at_work() as tasks:
        await place.run("echo hi")
        left = await tasks.outcome(ReadOutcome(id=id_of(1)))
    assert (left.commits, left.unknown, left.last_message) == ((), None, "hi")


def test_what_claude_code_says() -> None:
    heard = agents.Claude()
    lines = [
        b'{"type":"system","subtype":"init","session_id":"s1"}',
        b'{"type":"assistant","message":{"content":[{"type":"tool_use","name":"Bash","input":{"command":"ls"}}]}}',
        b'{"type":"assistant","message":{"content":[{"type":"text","text":"Done."}]}}',
        b"not json",
        b"[1]",
        b'{"type":"result","is_error":false,"result":"Done, really."}',
    ]
    shown = "".join(heard.line(line) for line in lines)
    assert shown == '→ Bash {"command":"ls"}\nDone.\nnot json'
    assert (heard.session_id, heard.last_message, heard.failure) == ("s1", "Done, really.", None)
    heard.line(b'{"type":"result","is_error":true,"result":"API Error: 529"}')
    assert runner.why(1, heard, starved=False) == "The agent failed: API Error: 529"
    assert "out of memory" in runner.why(-9, heard, starved=True)
    assert "out of memory" in runner.why(137, heard, starved=True)


def test_what_codex_says() -> None:
    heard = agents.Codex()
    lines = [
        b'{"type":"thread.started","thread_id":"t1"}',
        b'{"type":"error","message":"Reconnecting"}',
        b'{"type":"item.completed","item":{"type":"command_execution","command":"ls","aggregated_output":"a\\n"}}',
        b'{"type":"item.completed","item":{"type":"agent_message","text":"Done."}}',
        b'{"type":"turn.completed"}',
    ]
    assert "".join(heard.line(line) for line in lines) == "Reconnecting\n→ ls\na\nDone.\n"
    assert (heard.session_id, heard.last_message, heard.failure) == ("t1", "Done.", None)
    heard.line(b'{"type":"turn.failed","error":{"message":"no money"}}')
    assert heard.failure == "no money"


def test_a_sessions_variables(tmp_path: Path) -> None:
    file = tmp_path / "environment"
    file.write_text('A="kept as it is"\nB=x=y\n1=no\nno\nC=\xff\n', encoding="latin-1")
    found = processes.session_environment("/home/x", (file, tmp_path / "missing"))
    assert (found["A"], found["B"], found["HOME"]) == ('"kept as it is"', "x=y", "/home/x")
    assert "1" not in found and "no" not in found


async def test_a_look_at_an_agent_that_nobody_dispatched(place: Place, tmp_path: Path) -> None:
    name = f"agent-{os.getpid()}"
    program = tmp_path / name
    program.write_text("sleep 600; true\n")
    assert (await place.tasks.look_at(LookAtTask(agent=name))).processes == 0
    process = await asyncio.create_subprocess_exec("sh", str(program), start_new_session=True)

    async def looks(processes: int, stopped: int) -> None:
        async with asyncio.timeout(SECONDS):
            while True:
                look = await place.tasks.look_at(LookAtTask(agent=name))
                if (look.processes, look.stopped) == (processes, stopped):
                    return
                await asyncio.sleep(0.05)

    try:
        # The shell, and what it runs.
        await looks(2, 0)
        os.killpg(process.pid, signal.SIGSTOP)
        await looks(2, 2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    assert (await place.tasks.look_at(LookAtTask())).processes is None
