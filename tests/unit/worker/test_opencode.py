"""OpenCode's sessions: a recorded database, its newer and its older layout, and databases in bad states."""

import json
import os
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from protocol.sessions import SessionStatus, Tokens
from tests.unit.worker.agents import (
    OPENCODE_ID,
    Reader,
    SaidProcesses,
    look,
    opencode_database,
    put,
    read_all,
    shape,
)
from worker.agents import opencode_database as database_module
from worker.agents.opencode import OpenCode
from worker.sessions.agent import NotPossible
from worker.sessions.index import Index


@pytest.fixture
def processes() -> SaidProcesses:
    return SaidProcesses()


@pytest.fixture
def opencode(tmp_path: Path, processes: SaidProcesses) -> OpenCode:
    return OpenCode(tmp_path, tmp_path / "opencode.db", processes)


@pytest.fixture
def database(tmp_path: Path) -> sqlite3.Connection:
    return opencode_database(tmp_path / "opencode.db")


def say(database: sqlite3.Connection, id: str, text: str, at: int, **data: Any) -> None:
    """A message with one part, as OpenCode writes it."""
    data = {"role": "user", "time": {"created": at}, **data}
    with database:
        database.execute("INSERT INTO message VALUES (?, ?, ?, ?, ?)", (id, OPENCODE_ID, at, at, json.dumps(data)))
        part = json.dumps({"type": "text", "text": text})
        database.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)", (f"prt_{id}", id, OPENCODE_ID, at, at, part))
        database.execute("UPDATE event_sequence SET seq = seq + 1 WHERE aggregate_id = ?", (OPENCODE_ID,))


def test_a_recorded_database(opencode: OpenCode, database: sqlite3.Connection) -> None:
    found = look(opencode)
    assert len(found) == 3
    messages, facts = read_all(opencode, found[OPENCODE_ID])
    assert shape(messages) == [
        ("user", ["Text"]),
        ("assistant", ["Thinking", "Text", "ToolCall", "ToolResult"]),
        ("assistant", ["Text"]),
    ]
    assert facts.title == "All done, Zürich 👋 number 162."
    assert (facts.cwd, facts.model, facts.parent) == ("/home/workspace/proj", "fake-1", None)
    assert facts.tokens == Tokens(input=186, output=40, cache_read=14)
    assert facts.resume == ["opencode", "--session", OPENCODE_ID]
    child = read_all(opencode, found["ses_e0241062cffeUGyb2dZ3P2cdRn"])[1]
    assert child.parent == "ses_e02410ce0ffeYQe2XZZOYMGBPB"


def test_only_what_changed_is_told_and_read(opencode: OpenCode, database: sqlite3.Connection) -> None:
    index = Index()
    index.take(opencode.look(None, index))
    reader = Reader(opencode, index.get(OPENCODE_ID))  # type: ignore[arg-type]
    reader.catch_up()
    assert opencode.look([f"{opencode._path}-wal"], index).found == []
    say(database, "msg_z1", "more", 1895258510730)
    [found] = index.take(opencode.look([f"{opencode._path}-wal"], index)).seen
    assert found.session_id == OPENCODE_ID
    [page] = reader.catch_up()
    assert [message.ordinal for message in page.messages if "more" in str(message)] == [3]
    assert len(page.messages) <= 2


def test_an_answer_grows_in_its_place_also_while_the_next_question_waits(
    opencode: OpenCode, database: sqlite3.Connection
) -> None:
    reader = Reader(opencode, look(opencode)[OPENCODE_ID])
    say(database, "msg_z1", "partly", 1895258510730, role="assistant")
    say(database, "msg_z2", "next question", 1895258510731)
    say(database, "msg_z3", "and another", 1895258510732)
    reader.catch_up(1)
    grown = json.dumps({"type": "text", "text": "now whole"})
    with database:
        database.execute("UPDATE part SET data = ?, time_updated = 1895258510740 WHERE id = 'prt_msg_z1'", (grown,))
    pages = reader.catch_up(1)
    assert "now whole" in str(reader.messages[3]) and len(reader.messages) == 6
    # The one that was written last may come again; the others do not.
    assert {message.ordinal for page in pages for message in page.messages} <= {3, 5}


