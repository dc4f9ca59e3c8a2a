"""``perry dispatch --each`` and ``--file``: what is asked for."""

import json
import subprocess
from pathlib import Path

import pytest

from cli.batches import asking, items
from cli.errors import Misused
from protocol.batches import (
    BatchPlan,
    PlannedItem,
)
from protocol.errors import ErrorCode
from tests.unit.cli.agent import FakeAgent, refuses
from tests.unit.cli.batches import DISPATCH, asked, ends
from tests.unit.cli.conftest import Perry


@pytest.mark.parametrize(
    ("each", "named"),
    [
        ("86,87", ["86", "87"]),
        (" 86 , 87,, ", ["86", "87"]),
        ("86-88", ["86", "87", "88"]),
        ("1,08-10,x-y", ["1", "08", "09", "10", "x-y"]),
        ("7-7", ["7"]),
        ("it's “q”", ["it's “q”"]),
    ],
)
def test_items(each: str, named: list[str]) -> None:
    assert items.items(each) == named


@pytest.mark.parametrize(
    ("each", "words"), [("", "no item"), (" , ", "no item"), ("9-7", "write 7-9"), ("1-201", "201 items")]
)
def test_what_are_no_items(each: str, words: str) -> None:
    with pytest.raises(Misused, match=words):
        items.items(each)


def test_lines_are_items() -> None:
    assert items.lines("a, b\n\n 'c' \r\n") == ["a, b", "'c'"]


def test_a_batch_is_asked_for_as_it_is_typed(agent: FakeAgent, perry_: Perry) -> None:
    ends(agent)
    options = ["--parallel", "3", "--remove-when", "success", "--agent", "claude", "--wake-each", "--branch", "fix/{}"]
    assert perry_(*DISPATCH, *options, "--no-wait").exit_code == 0
    assert asked(agent) == {
        "items": [{"item": "86"}, {"item": "87"}],
        "name": "pr-{}",
        "task": "Review PR #{}",
        "agent": "claude",
        "clone": "https://x/y.git",
        "branch": "fix/{}",
        "parallel": 3,
        "wakeEach": True,
        "removeWhen": "success",
    }


FILE = """
name = "fix-{}"
task = "Fix {}"
agent = "claude"
parallel = 2
remove-when = "done"
fallback = "none"
timeout = "1h30m"
each = [78, "79"]

[[items]]
item = 80
agent = "codex"
workspace = "eighty"
timeout = "10m"
task = '''
it's "quoted"
'''
"""


def test_a_batch_from_a_file(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    ends(agent)
    (tmp_path / "b.toml").write_text(FILE)
    assert perry_("dispatch", "--file", str(tmp_path / "b.toml"), "--no-wait", "--parallel", "4").exit_code == 0
    own = {"item": "80", "workspace": "eighty", "agent": "codex", "timeout": 600.0, "task": 'it\'s "quoted"\n'}
    assert asked(agent) == {
        "items": [{"item": "78"}, {"item": "79"}, own],
        "name": "fix-{}",
        "task": "Fix {}",
        "agent": "claude",
        "parallel": 4,
        "removeWhen": "done",
        "fallback": 0.0,
        "timeout": 5400.0,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name = ", "is not right"),
        ("nmae = 'x'", "unknown field `nmae`"),
        ("[[items]]\nitem = 1\nclones = 'x'", "unknown field `clones`"),
        ("each = [1.5]", "is not right"),
        ("each = '1'\nagent = 'cursor'", "one of opencode, claude"),
        ("each = '1'\nparallel = 0", "1 to 50"),
        ("each = '1'\ntimeout = 'soon'", "no duration"),
        ("name = 'x-{}'", "no items"),
        ("each = ''", "no item"),
        ("each = '1'\nremove_when = 'done'", "such as remove-when"),
        ("each = '1'\ntimeout = '900d'", "30d at most"),
        ("each = '1'\nfallback = '31d'", "30d at most"),
        ("each = '1'\nmodel = ''", "1 to 200 characters"),
        ("[[items]]\nitem = 'a'\nmodel = ' '", "1 to 200 characters"),
        ("[[items]]\nitem = ''", "An item is empty"),
    ],
)
def test_files_that_are_not_right(agent: FakeAgent, perry_: Perry, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "b.toml").write_text(text)
    result = perry_("dispatch", "--file", str(tmp_path / "b.toml"))
    assert result.exit_code == 2 and words in result.stderr
    assert not agent.calls


def test_a_file_that_is_not_there(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    result = perry_("dispatch", "--file", str(tmp_path / "b.toml"))
    assert result.exit_code == 2 and "No such file" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--each", "", "x"], "no item"),
        (["--each", "1", "--parallel", "0", "x"], "parallel"),
        (["--each", "1", "--parallel", "51", "x"], "parallel"),
        (["--each", "1", "alpha", "x"], "one TASK"),
        (["--each", "-", "-"], "stdin"),
        (["--each", "1", " "], "empty"),
        (["--each", "x" * 201, "x"], "has 201 characters, and at most 200"),
        (["--each", "1", "x", "--model", ""], "1 to 200 characters"),
        (["--each", "1", "x", "--timeout", "31d"], "30d at most"),
        (["--each", "1", "x", "--timeout", "9" * 400 + "d"], "30d at most"),
        (["--each", "1", "x", "--fallback", "0"], "or none"),
        (["--each", "1", "x", "--collect", "d", "--no-wait"], "perry batches collect"),
        (["alpha", "x", "--parallel", "3"], "--each"),
        (["alpha", "x", "--dry-run"], "--each"),
        (["alpha", "x", "--collect", "d"], "--each"),
        (["x"], "Name a workspace and a task"),
    ],
)
def test_what_cannot_be_dispatched(agent: FakeAgent, perry_: Perry, arguments: list[str], words: str) -> None:
    result = perry_("dispatch", *arguments)
    assert result.exit_code == 2 and words in result.stderr
    assert not [call for call, _ in agent.calls if call.startswith("batches")]


