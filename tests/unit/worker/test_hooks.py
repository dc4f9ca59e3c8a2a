"""What coding agents say by their hooks, from the script that they call to what the worker tells."""

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from protocol.worker import AgentSignal, TakeSignals
from worker.hooks import spool
from worker.hooks.meaning import Meaning, meaning
from worker.hooks.spool import Signals
from worker.ports import Notice

SCRIPT = Path(__file__).parents[3] / "images" / "worker" / "hooks" / "signal"
STOP = {"hook_event_name": "Stop", "session_id": "s1", "last_assistant_message": "Done.", "background_tasks": []}
TURN = {"type": "agent-turn-complete", "thread-id": "t1", "last-assistant-message": "“Done” $(x) 🙂"}


@pytest.mark.parametrize(
    ("agent", "said", "expected"),
    [
        ("claude", STOP, Meaning(session_id="s1", what="done", text="Done.")),
        ("claude", STOP | {"background_tasks": [{"id": "b"}]}, None),
        ("claude", STOP | {"session_crons": [{"id": "c"}]}, None),
        ("claude", STOP | {"session_id": ""}, None),
        ("claude", STOP | {"session_id": "x" * 300}, None),
        ("claude", STOP | {"last_assistant_message": 7}, Meaning(session_id="s1", what="done", text="")),
        (
            "claude",
            {"hook_event_name": "StopFailure", "session_id": "s1", "error": "overloaded"},
            Meaning(session_id="s1", what="failed", text="overloaded"),
        ),
        (
            "claude",
            {"hook_event_name": "Notification", "session_id": "s1", "message": "It needs your permission to use Bash"},
            Meaning(session_id="s1", what="waiting", text="It needs your permission to use Bash"),
        ),
        ("claude", {"hook_event_name": "Notification", "session_id": "s1", "notification_type": "idle_prompt"}, None),
        ("claude", {"hook_event_name": "SessionEnd", "session_id": "s1"}, None),
        ("codex", TURN, Meaning(session_id="t1", what="done", text="“Done” $(x) 🙂")),
        ("codex", {"type": "something-new"}, None),
        ("codex", [TURN], None),
        ("cursor", STOP, None),
    ],
)
def test_what_hooks_mean(agent: str, said: Any, expected: Meaning | None) -> None:
    assert meaning(agent, said) == expected


class Heard:
    def __init__(self, folder: Path) -> None:
        self.signals = Signals(folder)
        self.told: list[AgentSignal] = []
        self._news = asyncio.Event()

    def hear(self, notice: Notice) -> None:
        assert isinstance(notice, AgentSignal)
        self.told.append(notice)
        self._news.set()

    async def until(self, count: int) -> list[AgentSignal]:
        async with asyncio.timeout(20):
            while len(self.told) < count:
                self._news.clear()
                await self._news.wait()
        return self.told

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.signals.run(self.hear))
        try:
            await self.signals.looked()
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running


def hook(home: Path, *words: str, stdin: str = "") -> None:
    """As an agent calls it."""
    environment = {"HOME": str(home), "PATH": os.environ["PATH"]}
    done = subprocess.run([SCRIPT, *words], input=stdin.encode(), env=environment, capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / ".local" / "state" / "perry" / "signals"
    made.mkdir(parents=True)
    return made


async def test_from_the_hook_to_the_control_plane(tmp_path: Path, folder: Path) -> None:
    await asyncio.to_thread(hook, tmp_path, "claude", stdin=json.dumps(STOP))
    heard = Heard(folder)
    async with heard.at_work():
        await asyncio.to_thread(hook, tmp_path, "codex", json.dumps(TURN, ensure_ascii=False))
        first, second = await heard.until(2)
        assert (first.agent, first.session_id, first.what, first.text) == ("claude", "s1", "done", "Done.")
        assert (second.agent, second.text) == ("codex", "“Done” $(x) 🙂")
        assert list(heard.signals.seen()) == [first, second]
        await heard.signals.take(TakeSignals(ids=[first.id, "no such", "../x"]))
        assert list(heard.signals.seen()) == [second]
    again = Heard(folder)
    async with again.at_work():
        assert [signal.id for signal in again.told] == [second.id]


async def test_what_means_nothing_is_not_kept(folder: Path) -> None:
    (folder / "claude-1.json").write_text("{")
    (folder / "claude-2.json").write_bytes(b"\xff\xfe")
    (folder / "claude-3.json").write_text("[" * 100_000)
    (folder / "claude-4.json").symlink_to("/etc/passwd")
    os.mkfifo(folder / "claude-5.json")
    (folder / "claude-6.json").write_text(json.dumps(STOP | {"x": "y" * (2 << 20)}))
    (folder / ".claude-7").write_text(json.dumps(STOP))
    (folder / "README").write_text("mine")
    (folder / "claude-8.json").write_text(json.dumps(STOP))
    heard = Heard(folder)
    async with heard.at_work():
        assert [signal.id for signal in heard.told] == ["8"]
    assert sorted(os.listdir(folder)) == [".claude-7", "README", "claude-8.json"]


async def test_the_oldest_go_where_nobody_takes_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "KEPT", 3)
    for number in range(5):
        file = folder / f"claude-{number}.json"
        file.write_text(json.dumps(STOP))
        os.utime(file, (number, number))
    heard = Heard(folder)
    async with heard.at_work():
        assert [signal.id for signal in heard.told] == ["2", "3", "4"]
    assert len(os.listdir(folder)) == 3


def test_a_tasks_agent_says_nothing_here(tmp_path: Path, folder: Path) -> None:
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"], "PERRY_TASK": "t-1"}
    subprocess.run([SCRIPT, "claude"], input=json.dumps(STOP).encode(), env=environment, check=True)
    assert os.listdir(folder) == []


def test_a_hook_without_a_home_holds_nothing_up() -> None:
    done = subprocess.run([SCRIPT, "claude"], input=b"{}", env={"PATH": os.environ["PATH"]}, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
