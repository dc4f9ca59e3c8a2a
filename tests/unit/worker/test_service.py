"""All agents of a home folder together: told at once what changes, and steady on bad days."""

import asyncio
import json
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from protocol.sessions import SessionStatus
from protocol.worker import (
    AgentStatus,
    DeleteInStore,
    ReadSession,
    RenameInStore,
    SessionGone,
    SessionSeen,
    StoreSeen,
)
from tests.unit.worker.agents import (
    CLAUDE_ID,
    CODEX_ID,
    GEMINI_ID,
    OPENCODE_ID,
    SaidProcesses,
    claude_session,
    codex_session,
    gemini_session,
    opencode_database,
    put,
)
from worker.agents.registry import coding_agents
from worker.ports import Notice, RequestRefused, SessionMissing, Sessions
from worker.sessions import service as module
from worker.sessions.agent import Known, Looked
from worker.sessions.service import LocalSessions

LONG = 20.0
"""Seconds that a loaded machine may take for what is done in milliseconds."""


class Followed:
    """Sessions that are followed, and what was told of them."""

    def __init__(self, sessions: LocalSessions, processes: SaidProcesses) -> None:
        self.sessions = sessions
        self.processes = processes
        self.told: list[Notice] = []
        self._heard = asyncio.Event()

    def hear(self, notice: Notice) -> None:
        self.told.append(notice)
        self._heard.set()

    async def until(self, told: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG):
            while not told():
                self._heard.clear()
                await self._heard.wait()

    def latest(self, session_id: str) -> Notice | None:
        of_it = [n for n in self.told if isinstance(n, SessionSeen | SessionGone) and n.session_id == session_id]
        return of_it[-1] if of_it else None

    def status(self, session_id: str) -> SessionStatus | None:
        latest = self.latest(session_id)
        return latest.status if isinstance(latest, SessionSeen) else None


@asynccontextmanager
async def following(home: Path, limit: int = 1000) -> AsyncIterator[Followed]:
    processes = SaidProcesses()
    sessions: Sessions = LocalSessions(coding_agents(home, {}, processes), home, limit=limit)
    assert isinstance(sessions, LocalSessions)
    followed = Followed(sessions, processes)
    task = asyncio.create_task(sessions.run(followed.hear))
    try:
        async with asyncio.timeout(LONG):
            await sessions.looked()
        yield followed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def asked(text: str) -> str:
    return json.dumps({"type": "user", "uuid": "u", "message": {"role": "user", "content": text}}) + "\n"


def everything(home: Path) -> None:
    claude_session(home / ".claude")
    codex_session(home / ".codex")
    gemini_session(home / ".gemini/tmp")
    opencode_database(home / ".local/share/opencode/opencode.db").close()


async def test_all_agents_are_found_and_read(tmp_path: Path) -> None:
    everything(tmp_path)
    async with following(tmp_path) as followed:
        assert followed.sessions.watching
        assert followed.sessions.agents() == [
            AgentStatus(agent="opencode", sessions=3),
            AgentStatus(agent="claude", sessions=1),
            AgentStatus(agent="codex", sessions=1),
            AgentStatus(agent="gemini", sessions=1),
        ]
        seen = [notice for notice in followed.sessions.seen() if isinstance(notice, SessionSeen)]
        assert seen == followed.sessions.seen()
        assert {s.session_id for s in seen} >= {CLAUDE_ID, CODEX_ID, GEMINI_ID, OPENCODE_ID}
        assert sorted(map(str, seen)) == sorted(map(str, followed.told))
        for session in seen:
            page = await followed.sessions.read(ReadSession(agent=session.agent, session_id=session.session_id))
            assert page.messages and page.mark == session.mark and not page.more


