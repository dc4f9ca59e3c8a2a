"""``perry dispatch`` and ``perry tasks``."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from protocol.errors import ErrorCode
from protocol.tasks import Checked, Commit, Task, TaskLogs, TaskResult, Tasks, TaskState, Waited
from tests.unit.cli.agent import FakeAgent, refuses
from tests.unit.cli.conftest import Perry

ID = "t-0123456789ab"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def task(state: TaskState = TaskState.QUEUED, **changes: Any) -> Task:
    made = Task(
        id=ID,
        workspace="alpha",
        agent="claude",
        state=state,
        text="Fix the login",
        created=NOW,
        wake="now",
        remove_when="never",
    )
    return msgspec.structs.replace(made, **changes)


def over(state: TaskState, reason: str | None = None) -> Task:
    return task(state, started=NOW, ended=NOW + timedelta(seconds=90), reason=reason)


def test_dispatch_passes_the_task_on_as_it_is(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.dispatch"] = task()
    text = "Fix “$(rm -rf)” `x` 'it'\n\tnow 🙂"
    options = ["--agent", "claude", "--model", "opus", "--timeout", "1h30m", "--wake", "none", "--remove-when", "done"]
    options += ["--fallback", "none"]
    result = perry_("dispatch", "alpha", text, *options)
    assert result.exit_code == 0, result.stderr
    assert f"Task {ID} is dispatched to claude in alpha." in result.stdout
    (wanted,) = (wanted for call, wanted in agent.calls if call == "tasks.dispatch")
    assert wanted.pop("key")
    assert wanted == {
        "workspace": "alpha",
        "task": text,
        "agent": "claude",
        "model": "opus",
        "timeout": 5400.0,
        "wake": "none",
        "removeWhen": "done",
        "fallback": 0.0,
    }


def test_a_task_from_standard_input(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.dispatch"] = task()
    assert perry_("dispatch", "alpha", "-", input="Do this\nand that\n").exit_code == 0
    assert agent.calls[-1][1]["task"] == "Do this\nand that\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["alpha", " "], "empty"),
        (["alpha", "x", "--clone", "https://x/y"], "--create"),
        (["alpha", "x", "--create", "--branch", "b"], "--clone"),
        (["alpha", "x", "--agent", "cursor"], "cursor"),
        (["alpha", "x", "--timeout", "soon"], "duration"),
        (["alpha", "x", "--timeout", "0s"], "no time"),
        (["Alpha", "x"], "workspace name"),
    ],
)
def test_what_cannot_be_dispatched(agent: FakeAgent, perry_: Perry, arguments: list[str], word: str) -> None:
    result = perry_("dispatch", *arguments)
    assert result.exit_code == 2 and word in result.stderr
    assert not [call for call, _ in agent.calls if call == "tasks.dispatch"]


def test_a_refusal_is_passed_on(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.dispatch"] = refuses(ErrorCode.CONFLICT, "The workspace 'alpha' is stopped; add `--start`.")
    result = perry_("dispatch", "alpha", "x")
    assert result.exit_code == 5 and "add `--start`" in result.stderr


def test_dispatch_and_wait_show_the_result(agent: FakeAgent, perry_: Perry) -> None:
    done = over(TaskState.SUCCEEDED)
    agent.answers["tasks.dispatch"] = task()
    agent.answers["tasks.wait"] = Waited(items=[done], done=True)
    agent.answers["tasks.result"] = TaskResult(
        task=done,
        last_message="All\x1b[2J done.\nReally.",
        commits=(Commit(id="0123456789abcdef", subject="Fix it"),),
        diff_stat=" a | 1 +",
        uncommitted=2,
        unpushed=1,
    )
    result = perry_("dispatch", "alpha", "x", "--wait")
    assert result.exit_code == 0, result.stderr
    assert f"{ID} (claude in alpha) succeeded after 1m" in result.stdout
    assert "All [2J done.\nReally." in result.stdout
    assert "0123456789  Fix it" in result.stdout and "a | 1 +" in result.stdout
    assert "2 files are in no commit" in result.stderr and "1 commit is not pushed" in result.stderr


@pytest.mark.parametrize(
    ("waited", "code"),
    [
        (Waited(items=[over(TaskState.SUCCEEDED)], done=True), 0),
        (Waited(items=[over(TaskState.SUCCEEDED), over(TaskState.FAILED)], done=True), 1),
        (Waited(items=[task(TaskState.WAITING), over(TaskState.FAILED)], done=True), 8),
        (Waited(items=[task(TaskState.RUNNING)], done=False), 124),
    ],
)
def test_waiting_tells_by_its_exit_code(agent: FakeAgent, perry_: Perry, waited: Waited, code: int) -> None:
    agent.answers["tasks.wait"] = waited
    assert perry_("tasks", "wait", ID, "--timeout", "0.01s").exit_code == code


def test_waiting_for_one_of_several(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.wait"] = Waited(items=[over(TaskState.SUCCEEDED), task(TaskState.RUNNING)], done=True)
    assert perry_("tasks", "wait", ID, "t-0123456789ac", "--any").exit_code == 0
    assert agent.calls[-1][1]["any"] is True
    assert perry_("tasks", "wait", ID, "--any", "--all").exit_code == 2


def test_a_list_of_tasks(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.list"] = Tasks(
        items=[over(TaskState.FAILED, "The agent failed: no \x1bmoney."), task(text="Two\nlines")], next_cursor="7"
    )
    result = perry_("tasks", "list", "--workspace", "alpha", "--state", "failed")
    assert "failed  alpha      claude" in result.stdout and "└ The agent failed: no  money." in result.stdout
    assert "Two lines" in result.stdout and "There are more" in result.stderr
    assert agent.calls[-1][1] == {"workspace": "alpha", "state": "failed"}


def test_no_tasks(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.list"] = Tasks(items=[])
    assert "perry dispatch" in perry_("tasks", "list").stderr


def test_no_task_of_that_kind(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.list"] = Tasks(items=[])
    assert "`perry tasks list` shows all" in perry_("tasks", "list", "--state", "lost").stderr


def test_one_task(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.get"] = task(TaskState.WAITING, reason="May it run rm?", session_id="s1", wake_id=f"{ID}-x")
    shown = perry_("tasks", "show", ID).stdout
    for word in ("waiting", "May it run rm?", "s1", f"{ID}-x", "Fix the login"):
        assert word in shown
    agent.answers["tasks.get"] = task(remove_when="success", removal="deleted")
    assert "Workspace goes  when it has succeeded (deleted)\n" in perry_("tasks", "show", ID).stdout


def test_logs_come_in_pieces_and_do_nothing_to_a_terminal(agent: FakeAgent, perry_: Perry) -> None:
    text = "one\n\x1b[2Jtwo\tthree\n"

    def piece(wanted: dict[str, Any]) -> TaskLogs:
        offset = wanted.get("offset", 0)
        return TaskLogs(text=text[offset : offset + 5], offset=offset, next=min(offset + 5, 18), size=18, ended=True)

    agent.answers["tasks.logs"] = piece
    result = perry_("tasks", "logs", "-f", ID)
    assert result.stdout == text.replace("\x1b", "")


def test_cancelling(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.cancel"] = over(TaskState.CANCELLED)
    assert "cancelled after 1m" in perry_("tasks", "cancel", ID).stdout
    agent.answers["tasks.cancel"] = refuses(ErrorCode.NOT_FOUND, "There is no task.")
    assert perry_("tasks", "cancel", ID).exit_code == 4


@pytest.mark.parametrize("verb", ["show", "wait", "result", "cancel", "logs"])
def test_a_workspaces_name_means_its_latest_task(agent: FakeAgent, perry_: Perry, verb: str) -> None:
    done = over(TaskState.SUCCEEDED)
    agent.answers |= {
        "tasks.list": Tasks(items=[done], next_cursor="7"),
        "tasks.get": done,
        "tasks.wait": Waited(items=[done], done=True),
        "tasks.result": TaskResult(task=done),
        "tasks.cancel": done,
        "tasks.logs": TaskLogs(text="x", offset=0, next=1, size=1, ended=True),
    }
    result = perry_("tasks", verb, "review-86")
    assert result.exit_code == 0, result.stderr
    (listed, wanted), (_, asked) = agent.calls[-2:]
    assert (listed, wanted) == ("tasks.list", {"workspace": "review-86", "limit": 1})
    assert ID in (asked.get("id"), *asked.get("ids", ()))


def test_a_name_without_a_task(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.list"] = Tasks(items=[])
    result = perry_("tasks", "result", "review-86")
    assert result.exit_code == 4 and "no task 'review-86'" in result.stderr
    assert perry_("tasks", "result", "Review 86").exit_code == 2


def test_a_look(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.check"] = Checked(
        conclusion="stalled", text="Task x has \x1bstalled.", commands=["perry tasks logs x"], quiet=700.0
    )
    result = perry_("check", ID)
    assert result.stdout == "stalled: Task x has  stalled.\n  perry tasks logs x\n"
    assert agent.calls[-1][1] == {"id": ID}
    assert perry_("check", "alpha", "--json").exit_code == 0
    assert agent.calls[-1][1] == {"workspace": "alpha"}
    assert perry_("check", "Alpha!").exit_code == 2


def test_a_look_at_a_workspace_that_is_gone_names_its_latest_task(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["tasks.check"] = refuses(ErrorCode.NOT_FOUND, "There is no workspace named 'alpha'.")
    agent.answers["tasks.list"] = Tasks(items=[over(TaskState.SUCCEEDED)])
    result = perry_("check", "alpha")
    assert result.exit_code == 4 and "There is no workspace named 'alpha'." in result.stderr
    assert f"`perry tasks result {ID}`" in result.stderr
    agent.answers["tasks.list"] = Tasks(items=[])
    result = perry_("check", "alpha")
    assert result.exit_code == 4 and "tasks result" not in result.stderr


def test_ctrl_c_leaves_a_task_at_work(agent: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    agent.answers["tasks.dispatch"] = task(TaskState.QUEUED)
    monkeypatch.setattr("cli.commands.tasks._wait", interrupted)
    result = perry_("dispatch", "alpha", "x", "--wait")
    assert result.exit_code == 130 and "the task goes on" in result.stderr and f"perry tasks wait {ID}" in result.stderr