def test_messages_that_are_taken_back_are_void(opencode: OpenCode, database: sqlite3.Connection) -> None:
    reader = Reader(opencode, look(opencode)[OPENCODE_ID])
    reader.catch_up()
    with database:
        database.execute("DELETE FROM message WHERE session_id = ? AND id >= 'msg_1fdbee599'", (OPENCODE_ID,))
    reader.catch_up()
    assert reader.resets == 1 and len(reader.messages) == 1


def test_pages_of_one_message_each_end(opencode: OpenCode, database: sqlite3.Connection) -> None:
    for number in range(300):
        say(database, f"msg_z{number:03}", f"text {number}", 1895258510730 + number)
    reader = Reader(opencode, look(opencode)[OPENCODE_ID])
    reader.catch_up(1)
    assert len(reader.messages) == 303 and reader.resets == 0


def test_the_idle_rule(opencode: OpenCode, database: sqlite3.Connection, processes: SaidProcesses) -> None:
    assert look(opencode)[OPENCODE_ID].status is SessionStatus.IDLE
    now = {"updated": "CAST(strftime('%s', 'now') AS INTEGER) * 1000"}
    say(database, "msg_z1", "go on", 1895258510730)
    with database:
        database.execute(f"UPDATE session SET time_updated = {now['updated']}")
    assert look(opencode)[OPENCODE_ID].status is SessionStatus.IDLE, "nobody is there who could work"
    processes.names[7] = "opencode"
    assert look(opencode)[OPENCODE_ID].status is SessionStatus.BUSY
    done = {"time": {"created": 1, "completed": 2}, "role": "assistant"}
    say(database, "msg_z2", "calls a tool", 1895258510731, **done, finish="tool-calls")
    assert look(opencode)[OPENCODE_ID].status is SessionStatus.BUSY
    say(database, "msg_z3", "said it", 1895258510732, **done, finish="stop")
    assert look(opencode)[OPENCODE_ID].status is SessionStatus.IDLE
    say(database, "msg_z4", "", 1895258510733, **done, error={"name": "APIError", "data": {"message": "no"}})
    assert look(opencode)[OPENCODE_ID].status is SessionStatus.ERROR
    say(database, "msg_z5", "", 1895258510734, **done, error={"name": "MessageAbortedError"})
    assert look(opencode)[OPENCODE_ID].status is SessionStatus.IDLE


@pytest.mark.parametrize(
    ("tool", "state", "ago", "status"),
    [
        ("question", {"status": "running"}, 0, "waiting"),
        ("bash", {"status": "running"}, 60, "waiting"),
        ("bash", {"status": "running"}, 0, "busy"),
        ("bash", {"status": "running", "metadata": {"output": ""}}, 60, "busy"),
        ("webfetch", {"status": "running"}, 60, "busy"),
        ("question", {"status": "completed", "output": "Yes"}, 60, "busy"),
        ("bash", {"status": "running"}, 5_000, "idle"),
        ("bash", None, 60, "busy"),
    ],
)
def test_a_tool_that_waits_for_its_person(
    opencode: OpenCode,
    database: sqlite3.Connection,
    processes: SaidProcesses,
    tool: str,
    state: dict[str, Any] | None,
    ago: float,
    status: str,
) -> None:
    processes.names[1] = "opencode"
    at = int((time.time() - ago) * 1000)
    say(database, "msg_z1", "", at, role="assistant")
    data = {"type": "tool", "tool": tool, "state": state and {**state, "time": {"start": at}}}
    with database:
        part = ("prt_z1", "msg_z1", OPENCODE_ID, at, at, json.dumps(data))
        database.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)", part)
        database.execute("UPDATE session SET time_updated = ? WHERE id = ?", (at, OPENCODE_ID))
    assert look(opencode)[OPENCODE_ID].status == status