def test_items_from_standard_input(agent: FakeAgent, perry_: Perry) -> None:
    ends(agent)
    assert perry_("dispatch", "--each", "-", "--name", "p-{}", "x", "--no-wait", input="86\nit's\n").exit_code == 0
    assert asked(agent)["items"] == [{"item": "86"}, {"item": "it's"}]


def test_a_refusal_is_passed_on(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    agent.answers["batches.start"] = refuses(ErrorCode.CONFLICT, "The workspace 'pr-86' is there already; …")
    result = perry_(*DISPATCH, "--collect", str(tmp_path / "out"))
    assert result.exit_code == 5 and "'pr-86' is there already" in result.stderr


def test_a_dry_run_begins_nothing(agent: FakeAgent, perry_: Perry) -> None:
    planned = PlannedItem(item="86", workspace="pr-86", task="Review\nit", agent="claude", exists=True)
    agent.answers["batches.plan"] = BatchPlan(items=[planned])
    result = perry_(*DISPATCH, "--dry-run")
    assert result.exit_code == 0 and "Review it" in result.stdout and "--reuse works in it" in result.stdout
    assert "Nothing was begun" in result.stderr
    assert json.loads(perry_(*DISPATCH, "--dry-run", "--json").stdout)["items"][0]["workspace"] == "pr-86"
    assert {call for call, _ in agent.calls} == {"batches.plan"}


def planned(item: str, *, exists: bool) -> PlannedItem:
    return PlannedItem(item=item, workspace=f"p-{item}", task="x", agent="claude", exists=exists)


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """With one commit."""
    folder = str(tmp_path / "repository")
    subprocess.run(["git", "init", "-q", "-b", "main", folder], check=True)
    git = ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    return folder


def test_nothing_is_sent_for_a_batch_that_is_refused(
    agent: FakeAgent, perry_: Perry, tmp_path: Path, repository: str
) -> None:
    """A whole repository takes its time, and the agent keeps it for a while."""
    ends(agent)
    dispatch = ("dispatch", "--each", "1-8", "--name", "p-{}", "--clone", repository, "x", "--no-wait")
    agent.answers["batches.plan"] = BatchPlan(items=[planned(item, exists=item != "1") for item in "12345678"])
    result = perry_(*dispatch)
    assert result.exit_code == 5
    assert (
        "The workspaces 'p-2', 'p-3', 'p-4', 'p-5', 'p-6' and 2 more are there already; choose another --name"
        in result.stderr
    )
    agent.answers["batches.plan"] = BatchPlan(items=[planned("1", exists=True)])
    assert "The workspace 'p-1' is there already" in perry_(*dispatch).stderr
    agent.answers["batches.plan"] = refuses(ErrorCode.BAD_REQUEST, "The item '1': …")
    assert "The item '1'" in perry_(*dispatch).stderr
    (tmp_path / "file").write_text("")
    assert perry_(*dispatch[:-1], "--collect", str(tmp_path / "file")).exit_code == 2
    assert not agent.uploads and not [call for call, _ in agent.calls if call == "batches.start"]
    agent.answers["batches.plan"] = BatchPlan(items=[planned("1", exists=True)])
    assert perry_(*dispatch, "--reuse").exit_code == 0
    assert len(agent.uploads) == 1


def test_a_local_repository_is_sent_once_for_all_items(agent: FakeAgent, perry_: Perry, repository: str) -> None:
    ends(agent)
    agent.answers["batches.plan"] = BatchPlan(items=[planned("86", exists=False), planned("87", exists=False)])
    options = ["--clone", repository, "x"]
    assert perry_("dispatch", "--each", "86,87", "--name", "p-{}", *options, "--no-wait").exit_code == 0
    sent = asked(agent)["items"]
    (name,) = agent.uploads
    assert [(each["clone"], each["branch"]) for each in sent] == [(f"upload:{name}", "main")] * 2
    agent.uploads.clear()
    assert perry_("dispatch", "--each", "86", "--name", "p-{}", *options, "--dry-run").exit_code == 0
    assert not agent.uploads and agent.calls[-1][1]["items"][0]["clone"] == asking.UPLOAD_OF_NOTHING


@pytest.mark.parametrize("verb", ["show", "watch", "collect", "cancel"])
def test_what_is_no_batch(agent: FakeAgent, perry_: Perry, verb: str) -> None:
    result = perry_("batches", verb, "../../etc")
    assert result.exit_code == 4 and "There is no batch '../../etc'; `perry batches list`" in result.stderr
    assert not agent.calls
