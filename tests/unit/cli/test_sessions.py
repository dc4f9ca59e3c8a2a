"""``perry sessions``: what is asked for, what is shown; and nothing of a workspace moves a cursor."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli import output
from protocol.errors import ErrorCode
from protocol.sessions import (
    Hit,
    Hits,
    Message,
    MessageRole,
    Messages,
    SessionInfo,
    Sessions,
    SessionStatus,
    Text,
    Thinking,
    Tokens,
    ToolCall,
    ToolResult,
)
from protocol.tasks import Task, TaskState
from tests.unit.cli.agent import FakeAgent, refuses, workspace
from tests.unit.cli.conftest import Perry

ESCAPE = "\x1b[31m\x1b]0;evil\x07\u202e"
CLAUDE = "91c567b7-fae1-4f36-8931-71fb93eb50c5"
OPENCODE = "ses_e0242b550ffeAXSnCCMSR07XqH"


def session(name: str = "alpha", session_id: str = CLAUDE, **changes: Any) -> SessionInfo:
    made = SessionInfo(
        workspace=name,
        agent="claude",
        session_id=session_id,
        title="Fix the login",
        status=SessionStatus.BUSY,
        message_count=12,
        last_activity=datetime.now(UTC) - timedelta(minutes=3, seconds=20),
        live=True,
        cwd="/home/workspace/it's here",
        resume=["claude", "--resume", session_id],
    )
    return msgspec.structs.replace(made, **changes)


def message(ordinal: int, *blocks: Any, role: MessageRole = MessageRole.ASSISTANT) -> Message:
    return Message(ordinal=ordinal, id=str(ordinal), role=role, blocks=list(blocks))


SAID = [
    message(0, Text(text="Why does it fail?"), role=MessageRole.USER),
    message(1, Thinking(text="Let me see"), ToolCall(call_id="1", name="Bash", input='{"command": "pytest -x"}')),
    message(2, ToolResult(call_id="1", output="one\ntwo\nthree", failed=True), role=MessageRole.TOOL),
    message(3, Text(text="A typo.\n\nIt is mended.", omitted=7)),
]


def listing(*sessions: SessionInfo) -> Callable[[dict[str, Any]], Sessions]:
    """What a control plane answers that has these."""

    def answer(wanted: dict[str, Any]) -> Sessions:
        found = [
            each
            for each in sessions
            if each.session_id.startswith(wanted.get("idPrefix", ""))
            and wanted.get("workspace") in (None, each.workspace)
            and wanted.get("agent") in (None, each.agent)
            and wanted.get("parent") in (None, each.parent)
        ]
        begin, limit = int(wanted.get("cursor", "0")), wanted.get("limit", 50)
        more = len(found) > begin + limit
        return Sessions(items=found[begin : begin + limit], next_cursor=str(begin + limit) if more else None)

    return answer


def saying(*said: Message) -> Callable[[dict[str, Any]], Messages]:
    def answer(wanted: dict[str, Any]) -> Messages:
        limit, after, before = wanted.get("limit", 100), wanted.get("after"), wanted.get("before")
        if after is not None:
            found = [each for each in said if each.ordinal > after][:limit]
        else:
            found = [each for each in said if before is None or each.ordinal < before][-limit:]
        first, last = (found[0].ordinal, found[-1].ordinal) if found else (0, 0)
        return Messages(
            items=found,
            more_before=any(each.ordinal < first for each in said),
            more_after=any(each.ordinal > last for each in said),
        )

    return answer


@pytest.fixture
def one(agent: FakeAgent) -> FakeAgent:
    """An agent with one session."""
    agent.answers["sessions.list"] = listing(session())
    agent.answers["sessions.messages"] = saying(*SAID)
    agent.answers["sessions.rename"] = agent.answers["sessions.delete"] = {}
    return agent


def asked(agent: FakeAgent, procedure: str) -> dict[str, Any]:
    """The input of its latest call."""
    found: dict[str, Any] = [wanted for name, wanted in agent.calls if name == procedure][-1]
    return found


# --- list, show


def test_list_shows_what_matters(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["sessions.list"] = listing(
        session(),
        session("beta", OPENCODE, agent="opencode", title=f"Do{ESCAPE} it", status=SessionStatus.IDLE),
        session("gone", "3", title="Stopped", live=False),
        session("gone", "4", title="Kept", live=False, deleted_workspace=True),
    )
    head, first, second, third, fourth = perry_("sessions", "list").stdout.splitlines()
    assert head.split() == ["SESSION", "WORKSPACE", "AGENT", "STATUS", "MSGS", "ACTIVE", "TITLE"]
    assert first.split(None, 6) == ["91c567b7", "alpha", "claude", "busy", "12", "3m", "Fix the login"]
    assert second.split()[:4] == ["ses_e0242b550ffe", "beta", "opencode", "idle"]
    assert second.isprintable() and "evil" in second
    assert third.split()[3] == "stopped" and fourth.split()[3] == "kept"


def test_list_asks_for_what_is_wanted(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["sessions.list"] = listing()
    options = ("-w", "alpha", "--agent", "codex", "--status", "waiting", "--since", "2h", "--all", "--cursor", "5")
    result = perry_("sessions", "list", *options)
    wanted = asked(agent, "sessions.list")
    since = datetime.now(UTC) - datetime.fromisoformat(wanted.pop("since"))
    assert timedelta(hours=2) <= since < timedelta(hours=2, minutes=1)
    assert wanted == {
        "workspace": "alpha",
        "agent": "codex",
        "status": "waiting",
        "subagents": True,
        "cursor": "5",
    }
    assert result.exit_code == 0 and result.stdout == "" and "No session is like that" in result.stderr


def test_list_pages_and_says_that_there_is_more(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["sessions.list"] = listing(*(session(session_id=f"{i:08x}-x") for i in range(1300)))
    result = perry_("sessions", "list", "--limit", "1200")
    assert len(result.stdout.splitlines()) == 1201 and "There are more; --limit 2400" in result.stderr
    page = msgspec.json.decode(perry_("sessions", "list", "--limit", "600", "--json").stdout, type=Sessions)
    assert len(page.items) == 600 and page.next_cursor == "600"


def test_ids_of_a_list_are_as_long_as_they_differ(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["sessions.list"] = listing(
        session(session_id="91c567b7-fae1"),
        session(session_id="91c567b7-fae2"),
        session(session_id="01a1fdbd-3866-7521-b090-25c244149a3e"),
    )
    shown = [line.split()[0] for line in perry_("sessions", "list").stdout.splitlines()[1:]]
    assert shown == ["91c567b7-fae1", "91c567b7-fae2", "01a1fdbd-3866"]


@pytest.mark.parametrize(
    ("columns", "headings"),
    [
        (120, "SESSION WORKSPACE AGENT STATUS MSGS ACTIVE TITLE"),
        (70, "SESSION WORKSPACE AGENT STATUS MSGS ACTIVE"),
        (46, "SESSION WORKSPACE AGENT STATUS ACTIVE"),
        (40, "SESSION WORKSPACE STATUS ACTIVE"),
        (30, "SESSION WORKSPACE STATUS"),
        (10, "SESSION"),
    ],
)
def test_how_it_stands_is_seen_on_narrow_terminals(
    agent: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch, columns: int, headings: str
) -> None:
    monkeypatch.setattr(output, "width", lambda stream=None: columns)
    agent.answers["sessions.list"] = listing(session())
    lines = perry_("sessions", "list").stdout.splitlines()
    assert lines[0].replace("…", "").split() == headings.split()
    assert max(map(len, lines)) <= columns


def test_show_has_the_facts_and_the_subagents(agent: FakeAgent, perry_: Perry) -> None:
    used = Tokens(input=12034, output=99, cache_read=5)
    below = session(session_id="child-1", parent=CLAUDE, title="Count")
    agent.answers["sessions.list"] = listing(session(tokens=used, cost=0.25, model="m-1"), below)
    text = perry_("sessions", "show", "91c").stdout
    for fact in (CLAUDE, "alpha", "claude, m-1", "12,034 in, 99 out, 5 read from the cache", "$0.2500", "1 subagent:"):
        assert fact in text
    assert f"claude --resume {CLAUDE}" in text and "└ Count" in text
    found = msgspec.json.decode(perry_("sessions", "show", "91c", "--json").stdout, type=SessionInfo)
    assert found.tokens == used


# --- which one


def test_a_beginning_does_where_it_is_the_only_one(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["sessions.list"] = listing(session(), session("beta"), session("beta", "91c567b8"))
    agent.answers["sessions.messages"] = saying(*SAID)
    several = perry_("sessions", "messages", "91c")
    assert several.exit_code == 2 and f"beta/claude/{CLAUDE}" in several.stderr and "begins 3" in several.stderr
    assert perry_("sessions", "messages", "91c567b8").exit_code == 0
    assert perry_("sessions", "messages", "beta/91c567b7").exit_code == 0
    assert asked(agent, "sessions.messages")["workspace"] == "beta"
    assert perry_("sessions", "messages", f"alpha/claude/{CLAUDE}").exit_code == 0
    assert asked(agent, "sessions.messages")["workspace"] == "alpha"
    missing = perry_("sessions", "messages", "zzz")
    assert missing.exit_code == 4 and "There is no session 'zzz'" in missing.stderr
    assert perry_("sessions", "messages", f"91{ESCAPE}").exit_code == 2


def test_a_whole_id_is_no_beginning_of_another(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["sessions.list"] = listing(session(session_id="abc"), session(session_id="abcd"))
    assert CLAUDE not in perry_("sessions", "show", "abc").stdout


# --- messages


def test_messages_fold_tools_and_thoughts(one: FakeAgent, perry_: Perry) -> None:
    text = perry_("sessions", "messages", "91c").stdout
    assert "you  #0" in text and "claude  #1" in text and "tool  #2" not in text
    assert "… Let me see" in text and "▸ Bash pytest -x" in text and "✗ one  (+2 lines)" in text
    assert "  A typo.\n\n  It is mended.\n  (7 characters were left out)\n" in text


def test_what_agents_tell_their_models_is_a_line(agent: FakeAgent, perry_: Perry) -> None:
    told = message(4, Text(text="<task-notification>\nIt is done.\n</task-notification>"), role=MessageRole.SYSTEM)
    agent.answers["sessions.list"], agent.answers["sessions.messages"] = listing(session()), saying(told)
    shown = perry_("sessions", "messages", "91c").stdout
    assert "  · #4 system: <task-notification> It is done. </task-notification>\n" in shown
    assert "  It is done.\n" in perry_("sessions", "messages", "91c", "--full").stdout


def test_what_codex_puts_before_an_output_is_not_what_a_line_is_for(agent: FakeAgent, perry_: Perry) -> None:
    told = "Chunk ID: 942515\nWall time: 0.0 seconds\nProcess exited with code 0\nOutput:\n7 /etc/hosts\nx"
    result = message(1, ToolResult(call_id="1", output=told), role=MessageRole.TOOL)
    agent.answers["sessions.list"], agent.answers["sessions.messages"] = listing(session()), saying(result)
    assert "↳ 7 /etc/hosts  (+1 line)" in perry_("sessions", "messages", "91c").stdout
    assert "│ Chunk ID: 942515" in perry_("sessions", "messages", "91c", "--full").stdout


def test_full_messages_have_all(one: FakeAgent, perry_: Perry) -> None:
    text = perry_("sessions", "messages", "91c", "--full").stdout
    assert "command: pytest -x" in text and "  │ one\n  │ two\n  │ three\n" in text and "tool  #2" in text


def test_messages_are_harmless(agent: FakeAgent, perry_: Perry) -> None:
    bad = f"a{ESCAPE}\rb\tc\x00\x9b2J"
    blocks = (Text(text=bad), Thinking(text=bad), ToolCall(call_id="1", name=bad, input=bad), Text(text=bad))
    result = message(1, ToolResult(call_id="1", output=f"{bad}\n{bad}"), role=MessageRole.TOOL)
    agent.answers["sessions.list"] = listing(session(title=bad, cwd=bad, model=bad, resume=[bad]))
    agent.answers["sessions.messages"] = saying(message(0, *blocks), result)
    for arguments in (
        ("messages", "91c"),
        ("messages", "91c", "--full"),
        ("show", "91c"),
        ("resume", "91c", "--print"),
    ):
        shown = perry_("sessions", *arguments)
        assert shown.exit_code == 0 and "evil" in shown.stdout
        assert all(line.isprintable() for line in (shown.stdout + shown.stderr).splitlines()), arguments


@pytest.mark.parametrize(
    ("options", "ordinals", "hint"),
    [
        (("-n", "2"), [2, 3], "--before 2"),
        (("--before", "2"), [0, 1], "--after 1"),
        (("--after", "1", "-n", "1"), [2], "--before 2 shows earlier ones, --after 2 shows later ones"),
        (("--at", "3"), [0, 1, 2, 3], None),
        (("--all",), [0, 1, 2, 3], None),
    ],
)
def test_which_messages(
    one: FakeAgent, perry_: Perry, options: tuple[str, ...], ordinals: list[int], hint: str | None
) -> None:
    lines = perry_("sessions", "messages", "91c", "--json", *options).stdout.splitlines()
    assert [msgspec.json.decode(line, type=Message).ordinal for line in lines] == ordinals
    said = perry_("sessions", "messages", "91c", *options).stderr
    assert (hint in said) if hint else said == ""


@pytest.mark.parametrize("ordinal", ["4", "99"])
def test_a_message_that_is_not_there(one: FakeAgent, perry_: Perry, ordinal: str) -> None:
    result = perry_("sessions", "messages", "91c", "--at", ordinal)
    assert result.exit_code == 4 and f"no message {ordinal}" in result.stderr


def test_a_task_means_the_session_of_its_agent(one: FakeAgent, perry_: Perry) -> None:
    task = Task(
        id="t-0123456789ab", workspace="alpha", agent="claude", state=TaskState.RUNNING, text="x", wake="now",
        created=datetime.now(UTC), remove_when="never",
    )  # fmt: skip
    one.answers["tasks.get"] = task
    result = perry_("sessions", "messages", task.id)
    assert result.exit_code == 4 and f"perry tasks logs {task.id}" in result.stderr
    one.answers["tasks.get"] = msgspec.structs.replace(task, session_id=session().session_id)
    assert perry_("sessions", "messages", task.id).stdout == perry_("sessions", "messages", "91c").stdout


def test_many_messages_come_in_pages(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["sessions.list"] = listing(session())
    agent.answers["sessions.messages"] = saying(*(message(i, Text(text=str(i))) for i in range(1200)))
    for options, ordinals in ((("--all",), range(1200)), (("-n", "700"), range(500, 1200))):
        lines = perry_("sessions", "messages", "91c", "--json", *options).stdout.splitlines()
        assert [msgspec.json.decode(line)["ordinal"] for line in lines] == list(ordinals)


def test_options_of_messages_that_exclude_each_other(one: FakeAgent, perry_: Perry) -> None:
    assert perry_("sessions", "messages", "91c", "--before", "1", "--at", "1").exit_code == 2
    assert perry_("sessions", "messages", "91c", "--before", "1", "--follow").exit_code == 2


# --- search


def test_search_shows_where_it_was_said(agent: FakeAgent, perry_: Perry) -> None:
    hit = Hit(session=session(), ordinal=5, role=MessageRole.USER, snippet=f"on a \ue000Sunday\ue001{ESCAPE}\nagain")
    agent.answers["sessions.search"] = Hits(items=[hit], next_cursor="x")
    result = perry_("sessions", "search", "sunday", "two words", "-w", "alpha")
    assert asked(agent, "sessions.search")["query"] == 'sunday "two words"'
    assert "user: on a Sunday" in result.stdout and "perry sessions messages 91c567b7 --at 5" in result.stdout
    assert all(line.isprintable() for line in result.stdout.splitlines())
    assert "There are more" in result.stderr
    assert perry_("sessions", "search", " ", "").exit_code == 2
    assert asked(agent, "sessions.search")["query"] == 'sunday "two words"'
    agent.answers["sessions.search"] = Hits(items=[])
    assert "Nobody said that." in perry_("sessions", "search", "x").stderr


# --- rename, delete, resume


def test_rename(one: FakeAgent, perry_: Perry) -> None:
    assert "'Better'" in perry_("sessions", "rename", "91c", " Better ").stdout
    assert asked(one, "sessions.rename")["title"] == "Better"
    assert perry_("sessions", "rename", "91c", "").exit_code == 2
    one.answers["sessions.rename"] = refuses(ErrorCode.PRECONDITION_FAILED, "'alpha' does not run; start it.")
    refused = perry_("sessions", "rename", "91c", "x")
    assert refused.exit_code == 7 and "does not run; start it." in refused.stderr


def test_delete_in_the_workspace_asks(one: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = perry_("sessions", "delete", "91c", "--in-workspace")
    assert refused.exit_code == 5 and "say --yes" in refused.stderr
    monkeypatch.setattr("cli.commands.sessions.changing.is_interactive", lambda: True)
    assert perry_("sessions", "delete", "91c", "--in-workspace", input="n\n").exit_code == 5
    assert not [name for name, _ in one.calls if name == "sessions.delete"]
    assert perry_("sessions", "delete", "91c", "--in-workspace", input="y\n").exit_code == 0
    assert asked(one, "sessions.delete")["inWorkspace"] is True
    assert "deleted from the index" in perry_("sessions", "delete", "91c").stdout
    assert "inWorkspace" not in asked(one, "sessions.delete")


def test_resume_is_a_command_for_the_workspaces_shell(
    one: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []
    monkeypatch.setattr("cli.commands.ssh.connect", lambda client, *rest: given.append(rest))
    one.answers["sessions.list"] = listing(session(resume=["claude", "--resume", "$(reboot); x"]))
    assert perry_("sessions", "resume", "91c").exit_code == 0
    command = "cd -- '/home/workspace/it'\"'\"'s here' && exec claude --resume '$(reboot); x'"
    assert given == [("alpha", ["-t"], ["--", command])]
    assert perry_("sessions", "resume", "91c", "--print").stdout == f"{command}\n"


@pytest.mark.parametrize(
    ("changes", "code", "sentence"),
    [
        ({"deleted_workspace": True}, 5, "is deleted, and only what was said"),
        ({"resume": None}, 7, "claude told of no way"),
        ({"resume": None, "parent": "x"}, 7, "resume the one above it"),
    ],
)
def test_what_cannot_be_resumed(
    agent: FakeAgent, perry_: Perry, changes: dict[str, Any], code: int, sentence: str
) -> None:
    agent.answers["sessions.list"] = listing(session(**changes))
    result = perry_("sessions", "resume", "91c")
    assert result.exit_code == code and sentence in result.stderr


def test_a_stopped_workspace_is_to_be_started_first(one: FakeAgent, perry_: Perry) -> None:
    one.workspaces["alpha"] = workspace("alpha", status="stopped")
    result = perry_("sessions", "resume", "91c")
    assert result.exit_code == 7 and "`perry start alpha` starts it" in result.stderr


# --- export


def test_export_is_lines_of_json(one: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    result = perry_("sessions", "export", "91c", "-o", str(file))
    assert result.exit_code == 0 and "4 messages in" in result.stderr and file.stat().st_mode & 0o777 == 0o600
    head, *said = file.read_bytes().splitlines()
    assert msgspec.json.decode(head, type=SessionInfo).session_id == CLAUDE
    assert [msgspec.json.decode(line, type=Message) for line in said] == SAID
    again = perry_("sessions", "export", "91c", "-o", str(file))
    assert again.exit_code == 5 and "--force" in again.stderr
    assert perry_("sessions", "export", "91c", "-o", str(file), "--force").exit_code == 0
    assert perry_("sessions", "export", "91c").stdout.encode() == file.read_bytes()


def test_an_export_that_fails_leaves_no_file(one: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    one.answers["sessions.messages"] = refuses(ErrorCode.INTERNAL_SERVER_ERROR, "It broke.")
    assert perry_("sessions", "export", "91c", "-o", str(tmp_path / "a")).exit_code == 1
    assert list(tmp_path.iterdir()) == [perry_.folder]
    missing = perry_("sessions", "export", "91c", "-o", str(tmp_path / "none" / "a"))
    assert missing.exit_code == 1 and "cannot be written" in missing.stderr