def test_with_only_a_log(opencode: OpenCode, database: sqlite3.Connection, tmp_path: Path) -> None:
    # As right after a run: the file itself has no table at all.
    assert (tmp_path / "opencode.db").stat().st_size <= 4096 < (tmp_path / "opencode.db-wal").stat().st_size
    assert len(look(opencode)) == 3


def test_without_its_file_but_with_its_log(opencode: OpenCode, database: sqlite3.Connection, tmp_path: Path) -> None:
    (tmp_path / "opencode.db").unlink()
    looked = opencode.look(None, Index())
    assert looked.problem is not None and "is not there" in looked.problem
    assert not looked.everything


def test_locked_is_said_and_takes_nothing_away(
    tmp_path: Path, processes: SaidProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.01)
    database = opencode_database(tmp_path / "opencode.db")
    opencode = OpenCode(tmp_path, tmp_path / "opencode.db", processes)
    index = Index()
    index.take(opencode.look(None, index))
    opencode._database.close()
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    looked = opencode.look(None, index)
    assert looked.problem is not None and "locked" in looked.problem
    assert index.take(looked).gone == [] and len(index) == 3
    with pytest.raises(NotPossible, match="locked"):
        opencode.read(index.get(OPENCODE_ID), None, 1)  # type: ignore[arg-type]
    database.close()
    assert opencode.look([str(opencode._path)], index).settled


def test_half_migrated_is_said(opencode: OpenCode, database: sqlite3.Connection) -> None:
    with database:
        database.execute("PRAGMA foreign_keys = 0")
        database.execute("DROP TABLE message")
    looked = opencode.look(None, Index())
    assert looked.problem is not None and "no such table: message" in looked.problem


def test_no_database_yet_is_no_problem_and_an_empty_one_is(opencode: OpenCode, tmp_path: Path) -> None:
    assert look(opencode) == {}
    database = sqlite3.connect(tmp_path / "opencode.db")
    database.execute("PRAGMA journal_mode = WAL")
    assert "no table of sessions" in str(opencode.look(None, Index()).problem)
    database.close()


