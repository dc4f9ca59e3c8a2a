"""``perry list|info|stop|restart|logs|exec|delete|tailnet``."""

import sys
import time
from typing import Any

import msgspec
import pytest

from cli import output
from controlplane.workspaces.state import StepId
from protocol.errors import ErrorCode
from protocol.tailnet import JoinCommand, TailnetNode, TailnetStatus
from protocol.workspaces import (
    ExecResult,
    LogLine,
    LogLines,
    Startup,
    StepStatus,
    TailnetState,
    UnsavedWork,
    WorkerState,
    WorkspaceStatus,
    WorkspaceTailnet,
    WorkspaceWorker,
)
from tests.unit.cli.agent import HOST_KEY, FakeAgent, ended, refuses, starting, with_step, workspace
from tests.unit.cli.conftest import Perry


def test_list_is_a_table_with_errors_below(perry_: Perry, agent: FakeAgent) -> None:
    joining = WorkspaceTailnet(status=TailnetState.JOINING, hostname="b", ips=[])
    for each in (
        workspace("alpha", repo="https://example.com/a"),
        workspace("b", status=WorkspaceStatus.ERROR, error="It broke; start it again.", tailnet=joining),
    ):
        agent.workspaces[each.name] = each
    for command in ("list", "ls"):
        lines = perry_(command).stdout.splitlines()
        assert lines[0].split() == ["NAME", "STATUS", "TAILNET", "SSH", "PORT", "AGE", "REPOSITORY"]
        assert lines[1].split()[:5] == ["alpha", "running", "alpha", "100.64.0.3", "22001"]
        assert lines[1].endswith("https://example.com/a")
        assert lines[2].split()[:4] == ["b", "error", "joining", "22001"]
        assert lines[3] == "  └ It broke; start it again."
        assert lines[1].index("22001") == lines[2].index("22001") == lines[0].index("SSH PORT")


@pytest.mark.parametrize(
    ("worker", "sentence"),
    [
        (WorkspaceWorker(state=WorkerState.CONNECTED, version="1"), None),
        (WorkspaceWorker(state=WorkerState.CONNECTING), None),
        (
            WorkspaceWorker(state=WorkerState.CONNECTED, version="1", outdated=True),
            "Its worker has another version than the agent's; `perry sync alpha` brings that.",
        ),
        (
            WorkspaceWorker(state=WorkerState.FAILED, error="No worker answers."),
            "Its worker is not heard: No worker answers; `perry sync alpha` brings it anew.",
        ),
    ],
)
def test_what_is_wrong_with_a_worker_is_said(
    perry_: Perry, agent: FakeAgent, worker: WorkspaceWorker, sentence: str | None
) -> None:
    agent.workspaces["alpha"] = workspace("alpha", worker=worker)
    listed = perry_("list").stdout.splitlines()
    assert listed[2:] == ([f"  └ {sentence}"] if sentence else [])
    info = " ".join(perry_("info", "alpha").stdout.split())
    assert f"Worker {worker.state}" in info
    assert (sentence is None) or sentence in info


