"""Gemini CLI's sessions: a recorded one, which was resumed once."""

import json
from pathlib import Path
from typing import Any

import pytest

from protocol.sessions import SessionStatus, Tokens
from tests.unit.worker.agents import GEMINI_ID, Reader, SaidProcesses, gemini_session, look, read_all, shape
from worker.agents.gemini import Gemini
from worker.sessions.agent import NotPossible


@pytest.fixture
def processes() -> SaidProcesses:
    return SaidProcesses()


@pytest.fixture
def gemini(tmp_path: Path, processes: SaidProcesses) -> Gemini:
    return Gemini(tmp_path, processes)


def line(id: str, kind: str, text: str, **fields: Any) -> str:
    return json.dumps({"id": id, "type": kind, "content": [{"text": text}], **fields}) + "\n"


HEADER = json.dumps({"sessionId": GEMINI_ID, "startTime": "2026-11-21T11:22:45.391Z"}) + "\n"


def test_a_recorded_session_that_was_resumed(gemini: Gemini, tmp_path: Path) -> None:
    gemini_session(tmp_path)
    messages, facts = read_all(gemini, look(gemini)[GEMINI_ID])
    assert shape(messages) == [
        ("user", ["Text"]),
        ("assistant", ["Thinking", "Text", "ToolCall"]),
        ("tool", ["ToolResult"]),
        ("assistant", ["Text"]),
        ("user", ["Text"]),
        ("assistant", ["Text"]),
    ]
    assert facts.title == "All done, Zürich 👋 number 3."
    assert (facts.cwd, facts.model) == ("/home/workspace/proj", "gemini-2.5-flash")
    assert facts.tokens == Tokens(input=279, output=69, cache_read=21)
    assert facts.resume == ["gemini", "--resume", GEMINI_ID]


def test_the_same_id_again_takes_its_place_and_its_tokens_count_once(gemini: Gemini, tmp_path: Path) -> None:
    path = gemini_session(tmp_path, HEADER + line("a", "user", "hi") + line("b", "gemini", "x", tokens={"input": 5}))
    reader = Reader(gemini, look(gemini)[GEMINI_ID])
    reader.catch_up()
    with path.open("a") as file:
        file.write(line("b", "gemini", "longer", tokens={"input": 7}))
    [page] = reader.catch_up()
    assert [message.ordinal for message in page.messages] == [1]
    assert "longer" in str(reader.messages[1]) and len(reader.messages) == 2
    assert page.facts.tokens == Tokens(input=7, output=0)


def test_a_session_longer_than_what_is_remembered_comes_not_twice_when_it_is_resumed(
    gemini: Gemini, tmp_path: Path
) -> None:
    lines = [line(f"m{number}", "user", str(number)) for number in range(200)]
    again = {"$set": {"messages": [json.loads(text) for text in [*lines, line("new", "user", "new")]]}}
    gemini_session(tmp_path, HEADER + "".join(lines) + json.dumps(again) + "\n")
    messages, _ = read_all(gemini, look(gemini)[GEMINI_ID])
    assert len(messages) == 201 and "new" in str(messages[200])


def test_status(gemini: Gemini, tmp_path: Path, processes: SaidProcesses) -> None:
    path = gemini_session(tmp_path, HEADER + line("a", "user", "hi"))
    assert look(gemini)[GEMINI_ID].status is SessionStatus.IDLE
    processes.names[5] = "gemini"
    assert look(gemini)[GEMINI_ID].status is SessionStatus.BUSY
    with path.open("a") as file:
        file.write(line("b", "gemini", "there"))
    assert look(gemini)[GEMINI_ID].status is SessionStatus.IDLE


def test_rename_and_delete(gemini: Gemini, tmp_path: Path, processes: SaidProcesses) -> None:
    path = gemini_session(tmp_path)
    found = look(gemini)[GEMINI_ID]
    gemini.rename(found, "Mine")
    assert read_all(gemini, found)[1].title == "Mine"
    processes.open.add(str(path))
    with pytest.raises(NotPossible, match="end it first"):
        gemini.delete(found)
    processes.open.clear()
    gemini.delete(found)
    assert look(gemini) == {}


def test_a_file_without_a_header_is_no_session(gemini: Gemini, tmp_path: Path) -> None:
    gemini_session(tmp_path, "nonsense\n")
    assert look(gemini) == {}


def test_the_blank_file_of_a_session_that_is_opened_again_is_not_taken_for_it(gemini: Gemini, tmp_path: Path) -> None:
    file = gemini_session(tmp_path)
    blank = file.with_name(f"session-2099-01-01T00-00-{GEMINI_ID[:8]}.jsonl")
    context = {"id": "c", "type": "user", "content": [{"text": "<session_context>This is the Gemini CLI."}]}
    blank.write_text(HEADER + json.dumps({"$set": {"messages": [context]}}) + "\n")
    assert look(gemini)[GEMINI_ID].key == str(file)
    gemini.delete(look(gemini)[GEMINI_ID])
    assert not file.exists() and not blank.exists()


def test_a_session_that_begins_is_one_when_something_is_said(gemini: Gemini, tmp_path: Path) -> None:
    file = gemini_session(tmp_path)
    file.write_text(HEADER)
    assert look(gemini) == {}
    with file.open("a") as stream:
        stream.write(line("1", "user", "hello"))
    assert list(look(gemini)) == [GEMINI_ID]
