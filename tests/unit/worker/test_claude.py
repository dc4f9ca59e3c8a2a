"""Claude Code's sessions: a recorded one, and what goes wrong with them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from protocol.sessions import SessionStatus, Tokens, ToolCall, ToolResult
from protocol.worker import BLOCK_LIMIT, PAGE_LIMIT
from tests.unit.worker.agents import (
    CLAUDE_ID,
    RECORDED,
    Reader,
    SaidProcesses,
    claude_session,
    look,
    put,
    read_all,
    shape,
)
from worker.agents.claude import Claude
from worker.opening import NotRegular
from worker.sessions.agent import NotPossible
from worker.sessions.index import Index


@pytest.fixture
def processes() -> SaidProcesses:
    return SaidProcesses()


@pytest.fixture
def claude(tmp_path: Path, processes: SaidProcesses) -> Claude:
    return Claude(tmp_path, processes)


def record(**fields: Any) -> str:
    return json.dumps({"uuid": "u", "timestamp": "2026-11-21T10:00:00Z", **fields}) + "\n"


def asked(text: str, **fields: Any) -> str:
    return record(type="user", message={"role": "user", "content": text}, **fields)


def answered(id: str, text: str, **fields: Any) -> str:
    said = {"id": id, "model": "m", "content": [{"type": "text", "text": text}], "usage": {"input_tokens": 5}}
    return record(type="assistant", message={**said, **fields})


def test_a_recorded_session(claude: Claude, tmp_path: Path) -> None:
    claude_session(tmp_path)
    found = look(claude)[CLAUDE_ID]
    messages, facts = read_all(claude, found)
    assert shape(messages) == [
        ("user", ["Text"]),
        ("assistant", ["Thinking", "Text", "ToolCall", "ToolCall"]),
        ("tool", ["ToolResult"]),
        ("tool", ["ToolResult"]),
        ("assistant", ["Text"]),
        ("user", ["Text"]),
        ("assistant", ["Text"]),
    ]
    call, result = messages[1].blocks[2], messages[3].blocks[0]
    assert isinstance(call, ToolCall) and call.name == "Bash" and json.loads(call.input)["command"].startswith("echo")
    assert isinstance(result, ToolResult) and (result.call_id, result.output) == (call.call_id, "hello")
    failed = messages[2].blocks[0]
    assert isinstance(failed, ToolResult) and failed.failed
    assert facts.title == "My name"
    assert facts.cwd == "/home/workspace/proj"
    assert facts.model == "claude-fake-1"
    assert facts.parent is None
    # Four lines of one message repeat its usage; it counts once.
    assert facts.tokens == Tokens(input=300, output=60, cache_read=21, cache_write=9)
    assert facts.cost == pytest.approx(0.0024492)
    assert facts.resume == ["claude", "--resume", CLAUDE_ID]


def test_a_subagent_is_a_child_with_its_task_for_a_title(claude: Claude, tmp_path: Path) -> None:
    parent = "94c55bbc-2bb8-40a5-b3c1-7e96dfcb2115"
    folder = tmp_path / "projects/-p" / parent / "subagents"
    put(folder / "agent-a17e3d0a58871fb43.jsonl", (RECORDED / "claude-subagent.jsonl").read_bytes())
    put(folder / "agent-a17e3d0a58871fb43.meta.json", '{"description": "Look"}')
    messages, facts = read_all(claude, look(claude)["agent-a17e3d0a58871fb43"])
    assert (facts.parent, facts.title, facts.resume) == (parent, "Look", None)
    assert [role for role, _ in shape(messages)][:2] == ["user", "assistant"]


def test_a_message_goes_on_behind_a_tool_s_result(claude: Claude, tmp_path: Path) -> None:
    result = {"content": [{"type": "tool_result", "tool_use_id": "t", "content": "r"}]}
    before = asked("hi") + answered("a", "one") + record(type="user", message=result)
    path = claude_session(tmp_path, before)
    reader = Reader(claude, look(claude)[CLAUDE_ID])
    reader.catch_up()
    with path.open("a") as file:
        file.write(answered("a", "two"))
    [page] = reader.catch_up()
    assert [(message.ordinal, len(message.blocks)) for message in page.messages] == [(1, 2)]
    assert shape(reader.messages) == [("user", ["Text"]), ("assistant", ["Text", "Text"]), ("tool", ["ToolResult"])]
    assert page.facts.tokens == Tokens(input=5, output=0)


def test_an_append_costs_what_was_appended(claude: Claude, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = claude_session(tmp_path, (asked("hi") + answered("a", "x" * 2000)) * 5000)
    reader = Reader(claude, look(claude)[CLAUDE_ID])
    reader.catch_up()
    read, real = [], os.pread

    def pread(fd: int, size: int, at: int) -> bytes:
        read.append(len(real(fd, size, at)))
        return real(fd, size, at)

    monkeypatch.setattr(os, "pread", pread)
    with path.open("a") as file:
        file.write(asked("more"))
    [page] = reader.catch_up()
    assert [message.ordinal for message in page.messages] == [10_000]
    assert sum(read) < 10_000


def test_titles_the_last_of_the_highest_kind(claude: Claude, tmp_path: Path) -> None:
    custom = [record(type="custom-title", customTitle=f"custom {i}") for i in range(2)]
    claude_session(tmp_path, asked("prompt") + custom[0] + record(type="ai-title", aiTitle="made up") + custom[1])
    claude_session(tmp_path, asked("<command-name>/clear</command-name>") + asked("first\nprompt"), "b")
    claude_session(tmp_path, asked("prompt") + record(type="summary", summary="sum"), "c")
    found = look(claude)
    titles = [read_all(claude, found[id])[1].title for id in (CLAUDE_ID, "b", "c")]
    assert titles == ["custom 1", "first prompt", "sum"]


def test_what_no_person_wrote_is_the_system_s(claude: Claude, tmp_path: Path) -> None:
    texts = ["<task-notification>done</task-notification>", "<local-command-stdout></local-command-stdout>"]
    lines = [asked(text) for text in texts] + [asked("caveat", isMeta=True), asked("sum", isCompactSummary=True)]
    claude_session(tmp_path, "".join(lines))
    messages, _ = read_all(claude, look(claude)[CLAUDE_ID])
    assert {role for role, _ in shape(messages)} == {"system"}


@pytest.mark.parametrize("again", [b"", asked("other").encode() * 2], ids=["truncated", "rewritten"])
def test_a_file_that_is_another_is_read_anew(claude: Claude, tmp_path: Path, again: bytes) -> None:
    path = claude_session(tmp_path, asked("one") + asked("two"))
    reader = Reader(claude, look(claude)[CLAUDE_ID])
    reader.catch_up()
    path.write_bytes(again)
    reader.catch_up()
    assert reader.resets == 1
    assert len(reader.messages) == again.count(b"\n")


def test_a_file_that_was_replaced_is_read_anew_also_where_it_begins_and_ends_alike(
    claude: Claude, tmp_path: Path
) -> None:
    path = claude_session(tmp_path, asked("x" * 600) + asked("bb") + asked("x" * 600))
    reader = Reader(claude, look(claude)[CLAUDE_ID])
    reader.catch_up()
    other = put(tmp_path / "other", asked("x" * 600) + asked("cc") + asked("x" * 600))
    other.rename(path)
    reader.catch_up()
    assert reader.resets == 1
    assert "cc" in str(reader.messages[1])


def test_a_cursor_that_is_none_is_read_from_the_beginning(claude: Claude, tmp_path: Path) -> None:
    claude_session(tmp_path, asked("one"))
    found = look(claude)[CLAUDE_ID]
    for cursor in ("", "{}", "nonsense", "[" * 20_000):
        page = claude.read(found, cursor, PAGE_LIMIT)
        assert page.reset and len(page.messages) == 1


def test_pages_are_bounded_and_long_texts_are_cut(claude: Claude, tmp_path: Path) -> None:
    claude_session(tmp_path, asked("y" * 400_000) * 6)
    reader = Reader(claude, look(claude)[CLAUDE_ID])
    pages = reader.catch_up(PAGE_LIMIT)
    assert len(pages) > 1 and len(reader.messages) == 6
    text = reader.messages[3].blocks[0]
    assert (len(text.text), text.omitted) == (BLOCK_LIMIT, 400_000 - BLOCK_LIMIT)  # type: ignore[union-attr]


def test_a_message_of_many_blocks_stays_below_a_frame(claude: Claude, tmp_path: Path) -> None:
    content = [{"type": "text", "text": "z" * 200_000}] * 30
    claude_session(tmp_path, record(type="user", message={"content": content}))
    [page] = Reader(claude, look(claude)[CLAUDE_ID]).catch_up()
    blocks = page.messages[0].blocks
    assert len(blocks) == 30 and sum(len(block.text) for block in blocks) <= PAGE_LIMIT  # type: ignore[union-attr,misc]
    assert blocks[-1].omitted == 200_000


def test_deep_nesting_is_passed_over_and_counted(claude: Claude, tmp_path: Path) -> None:
    deep = '{"type":"user","message":{"content":' + "[" * 100_000 + "]" * 100_000 + "}}\n"
    claude_session(tmp_path, asked("one") + deep + asked("two"))
    reader = Reader(claude, look(claude)[CLAUDE_ID])
    reader.catch_up()
    assert len(reader.messages) == 2 and reader.skipped == 1


def test_records_that_are_broken_lose_nothing_of_the_others(claude: Claude, tmp_path: Path) -> None:
    one, two, three = (asked(text).encode().rstrip() for text in ("one", "two", "three"))
    torn = b'{"type":"user","message":{"role":"user","content":"to'
    content = (
        one + two + b"\n" + torn + three + b"\n" + b"\0" * 500 + one + b"\n" + two.replace(b"two", b"\xff\xfe") + b"\n"
    )
    claude_session(tmp_path, content)
    messages, _ = read_all(claude, look(claude)[CLAUDE_ID])
    assert [message.blocks[0].text for message in messages.values()] == [  # type: ignore[union-attr]
        "one",
        "two",
        "three",
        "one",
        "\ufffd\ufffd",
    ]


def test_a_live_one_says_itself_what_it_does(claude: Claude, tmp_path: Path, processes: SaidProcesses) -> None:
    path = claude_session(tmp_path, asked("go"))

    def says(status: str, start: str = "77") -> SessionStatus:
        said = {"pid": 12, "sessionId": CLAUDE_ID, "procStart": start, "status": status}
        put(tmp_path / "sessions/12.json", json.dumps(said))
        return look(claude)[CLAUDE_ID].status

    processes.starts[12] = "77"
    assert says("busy") is SessionStatus.BUSY
    assert says("waiting") is SessionStatus.WAITING
    assert says("idle") is SessionStatus.IDLE
    # What a process left behind that was killed: another has its number now, or none.
    assert says("busy", start="66") is SessionStatus.IDLE
    processes.starts.clear()
    assert says("busy") is SessionStatus.IDLE
    path.write_text(record(type="assistant", message={"id": "a", "content": []}, isApiErrorMessage=True))
    assert says("busy") is SessionStatus.ERROR


def test_a_change_of_the_live_file_is_a_change_of_the_session(
    claude: Claude, tmp_path: Path, processes: SaidProcesses
) -> None:
    claude_session(tmp_path, asked("go"))
    index = Index()
    index.take(claude.look(None, index))
    processes.starts[12] = "77"
    said = {"pid": 12, "sessionId": CLAUDE_ID, "procStart": "77", "status": "busy"}
    live = put(tmp_path / "sessions/12.json", json.dumps(said))
    assert claude.concerns(str(live))
    changes = index.take(claude.look([str(live)], index))
    assert [found.status for found in changes.seen] == [SessionStatus.BUSY]
    assert index.restless
    live.unlink()
    changes = index.take(claude.look([str(live)], index))
    assert [found.status for found in changes.seen] == [SessionStatus.IDLE]


def test_keys_beside_the_live_files_are_left_alone(claude: Claude, tmp_path: Path) -> None:
    assert not claude.concerns(f"{tmp_path}/sessions/12.abcdef.key")


def test_rename_as_claude_itself_does(claude: Claude, tmp_path: Path) -> None:
    path = claude_session(tmp_path)
    found = look(claude)[CLAUDE_ID]
    claude.rename(found, "Another")
    assert json.loads(path.read_text().splitlines()[-1]) == {
        "type": "custom-title",
        "customTitle": "Another",
        "sessionId": CLAUDE_ID,
    }
    assert read_all(claude, found)[1].title == "Another"


def test_delete_takes_the_subagents_along(claude: Claude, tmp_path: Path, processes: SaidProcesses) -> None:
    path = claude_session(tmp_path)
    put(path.with_suffix("") / "subagents/agent-1.jsonl", asked("go"))
    found = look(claude)[CLAUDE_ID]
    processes.starts[12] = "77"
    live = put(tmp_path / "sessions/12.json", json.dumps({"pid": 12, "sessionId": CLAUDE_ID, "procStart": "77"}))
    with pytest.raises(NotPossible, match="end it first"):
        claude.delete(found)
    live.unlink()
    claude.delete(found)
    assert look(claude) == {}
    assert not path.exists() and not path.with_suffix("").exists()


def test_links_pipes_and_folders_are_no_sessions(claude: Claude, tmp_path: Path) -> None:
    secret = put(tmp_path / "secret", asked("secret"))
    project = tmp_path / "projects/-p"
    project.mkdir(parents=True)
    (project / "link.jsonl").symlink_to(secret)
    (project / "folder.jsonl").mkdir()
    os.mkfifo(project / "pipe.jsonl")
    put(tmp_path / "elsewhere/x.jsonl", asked("x"))
    (tmp_path / "projects/linked").symlink_to(tmp_path / "elsewhere")
    assert look(claude) == {}


def test_a_file_that_became_a_link_is_not_followed(claude: Claude, tmp_path: Path) -> None:
    path = claude_session(tmp_path, asked("one"))
    found = look(claude)[CLAUDE_ID]
    path.unlink()
    path.symlink_to(put(tmp_path / "secret", asked("secret")))
    with pytest.raises(NotRegular):
        claude.read(found, None, PAGE_LIMIT)


def test_a_folder_that_cannot_be_read_is_said_and_its_sessions_stay(
    claude: Claude, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = claude_session(tmp_path, asked("one"))
    index = Index()
    index.take(claude.look(None, index))
    real = os.scandir

    def scandir(folder: str) -> Any:
        if folder == str(path.parent):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    looked = claude.look(None, index)
    assert looked.problem == f"{str(path.parent)!r} cannot be read: its permissions do not allow it."
    assert index.take(looked).gone == []
    assert len(index) == 1
