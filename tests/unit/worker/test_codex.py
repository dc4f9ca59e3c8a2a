"""Codex' sessions: a recorded one, older shapes, and what goes wrong with them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from protocol.sessions import Message, SessionStatus, Text, Tokens, ToolResult
from protocol.worker import PAGE_LIMIT
from tests.unit.worker.agents import CODEX_ID, Reader, SaidProcesses, codex_session, look, put, read_all, shape
from worker.agents.codex import Codex
from worker.sessions import unpacking
from worker.sessions.agent import NotPossible
from worker.sessions.index import Index


@pytest.fixture
def processes() -> SaidProcesses:
    return SaidProcesses()


@pytest.fixture
def codex(tmp_path: Path, processes: SaidProcesses) -> Codex:
    return Codex(tmp_path, processes)


def line(kind: str, **payload: Any) -> str:
    return json.dumps({"timestamp": "2026-11-21T10:00:00Z", "type": kind, "payload": payload}) + "\n"


def said(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}


def test_a_recorded_session(codex: Codex, tmp_path: Path) -> None:
    codex_session(tmp_path)
    messages, facts = read_all(codex, look(codex)[CODEX_ID])
    assert shape(messages) == [
        ("user", ["Text"]),
        ("assistant", ["Thinking", "Text", "ToolCall"]),
        ("tool", ["ToolResult"]),
        ("assistant", ["Text"]),
        ("user", ["Text"]),
        ("assistant", ["Text"]),
    ]
    assert messages[0].blocks == [Text(text="run tool please")]
    assert facts.title == "run tool please"
    assert (facts.cwd, facts.model) == ("/home/workspace/proj", "fake-1")
    assert facts.tokens == Tokens(input=279, output=60, cache_read=21)
    assert facts.resume == ["codex", "resume", CODEX_ID]


def test_before_it_wrapped_its_records(codex: Codex, tmp_path: Path) -> None:
    records = [
        {"id": CODEX_ID, "timestamp": "2025-06-01T10:00:00Z", "instructions": None},
        said("user", "<environment_context>\n</environment_context>"),
        said("user", "hello"),
        {"type": "function_call", "name": "shell", "call_id": "c", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": '{"output":"no","metadata":{"exit_code":1}}'},
    ]
    codex_session(tmp_path, "".join(json.dumps(record) + "\n" for record in records))
    messages, facts = read_all(codex, look(codex)[CODEX_ID])
    assert [role for role, _ in shape(messages)] == ["user", "assistant", "tool"]
    assert messages[2].blocks == [ToolResult(call_id="c", output="no", failed=True)]
    assert facts.created is not None and facts.created.year == 2025


def test_an_answer_grows_until_a_tool_or_a_person_speaks(codex: Codex, tmp_path: Path) -> None:
    path = codex_session(tmp_path, line("response_item", **said("user", "hi")))
    reader = Reader(codex, look(codex)[CODEX_ID])
    for payload, ordinals in (
        ({"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]}, [1]),
        (said("assistant", "one"), [1]),
        ({"type": "function_call", "name": "n", "call_id": "c", "arguments": "{}"}, [1]),
        ({"type": "function_call_output", "call_id": "c", "output": "out"}, [2]),
        (said("assistant", "two"), [3]),
    ):
        reader.catch_up()
        with path.open("a") as file:
            file.write(line("response_item", **payload))
        [page] = reader.catch_up()
        assert [message.ordinal for message in page.messages] == ordinals
    assert shape(reader.messages)[1] == ("assistant", ["Thinking", "Text", "ToolCall"])


def test_what_is_said_twice_counts_once_and_what_is_not_said_not_at_all(codex: Codex, tmp_path: Path) -> None:
    lines = [
        line("response_item", **said("developer", "rules")),
        line("event_msg", type="user_message", message="hi"),
        line("response_item", **said("user", "hi")),
        line("event_msg", type="item_completed", item={"type": "AgentMessage"}),
        line("compacted", message="everything", replacement_history=[said("user", "hi")]),
        line("unheard_of", **said("user", "what")),
    ]
    codex_session(tmp_path, "".join(lines))
    messages, _ = read_all(codex, look(codex)[CODEX_ID])
    assert shape(messages) == [("user", ["Text"])]


def test_status_is_busy_only_as_long_as_somebody_writes(codex: Codex, tmp_path: Path, processes: SaidProcesses) -> None:
    path = codex_session(tmp_path, line("event_msg", type="task_started"))
    assert look(codex)[CODEX_ID].status is SessionStatus.IDLE
    processes.open.add(str(path))
    assert look(codex)[CODEX_ID].status is SessionStatus.BUSY
    for kind, status in (("task_complete", "idle"), ("error", "error"), ("turn_aborted", "idle")):
        with path.open("a") as file:
            file.write(line("event_msg", type=kind))
        assert look(codex)[CODEX_ID].status == status


def test_what_it_asks_of_a_person(codex: Codex, tmp_path: Path, processes: SaidProcesses) -> None:
    def calls(name: str, **arguments: Any) -> str:
        return line("response_item", type="function_call", call_id="c", name=name, arguments=json.dumps(arguments))

    path = codex_session(tmp_path, calls("request_user_input", questions=[]) + line("token_usage_record"))
    assert look(codex)[CODEX_ID].status is SessionStatus.IDLE
    processes.open.add(str(path))
    assert look(codex)[CODEX_ID].status is SessionStatus.WAITING
    with path.open("a") as file:
        file.write(line("response_item", type="function_call_output", call_id="c", output="blue"))
    assert look(codex)[CODEX_ID].status is SessionStatus.BUSY
    with path.open("a") as file:
        file.write(calls("exec_command", cmd="make install", sandbox_permissions="require_escalated"))
    assert look(codex)[CODEX_ID].status is SessionStatus.WAITING
    # What ran before is no sign that it was allowed.
    processes.begun.append(path.stat().st_mtime - 60)
    assert look(codex)[CODEX_ID].status is SessionStatus.WAITING
    processes.begun.append(path.stat().st_mtime + 60)
    assert look(codex)[CODEX_ID].status is SessionStatus.BUSY
    with path.open("a") as file:
        file.write(calls("exec_command", cmd="ls"))
    assert look(codex)[CODEX_ID].status is SessionStatus.BUSY


def test_archived_ones_are_sessions_too(codex: Codex, tmp_path: Path) -> None:
    codex_session(tmp_path, where="archived_sessions")
    put(tmp_path / "elsewhere" / f"rollout-x-{CODEX_ID}.jsonl", "{}")
    assert list(look(codex)) == [CODEX_ID]


def test_compressed_ones_are_read_as_if_they_were_not(codex: Codex, tmp_path: Path) -> None:
    plain = codex_session(tmp_path)
    before = read_all(codex, look(codex)[CODEX_ID])
    packed = put(tmp_path / "archived_sessions" / f"{plain.name}.zst", zstd.compress(plain.read_bytes()))
    plain.unlink()
    [found] = codex.look(None, Index()).found
    assert (found.key, found.session_id, found.status) == (str(packed), CODEX_ID, SessionStatus.IDLE)
    # A message a page: it is not unpacked for each, and not read from the beginning.
    cursor: str | None = None
    messages: dict[int, Message] = {}
    while True:
        page = codex.read(found, cursor, 1)
        assert not page.reset
        messages |= {message.ordinal: message for message in page.messages}
        cursor = page.cursor
        if not page.more:
            break
    assert messages == before[0] and page.facts == before[1]
    codex.delete(found)
    assert not packed.exists()


def test_compressed_ones_that_are_torn_or_bombs_are_refused_in_a_sentence(
    codex: Codex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = zstd.compress(b"x" * 3_000_000)
    path = put(tmp_path / "archived_sessions" / f"rollout-x-{CODEX_ID}.jsonl.zst", content[: len(content) // 2])
    for _ in range(2):
        with pytest.raises(NotPossible, match="damaged, or not written to its end"):
            codex.read(look(codex)[CODEX_ID], None, PAGE_LIMIT)
    path.write_bytes(b"no such format")
    with pytest.raises(NotPossible, match="damaged"):
        codex.read(look(codex)[CODEX_ID], None, PAGE_LIMIT)
    monkeypatch.setattr(unpacking, "UNPACKED_LIMIT", 2 << 20)
    path.write_bytes(content)
    with pytest.raises(NotPossible, match="larger than 2 MB"):
        codex.read(look(codex)[CODEX_ID], None, PAGE_LIMIT)
    path.write_bytes(zstd.compress(b"{}\n"))
    assert codex.read(look(codex)[CODEX_ID], None, PAGE_LIMIT).messages == []


def test_names_that_people_give_are_titles_and_change_the_mark(codex: Codex, tmp_path: Path) -> None:
    codex_session(tmp_path)
    index = Index()
    index.take(codex.look(None, index))
    names = put(tmp_path / "session_index.jsonl", json.dumps({"id": CODEX_ID, "thread_name": "Mine"}) + "\n")
    assert codex.concerns(str(names))
    [found] = index.take(codex.look([str(names)], index)).seen
    assert read_all(codex, found)[1].title == "Mine"


def test_delete_without_the_command(
    codex: Codex, tmp_path: Path, processes: SaidProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    path = codex_session(tmp_path)
    found = look(codex)[CODEX_ID]
    processes.open.add(str(path))
    with pytest.raises(NotPossible, match="end it first"):
        codex.delete(found)
    processes.open.clear()
    codex.delete(found)
    assert not path.exists()
    with pytest.raises(NotPossible, match="not installed"):
        codex.rename(found, "x")
