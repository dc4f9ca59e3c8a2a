"""``perry dispatch --each`` and ``--file``, and ``perry batches``."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.batches import asking, items, watching
from cli.errors import Misused
from cli.steps import HIDE_CURSOR, SHOW_CURSOR
from protocol.batches import (
    Batch,
    BatchEntry,
    Batches,
    BatchItemResult,
    BatchPlan,
    BatchState,
    BatchSummary,
    ItemState,
    PlannedItem,
    WatchedBatch,
)
from protocol.errors import ErrorCode
from protocol.tasks import TaskResult
from tests.unit.cli.agent import FakeAgent, refuses
from tests.unit.cli.conftest import Perry
from tests.unit.cli.test_tasks import task

ID = "b-0123456789ab"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DISPATCH = ("dispatch", "--each", "86,87", "--name", "pr-{}", "--clone", "https://x/y.git", "Review PR #{}")


def entry(item: str, state: ItemState = ItemState.SUCCEEDED, **more: Any) -> BatchEntry:
    over = state in (ItemState.SUCCEEDED, ItemState.FAILED)
    given: dict[str, Any] = (
        {"said": f"I read {item}.", "started": NOW, "ended": NOW + timedelta(seconds=90)} if over else {}
    )
    return BatchEntry(
        number=int(item) - 85,
        item=item,
        workspace=f"pr-{item}",
        agent="claude",
        state=state,
        done=over,
        **(given | more),
    )


def batch(*entries: BatchEntry, state: BatchState = BatchState.DONE) -> Batch:
    counts: dict[str, int] = {}
    for each in entries:
        counts[each.state] = counts.get(each.state, 0) + 1
    summary = BatchSummary(
        id=ID,
        state=state,
        text="Review PR #{}",
        created=NOW,
        parallel=5,
        wake="now",
        remove_when="never",
        counts=counts,
    )
    return Batch(summary=summary, items=list(entries))


GOING = batch(entry("86", ItemState.RUNNING), entry("87", ItemState.PENDING), state=BatchState.RUNNING)
ENDED = batch(entry("86"), entry("87", ItemState.FAILED, reason="No \x1bmoney.", removal="kept: it has work"))


def ends(agent: FakeAgent, batch: Batch = ENDED) -> None:
    """The agent has a batch that runs, and then is over."""
    agent.answers["batches.start"] = agent.answers["batches.get"] = GOING
    agent.answers["batches.wait"] = lambda wanted: WatchedBatch(batch=batch, mark="2", done=True)
    agent.answers["batches.result"] = lambda wanted: BatchItemResult(
        entry=batch.items[wanted["number"] - 1],
        result=TaskResult(task=task(), last_message="All\x1b[2J is well.\nReally."),
        log=b"\xff log",
        patch=b"From 0" if wanted["number"] == 1 else None,
    )


def asked(agent: FakeAgent, procedure: str = "batches.start") -> dict[str, Any]:
    (wanted,) = (wanted for call, wanted in agent.calls if call == procedure)
    assert wanted.pop("key")
    return dict(wanted)


# --- what is asked for


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


def test_a_local_repository_is_sent_for_each_item(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    import subprocess

    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    ends(agent)
    options = ["--clone", str(tmp_path), "x"]
    assert perry_("dispatch", "--each", "86,87", "--name", "p-{}", *options, "--no-wait").exit_code == 0
    sent = asked(agent)["items"]
    assert [f"upload:{name}" for name in agent.uploads] == [each["clone"] for each in sent]
    assert len(agent.uploads) == 2 and all(each["branch"] == "main" for each in sent)
    agent.answers["batches.plan"] = BatchPlan(items=[])
    agent.uploads.clear()
    assert perry_("dispatch", "--each", "86", "--name", "p-{}", *options, "--dry-run").exit_code == 0
    assert not agent.uploads and agent.calls[-1][1]["items"][0]["clone"] == asking.UPLOAD_OF_NOTHING


# --- watching


def test_a_batch_is_watched_to_its_end(agent: FakeAgent, perry_: Perry) -> None:
    ends(agent)
    result = perry_(*DISPATCH)
    assert result.exit_code == 1
    assert "86 (pr-86) running" in result.stderr
    assert "86 (pr-86) succeeded after 1m: I read 86." in result.stderr
    assert "87 (pr-87) failed after 1m: No  money.; workspace kept: it has work" in result.stderr
    assert "86    pr-86      succeeded  1m    I read 86." in result.stdout
    assert "└ its workspace was to go, and is kept: it has work" in result.stdout
    assert f"Batch {ID}: 1 succeeded, 1 failed." in result.stdout


def test_all_have_succeeded(agent: FakeAgent, perry_: Perry) -> None:
    ends(agent, batch(entry("86"), entry("87")))
    assert perry_(*DISPATCH).exit_code == 0
    assert perry_("batches", "watch", ID).exit_code == 0


def test_watching_as_json(agent: FakeAgent, perry_: Perry) -> None:
    ends(agent)
    result = perry_(*DISPATCH, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["summary"]["counts"] == {"succeeded": 1, "failed": 1}


def test_watching_outlives_an_agent_that_is_away(
    agent: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cli.client import Client
    from cli.errors import Lost, NotReachable

    monkeypatch.setattr(watching, "FIRST_PAUSE", 0.001)
    ends(agent)
    failures: Iterator[Exception | None] = iter([Lost("broke"), NotReachable("away"), None, NotReachable("away")])
    real = Client.call

    def call(self: Client, procedure: str, *more: Any, **options: Any) -> Any:
        if procedure in ("batches.wait", "batches.result") and (failure := next(failures, None)) is not None:
            raise failure
        return real(self, procedure, *more, **options)

    monkeypatch.setattr(Client, "call", call)
    result = perry_("batches", "watch", ID, "--collect", str(tmp_path))
    assert result.exit_code == 1 and result.stderr.count("The agent does not answer") == 2
    assert (tmp_path / "pr-86" / "log.txt").exists() and (tmp_path / "pr-87" / "log.txt").exists()


def test_ctrl_c_leaves_it_at_work(agent: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(agent)

    def interrupted(self: object, batch: Batch) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.Plain, "update", interrupted)
    result = perry_(*DISPATCH)
    assert result.exit_code == 130 and f"perry batches watch {ID}" in result.stderr


def test_a_table_that_moves_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: __import__("os").terminal_size((60, 12)))
    stream = io.StringIO()
    live = watching.Live(stream)
    many = [entry(str(number), ItemState.PENDING) for number in range(86, 126)]
    live.update(batch(*many[:-1], entry("125", ItemState.WAITING, reason="May it? " * 20), state=BatchState.RUNNING))
    lines = stream.getvalue().removeprefix(HIDE_CURSOR).replace("\r\033[K", "").split("\n")
    assert len(lines) <= 12 and all(len(line.replace("\033[J", "")) <= 60 for line in lines)
    assert any("125" in line and "waiting" in line for line in lines)
    live.close()
    assert stream.getvalue().endswith(SHOW_CURSOR)


def test_without_waiting_it_says_how_to_go_on(agent: FakeAgent, perry_: Perry) -> None:
    ends(agent)
    result = perry_(*DISPATCH, "--no-wait")
    assert f"Batch {ID} of 2 items goes on; its end wakes once." in result.stdout
    assert f"perry batches watch {ID}" in result.stdout
    assert json.loads(perry_(*DISPATCH, "--no-wait", "--json").stdout)["summary"]["id"] == ID


# --- collecting


def test_results_are_files(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    ends(agent)
    folder = tmp_path / "a" / "out"
    assert perry_(*DISPATCH, "--collect", str(folder)).exit_code == 1
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()) == [
        "batch.json",
        "pr-86/commits.patch",
        "pr-86/log.txt",
        "pr-86/result.json",
        "pr-86/result.txt",
        "pr-87/log.txt",
        "pr-87/result.json",
        "pr-87/result.txt",
    ]
    assert (folder / "pr-86" / "result.txt").read_text() == "All [2J is well.\nReally.\n"
    assert (folder / "pr-86" / "log.txt").read_bytes() == b"\xff log"
    index = json.loads((folder / "batch.json").read_text())
    assert index["batch"]["counts"] == {"succeeded": 1, "failed": 1}
    assert [(each["entry"]["state"], each["folder"]) for each in index["items"]] == [
        ("succeeded", "pr-86"),
        ("failed", "pr-87"),
    ]


def test_results_are_collected_later_and_again(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    ends(agent)
    agent.answers["batches.get"] = ENDED
    for _ in range(2):
        result = perry_("batches", "collect", ID, str(tmp_path / "out"))
        assert result.exit_code == 0 and "2 of 2 items" in result.stdout


def test_another_batchs_folder_is_left_alone(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    ends(agent)
    agent.answers["batches.get"] = ENDED
    assert perry_("batches", "collect", ID, str(tmp_path)).exit_code == 0
    before = (tmp_path / "batch.json").read_bytes()
    agent.calls.clear()
    result = perry_(*DISPATCH, "--collect", str(tmp_path))
    assert result.exit_code == 5 and f"has the results of the batch {ID}" in result.stderr
    assert not [call for call, _ in agent.calls if call == "batches.start"]
    assert perry_("batches", "collect", "b-000000000000", str(tmp_path)).exit_code == 5
    assert (tmp_path / "batch.json").read_bytes() == before
    (tmp_path / "batch.json").write_text("mine")
    assert "is no batch of Perry's" in perry_(*DISPATCH, "--collect", str(tmp_path)).stderr


def test_a_folder_that_cannot_be(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    ends(agent)
    (tmp_path / "file").write_text("")
    result = perry_(*DISPATCH, "--collect", str(tmp_path / "file"))
    assert result.exit_code == 2 and "name another folder" in result.stderr
    assert not [call for call, _ in agent.calls if call == "batches.start"]


# --- the rest


def test_batches_are_listed(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["batches.list"] = Batches(items=[ENDED.summary], next_cursor="1")
    result = perry_("batches", "list", "--limit", "1")
    assert "1 succeeded, 1 failed" in result.stdout and "Review PR #{}" in result.stdout and "more" in result.stderr
    agent.answers["batches.list"] = Batches(items=[])
    assert "perry dispatch --each" in perry_("batch", "list").stderr


def test_one_batch(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["batches.get"] = GOING
    result = perry_("batches", "show", ID)
    assert "pr-87" in result.stdout and f"Batch {ID}: 1 pending, 1 running." in result.stdout
    assert json.loads(perry_("batches", "show", ID, "--json").stdout)["items"][0]["item"] == "86"


def test_cancelling(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["batches.cancel"] = GOING
    assert f"The batch {ID} ends" in perry_("batches", "cancel", ID).stdout