def test_a_database_that_is_just_being_made_is_left_alone(
    opencode: OpenCode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenCode makes it in rollback mode, and fails where somebody reads while it goes over to WAL mode."""
    database = sqlite3.connect(tmp_path / "opencode.db")
    database.execute("CREATE TABLE migration (id TEXT)")
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", lambda *_, **__: pytest.fail("it was opened"))
        assert "not in WAL mode (yet)" in str(opencode.look(None, Index()).problem)
    database.execute("PRAGMA journal_mode = WAL")
    assert "no table of sessions" in str(opencode.look(None, Index()).problem)
    database.close()


def test_a_database_that_is_another_file_now(opencode: OpenCode, database: sqlite3.Connection, tmp_path: Path) -> None:
    assert len(look(opencode)) == 3
    database.close()
    other = opencode_database(tmp_path / "other.db")
    with other:
        other.execute("DELETE FROM session WHERE parent_id IS NOT NULL")
    other.close()
    for ending in ("-wal", "-shm"):
        (tmp_path / f"opencode.db{ending}").unlink()
    os.replace(tmp_path / "other.db", tmp_path / "opencode.db")
    assert len(look(opencode)) == 2


def test_columns_that_a_version_does_not_have(opencode: OpenCode, tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "opencode.db")
    database.executescript(
        """
        PRAGMA journal_mode = WAL;
        CREATE TABLE session (id TEXT PRIMARY KEY, directory TEXT, title TEXT, time_updated INTEGER);
        CREATE TABLE message (id TEXT, session_id TEXT, time_created INTEGER, time_updated INTEGER, data TEXT);
        CREATE TABLE part (id TEXT, message_id TEXT, session_id TEXT, time_updated INTEGER, data TEXT);
        INSERT INTO session VALUES ('ses_1', '/p', 'old', 5);
        """
    )
    _, facts = read_all(opencode, look(opencode)["ses_1"])
    assert (facts.title, facts.tokens, facts.cost) == ("old", None, None)


def test_the_newer_layout_comes_first(opencode: OpenCode, database: sqlite3.Connection) -> None:
    database.executescript(
        f"""
        CREATE TABLE session_v2 (id TEXT PRIMARY KEY, directory TEXT, title TEXT, time_created INTEGER,
            time_updated INTEGER, idle_outcome TEXT);
        CREATE TABLE session_message (id TEXT PRIMARY KEY, session_id TEXT, type TEXT, seq INTEGER,
            time_created INTEGER, time_updated INTEGER, data TEXT);
        INSERT INTO session_v2 VALUES ('{OPENCODE_ID}', '/p', 'newer', 1, 2, NULL);
        """
    )
    content = [
        {"type": "reasoning", "id": "r", "text": "hm"},
        {"type": "text", "id": "t", "text": "there"},
        {
            "type": "tool",
            "id": "c",
            "name": "bash",
            "state": {"status": "completed", "input": {"command": "ls"}, "content": [{"type": "text", "text": "out"}]},
        },
    ]
    rows = [
        ("user", {"text": "hello", "time": {"created": 1}}),
        ("model-switched", {"model": {"id": "m"}}),
        ("assistant", {"content": content, "model": {"id": "m"}, "time": {"created": 2, "completed": 3}}),
        ("compaction", {"summary": "shorter", "time": {"created": 3}}),
    ]
    with database:
        for seq, (kind, data) in enumerate(rows):
            row = (f"msg_{seq}", OPENCODE_ID, kind, seq, seq, seq, json.dumps(data))
            database.execute("INSERT INTO session_message VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    found = look(opencode)
    assert len(found) == 3
    reader = Reader(opencode, found[OPENCODE_ID])
    reader.catch_up(1)
    assert shape(reader.messages) == [
        ("user", ["Text"]),
        ("assistant", ["Thinking", "Text", "ToolCall", "ToolResult"]),
        ("system", ["Text"]),
    ]
    assert reader.facts is not None and reader.facts.title == "newer"
    reader.catch_up()
    assert reader.resets == 0


def legacy(storage: Path, id: str, *texts: str) -> Path:
    for number, text in enumerate(texts):
        message = f"msg_{number}"
        put(storage / "message" / id / f"{message}.json", json.dumps({"role": "user", "id": message}))
        put(storage / "part" / message / "prt_1.json", json.dumps({"type": "text", "text": text}))
    info = {"id": id, "title": "Long ago", "directory": "/p", "time": {"created": 1000, "updated": 2000}}
    return put(storage / "session/project" / f"{id}.json", json.dumps(info))


def test_the_tree_of_files_of_before(opencode: OpenCode, tmp_path: Path) -> None:
    path = legacy(tmp_path / "storage", "ses_old", "one", "two")
    assert opencode.concerns(str(path))
    reader = Reader(opencode, look(opencode)["ses_old"])
    reader.catch_up(1)
    assert shape(reader.messages) == [("user", ["Text"])] * 2
    assert reader.facts is not None and (reader.facts.title, reader.facts.cwd) == ("Long ago", "/p")
    legacy(tmp_path / "storage", "ses_old", "one", "two", "three")
    reader.catch_up()
    assert len(reader.messages) == 3 and reader.resets == 0
    shutil.rmtree(tmp_path / "storage/message/ses_old")
    reader.catch_up()
    assert reader.resets == 1 and reader.messages == {}


def test_what_is_in_the_database_counts(opencode: OpenCode, database: sqlite3.Connection, tmp_path: Path) -> None:
    legacy(tmp_path / "storage", OPENCODE_ID, "one")
    found = look(opencode)
    assert len(found) == 3 and not found[OPENCODE_ID].key.endswith(".json")


def test_rename_and_no_delete_without_the_command(
    opencode: OpenCode, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index()
    index.take(opencode.look(None, index))
    found = index.get(OPENCODE_ID)
    assert found is not None
    opencode.rename(found, "Mine")
    [changed] = index.take(opencode.look([found.key], index)).seen
    assert changed.mark != found.mark and read_all(opencode, changed)[1].title == "Mine"
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(NotPossible, match="not installed"):
        opencode.delete(found)