def test_list_of_nothing(perry_: Perry, agent: FakeAgent) -> None:
    result = perry_("list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "`perry start <name>`" in result.stderr
    assert perry_("list", "--json").stdout == "[]\n"


def test_json_is_the_wire(perry_: Perry, agent: FakeAgent) -> None:
    agent.workspaces["alpha"] = workspace("alpha")
    assert msgspec.json.decode(perry_("list", "--json").stdout)[0]["ports"] == {"ssh": 22001}
    shown = msgspec.json.decode(perry_("info", "alpha", "--json").stdout)
    assert shown["sshHostKeys"] == [HOST_KEY]
    assert shown["tailnet"]["dnsName"] == "alpha.perry.internal"


def test_control_characters_do_not_reach_the_terminal(perry_: Perry, agent: FakeAgent) -> None:
    agent.workspaces["alpha"] = workspace("alpha", error="\x1b]0;owned\x07 \x1b[2J", repo="x\x1b[31m")
    agent.answers["workspaces.logs"] = LogLines(items=[LogLine(at="t", source="workspace", text="\x1b[2J\x9bx")])
    for arguments in (["list"], ["info", "alpha"], ["logs", "alpha"]):
        result = perry_(*arguments)
        assert not set(result.output) & set("\x1b\x07\x9b")


def test_info_shows_the_steps_of_a_start_that_failed(perry_: Perry, agent: FakeAgent) -> None:
    failed = with_step(starting("alpha"), StepId.CLONE, StepStatus.FAILED, "fatal: no")
    agent.workspaces["alpha"] = ended(failed, failed=True, error="fatal: no")
    text = perry_("info", "alpha").stdout
    assert "failed  Clone the repository: fatal: no (0.2 s)" in text
    assert HOST_KEY in text


def test_info_of_a_missing_one(perry_: Perry, agent: FakeAgent) -> None:
    assert perry_("info", "nobody").exit_code == 4


@pytest.mark.parametrize("name", ["9a", "A", "a-", "perry", "localhost", "a" * 64, "a/b", "ä", "a\nb"])
@pytest.mark.parametrize("command", ["info", "stop", "start", "delete"])
def test_wrong_names_are_never_sent(perry_: Perry, agent: FakeAgent, command: str, name: str) -> None:
    assert perry_(command, name).exit_code == 2
    assert agent.calls == []


def test_stop_and_restart(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.stop"] = workspace("alpha", status=WorkspaceStatus.STOPPED)
    agent.answers["workspaces.restart"] = workspace("alpha")
    assert perry_("stop", "alpha").stdout.startswith("alpha is stopped")
    assert perry_("restart", "alpha").stdout == "alpha is running.\n"
    assert msgspec.json.decode(perry_("stop", "alpha", "--json").stdout)["status"] == "stopped"
    assert agent.calls[0] == ("workspaces.stop", {"name": "alpha"})


# --- logs


def test_logs_are_lines(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.logs"] = LogLines(items=[LogLine(at="2026-01-02T03:04:05Z", source="tailnet", text="up")])
    assert perry_("logs", "alpha", "-n", "5").stdout == "2026-01-02T03:04:05 tailnet   up\n"
    assert agent.calls[-1] == ("workspaces.logs", {"name": "alpha", "tail": 5})
    assert msgspec.json.decode(perry_("logs", "alpha", "--json").stdout)["text"] == "up"


# --- exec


def test_exec_with_json_is_one_call(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.exec"] = ExecResult(exit_code=42, stdout="out", stderr="err", truncated=False)
    result = perry_("exec", "--cwd", "/tmp", "--timeout", "5", "--json", "alpha", "--", "ls", "--json", "-l; rm", "--")
    assert (result.exit_code, msgspec.json.decode(result.stdout)["stdout"]) == (42, "out")
    assert agent.calls == [
        (
            "workspaces.exec",
            {"name": "alpha", "command": ["ls", "--json", "-l; rm", "--"], "cwd": "/tmp", "timeout": 5.0},
        )
    ]
    assert perry_("exec", "--json", "alpha", "ls", "-l").exit_code == 42
    assert agent.calls[-1][1]["command"] == ["ls", "-l"]
    assert perry_("exec", "--json", "-i", "alpha", "ls").exit_code == 2


def test_exec_with_json_says_when_it_was_ended(perry_: Perry, agent: FakeAgent) -> None:
    def answer(_: Any) -> ExecResult:
        time.sleep(0.02)
        return ExecResult(exit_code=124, stdout="", stderr="", truncated=False)

    agent.answers["workspaces.exec"] = answer
    result = perry_("exec", "--json", "--timeout", "0.01", "alpha", "--", "sleep", "9")
    assert (result.exit_code, "--timeout" in result.stderr) == (124, True)
    assert perry_("exec", "--json", "alpha", "--", "x").stderr == ""


@pytest.mark.parametrize("arguments", [["alpha"], ["alpha", "--"], ["alpha", "-l"], ["--", "alpha", "--"]])
def test_exec_without_a_command_is_misuse(perry_: Perry, agent: FakeAgent, arguments: list[str]) -> None:
    assert perry_("exec", *arguments).exit_code == 2
    assert agent.calls == []


# --- delete

WORK = UnsavedWork(uncommitted=["alpha:  M app.py"], unpushed=["alpha: 1234567 Try"])


@pytest.fixture
def unsaved(agent: FakeAgent) -> FakeAgent:
    def delete(wanted: Any) -> Any:
        if wanted.get("force"):
            return {}
        return refuses(ErrorCode.CONFLICT, "'alpha' has work that would be lost.", WORK)

    agent.answers["workspaces.delete"] = delete
    return agent


def test_delete_without_a_terminal_refuses_and_says_how(perry_: Perry, unsaved: FakeAgent) -> None:
    for command in ("delete", "rm", "remove"):
        result = perry_(command, "alpha", input="y\n")
        assert (result.exit_code, result.stdout) == (5, "")
        assert "alpha:  M app.py" in result.stderr
        assert "alpha: 1234567 Try" in result.stderr
        assert "--force" in result.stderr
    assert not any(wanted.get("force") for _, wanted in unsaved.calls)


def test_delete_with_force_asks_nothing(perry_: Perry, unsaved: FakeAgent) -> None:
    assert perry_("delete", "alpha", "--force").stdout == "alpha is deleted.\n"
    assert unsaved.calls == [("workspaces.delete", {"name": "alpha", "force": True})]


@pytest.mark.parametrize(("answer", "exit_code", "forced"), [("y\n", 0, True), ("n\n", 5, False), ("", 130, False)])
def test_delete_on_a_terminal_asks(
    perry_: Perry, unsaved: FakeAgent, monkeypatch: pytest.MonkeyPatch, answer: str, exit_code: int, forced: bool
) -> None:
    monkeypatch.setattr("cli.commands.delete.is_interactive", lambda: True)
    result = perry_("delete", "alpha", input=answer)
    assert result.exit_code == exit_code
    assert any(wanted.get("force", False) for _, wanted in unsaved.calls) is forced


def test_delete_that_loses_nothing(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.delete"] = {}
    assert perry_("delete", "alpha").exit_code == 0
    assert msgspec.json.decode(perry_("rm", "alpha", "--json").stdout) == {"name": "alpha", "deleted": True}


def test_delete_of_a_busy_one_is_the_servers_sentence(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.delete"] = refuses(ErrorCode.CONFLICT, "'alpha' is busy.")
    result = perry_("delete", "alpha")
    assert (result.exit_code, result.stderr) == (5, "Error: 'alpha' is busy.\n")


# --- tailnet


def test_tailnet_status(perry_: Perry, agent: FakeAgent) -> None:
    nodes = [
        TailnetNode(name="alpha", ips=["100.64.0.3"], online=True, tags=["tag:perry-workspace"], workspace="alpha")
    ]
    agent.answers["tailnet.status"] = TailnetStatus(
        provider="embedded", ready=False, owners=["owner@"], nodes=nodes, error="It is away; start it."
    )
    text = perry_("tailnet", "status").stdout
    assert "It is away; start it." in text
    assert "workspace alpha" in text
    assert msgspec.json.decode(perry_("tailnet", "status", "--json").stdout)["owners"] == ["owner@"]


def test_tailnet_join_prints_the_command_alone_on_stdout(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["tailnet.join"] = JoinCommand(
        command="tailscale up --login-server=http://10.0.0.1:7390 --auth-key=k",
        key="k",
        expires="2026-01-01T00:00:00Z",
        control_url="http://10.0.0.1:7390",
        environment={"TS_DEBUG_USE_DERP_HTTP": "1"},
    )
    result = perry_("tailnet", "join")
    assert result.stdout.strip() == "tailscale up --login-server=http://10.0.0.1:7390 --auth-key=k"
    assert "TS_DEBUG_USE_DERP_HTTP=1" in result.stderr


# --- colours


class Terminal:
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal: Any = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.colours(terminal)
    monkeypatch.setenv("NO_COLOR", "1")
    assert not output.colours(terminal)
    assert output.is_terminal(terminal)
    monkeypatch.setenv("TERM", "dumb")
    assert not output.is_terminal(terminal)
    assert not output.colours(sys.stdout)


def test_ages_and_sizes() -> None:
    assert [output.duration(seconds) for seconds in (5, 61, 7200, 90000)] == ["5s", "1m", "2h", "1d"]
    assert output.age("nonsense") == "?"
    assert [output.size(count) for count in (5, 2048, 3 << 30)] == ["5 bytes", "2.0 KiB", "3.0 GiB"]
    assert output.cut("abcdef", 4) == "abc…"


def test_a_start_that_runs_shows_in_the_status(perry_: Perry, agent: FakeAgent) -> None:
    again = starting("alpha", attempt=2)
    assert isinstance(again.startup, Startup)
    agent.workspaces["alpha"] = msgspec.structs.replace(again, status=WorkspaceStatus.RUNNING)
    assert "running, starting" in perry_("list").stdout