async def test_an_empty_home_says_nothing_and_hears_what_comes(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    async with following(tmp_path / "home") as followed:
        assert followed.told == [] and followed.sessions.agents() == []
        everything(tmp_path / "home")
        ids = (CLAUDE_ID, CODEX_ID, GEMINI_ID, OPENCODE_ID)
        await followed.until(lambda: all(followed.latest(id) for id in ids))


async def test_an_append_is_told_and_read(tmp_path: Path) -> None:
    path = claude_session(tmp_path / ".claude", asked("one"))
    async with following(tmp_path) as followed:
        page = await followed.sessions.read(ReadSession(agent="claude", session_id=CLAUDE_ID))
        before = followed.latest(CLAUDE_ID)
        with path.open("a") as file:
            file.write(asked("two"))
        await followed.until(lambda: followed.latest(CLAUDE_ID) != before)
        request = ReadSession(agent="claude", session_id=CLAUDE_ID, cursor=page.cursor)
        page = await followed.sessions.read(request)
        assert [message.ordinal for message in page.messages] == [1]


async def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Years ahead, and back to before all that there is; what is due by itself does not follow the clock."""
    path = claude_session(tmp_path / ".claude", asked("one"))
    async with following(tmp_path) as followed:
        followed.processes.names[1] = "claude"
        real = time.time
        for number, ahead in enumerate((5e8, -1.5e9, 0.0)):
            monkeypatch.setattr(time, "time", lambda ahead=ahead: real() + ahead)
            before = followed.latest(CLAUDE_ID)
            with path.open("a") as file:
                file.write(asked(f"more {number}"))
            os.utime(path, (real() + ahead, real() + ahead))
            await followed.until(lambda before=before: followed.latest(CLAUDE_ID) != before)  # type: ignore[misc]
        page = await followed.sessions.read(ReadSession(agent="claude", session_id=CLAUDE_ID))
        assert [message.ordinal for message in page.messages] == [0, 1, 2, 3]
        # What was written in the future, as it looks by now, is no sign of life until then.
        os.utime(path, (real() + 5e8, real() + 5e8))
        await followed.until(lambda: followed.status(CLAUDE_ID) is SessionStatus.IDLE)


async def test_what_is_deleted_is_told_also_with_its_folder(tmp_path: Path) -> None:
    path = claude_session(tmp_path / ".claude")
    codex_session(tmp_path / ".codex")
    async with following(tmp_path) as followed:
        path.unlink()
        shutil.rmtree(tmp_path / ".codex")
        await followed.until(lambda: isinstance(followed.latest(CLAUDE_ID), SessionGone))
        await followed.until(lambda: isinstance(followed.latest(CODEX_ID), SessionGone))
        with pytest.raises(SessionMissing):
            await followed.sessions.read(ReadSession(agent="claude", session_id=CLAUDE_ID))
        codex_session(tmp_path / ".codex")
        await followed.until(lambda: isinstance(followed.latest(CODEX_ID), SessionSeen))


async def test_a_process_that_is_killed_without_a_word_leaves_no_busy_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIVENESS_SECONDS", 0.05)
    claude_session(tmp_path / ".claude", asked("go"))
    async with following(tmp_path) as followed:
        followed.processes.starts[12] = "77"
        said = {"pid": 12, "sessionId": CLAUDE_ID, "procStart": "77", "status": "busy"}
        put(tmp_path / ".claude/sessions/12.json", json.dumps(said))
        await followed.until(lambda: followed.status(CLAUDE_ID) is SessionStatus.BUSY)
        del followed.processes.starts[12]
        await followed.until(lambda: followed.status(CLAUDE_ID) is SessionStatus.IDLE)


async def test_rename_and_delete(tmp_path: Path) -> None:
    claude_session(tmp_path / ".claude")
    async with following(tmp_path) as followed:
        before = followed.latest(CLAUDE_ID)
        await followed.sessions.rename(RenameInStore(agent="claude", session_id=CLAUDE_ID, title="New"))
        await followed.until(lambda: followed.latest(CLAUDE_ID) != before)
        page = await followed.sessions.read(ReadSession(agent="claude", session_id=CLAUDE_ID))
        assert page.facts.title == "New"
        await followed.sessions.delete(DeleteInStore(agent="claude", session_id=CLAUDE_ID))
        assert isinstance(followed.latest(CLAUDE_ID), SessionGone)


async def test_ids_are_looked_up_and_never_joined_to_paths(tmp_path: Path) -> None:
    put(tmp_path / "secret.jsonl", asked("secret"))
    claude_session(tmp_path / ".claude")
    async with following(tmp_path) as followed:
        for agent, id in (("claude", "../../../secret"), ("claude", "/etc/passwd"), ("../claude", CLAUDE_ID)):
            for ask in (
                followed.sessions.read(ReadSession(agent=agent, session_id=id)),
                followed.sessions.rename(RenameInStore(agent=agent, session_id=id, title="x")),
                followed.sessions.delete(DeleteInStore(agent=agent, session_id=id)),
            ):
                with pytest.raises(SessionMissing):
                    await ask
    assert (tmp_path / "secret.jsonl").exists()


async def test_a_file_that_became_a_link_is_refused_in_a_sentence(tmp_path: Path) -> None:
    path = claude_session(tmp_path / ".claude", asked("one"))
    secret = put(tmp_path / "secret", asked("secret"))
    async with following(tmp_path) as followed:
        followed.sessions._agents["claude"].agent.look = lambda paths, known: Looked()  # type: ignore[method-assign]
        path.unlink()
        path.symlink_to(secret)
        with pytest.raises(RequestRefused, match="cannot be used"):
            await followed.sessions.read(ReadSession(agent="claude", session_id=CLAUDE_ID))


async def test_one_agent_that_fails_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    everything(tmp_path)

    def look(self: object, paths: object, known: Known) -> Looked:
        raise RuntimeError("a bug")

    monkeypatch.setattr("worker.agents.codex.Codex.look", look)
    async with following(tmp_path) as followed:
        agents = {status.agent: status for status in followed.sessions.agents()}
        assert agents["codex"].problem == "Its sessions cannot be looked at: the worker's log says why."
        assert agents["claude"].sessions == 1
    assert "a bug" in caplog.text


async def test_a_store_that_cannot_be_read_at_first_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    everything(tmp_path)
    real, looks = coding_agents(tmp_path, {})[0].look.__func__, []  # type: ignore[attr-defined]

    def look(self: object, paths: object, known: Known) -> Looked:
        looks.append(paths)
        if len(looks) < 4:
            return Looked(problem="locked")
        looked: Looked = real(self, paths, known)
        return looked

    monkeypatch.setattr("worker.agents.opencode.OpenCode.look", look)
    async with following(tmp_path) as followed:
        assert len(looks) == 4
        assert followed.latest(OPENCODE_ID) is not None
        assert all(status.problem is None for status in followed.sessions.agents())


async def test_a_store_that_cannot_be_read_for_long_is_said_not_to_be_whole_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
    everything(tmp_path)
    locked = asyncio.Event()
    real = coding_agents(tmp_path, {})[0].look.__func__  # type: ignore[attr-defined]

    def look(self: object, paths: object, known: Known) -> Looked:
        looked: Looked = Looked(problem="locked") if not locked.is_set() else real(self, paths, known)
        return looked

    def stores(notices: Sequence[Notice]) -> list[tuple[str, bool]]:
        return [(each.agent, each.whole) for each in notices if isinstance(each, StoreSeen)]

    monkeypatch.setattr("worker.agents.opencode.OpenCode.look", look)
    async with following(tmp_path) as followed:
        assert stores(followed.sessions.seen()) == [("opencode", False)]
        assert stores(followed.told) == []
        locked.set()
        await followed.until(lambda: bool(stores(followed.told)))
        assert stores(followed.told) == [("opencode", True)] and stores(followed.sessions.seen()) == []
        # What is in it was told before that.
        assert isinstance(followed.told[-1], StoreSeen) and followed.latest(OPENCODE_ID) is not None


async def test_without_inotify_it_looks_again_and_again_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("inotify_simple.INotify", none)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.02)
    path = claude_session(tmp_path / ".claude")
    async with following(tmp_path) as followed:
        assert not followed.sessions.watching
        [status] = followed.sessions.agents()
        assert status.problem is not None and "inotify" in status.problem
        path.unlink()
        await followed.until(lambda: isinstance(followed.latest(CLAUDE_ID), SessionGone))


async def test_more_sessions_than_can_be_followed_are_said(tmp_path: Path) -> None:
    for number in range(5):
        claude_session(tmp_path / ".claude", asked("x"), f"session-{number}")
    async with following(tmp_path, limit=3) as followed:
        assert len(followed.sessions.seen()) == 3
        [status] = followed.sessions.agents()
        assert status.problem == "There are 2 sessions more than can be followed: delete old ones."


async def test_an_agent_that_writes_ten_thousand_messages_a_second(tmp_path: Path) -> None:
    path = claude_session(tmp_path / ".claude", asked("first"))
    async with following(tmp_path) as followed:
        told_before = len(followed.told)

        def write() -> None:
            with path.open("a", buffering=1) as file:
                for number in range(10_000):
                    file.write(asked(f"message {number}"))

        writing = threading.Thread(target=write)
        writing.start()
        cursor: str | None = None
        ordinals: list[int] = []
        async with asyncio.timeout(LONG):
            while len(ordinals) < 10_001:
                page = await followed.sessions.read(ReadSession(agent="claude", session_id=CLAUDE_ID, cursor=cursor))
                cursor = page.cursor
                ordinals += [message.ordinal for message in page.messages]
        writing.join()
        assert ordinals == list(range(10_001))
        now = os.stat(path)
        mark = f"{now.st_ino}:{now.st_size}:{now.st_mtime_ns}"
        await followed.until(lambda: getattr(followed.latest(CLAUDE_ID), "mark", None) == mark)
        assert len(followed.told) - told_before < 1000


async def test_while_nothing_changes_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything(tmp_path)
    async with following(tmp_path) as followed:
        looks: list[object] = []
        # Opening OpenCode's database was heard, once.
        await asyncio.sleep(0.2)

        def look(paths: object, known: Known) -> Looked:
            looks.append(paths)
            return Looked()

        for known in followed.sessions._agents.values():
            monkeypatch.setattr(known.agent, "look", look)
        await asyncio.sleep(0.3)
        assert looks == []
