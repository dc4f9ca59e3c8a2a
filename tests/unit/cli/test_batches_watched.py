"""Batches that are watched, collected, listed and ended."""

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.batches import watching
from cli.redrawing import HIDE_CURSOR, SHOW_CURSOR
from protocol.batches import (
    Batch,
    Batches,
    BatchState,
    ItemState,
)
from tests.unit.cli.agent import FakeAgent
from tests.unit.cli.batches import DISPATCH, ENDED, GOING, ID, batch, ends, entry
from tests.unit.cli.conftest import Perry

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
    # To be shown with `cat`. The patch is for git, and stays as it is.
    assert (folder / "pr-86" / "log.txt").read_bytes() == "\ufffd]0;log\n\tand more".encode()
    assert (folder / "pr-86" / "commits.patch").read_bytes() == b"From 0\x1b"
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


@pytest.mark.parametrize("name", ["../evil", "/not-there/evil", "..", "", "a/b", "Evil", "pr-86\n"])
def test_a_name_that_would_lead_elsewhere_is_refused(
    agent: FakeAgent, perry_: Perry, tmp_path: Path, name: str
) -> None:
    elsewhere = entry("86", workspace=name)
    ends(agent, batch(elsewhere))
    agent.answers["batches.get"] = batch(elsewhere)
    result = perry_("batches", "collect", ID, str(tmp_path / "out"))
    assert result.exit_code == 1 and "is no name of a workspace" in result.stderr
    assert not list((tmp_path / "out").iterdir()) and not (tmp_path / "evil").exists()


def test_links_that_lie_in_the_folder_are_not_followed(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    """As of a repository that somebody else wrote, in which the results are collected."""
    ends(agent)
    agent.answers["batches.get"] = ENDED
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.write_text("mine")
    (out / "pr-86").mkdir(parents=True)
    for link in (".batch.json.new", "pr-86/.log.txt.new", "pr-86/log.txt", "pr-86/result.txt"):
        (out / link).symlink_to(mine)
    before = os.umask(0o027)
    try:
        assert perry_("batches", "collect", ID, str(out)).exit_code == 0
    finally:
        os.umask(before)
    assert mine.read_text() == "mine"
    assert not any(file.is_symlink() for file in out.rglob("*"))
    assert (out / "pr-86" / "log.txt").stat().st_mode & 0o777 == 0o640


def test_a_folder_that_is_a_link_is_refused(agent: FakeAgent, perry_: Perry, tmp_path: Path) -> None:
    ends(agent)
    agent.answers["batches.get"] = ENDED
    mine, out = tmp_path / "mine", tmp_path / "out"
    mine.mkdir()
    out.mkdir()
    (out / "pr-86").symlink_to(mine)
    result = perry_("batches", "collect", ID, str(out))
    assert result.exit_code == 5 and "is a symbolic link" in result.stderr
    assert not list(mine.iterdir())


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


def test_it_is_said_that_what_failed_keeps_its_workspace(agent: FakeAgent, perry_: Perry) -> None:
    given = batch(entry("86", removal="deleted"), entry("87", ItemState.FAILED, task="t-0123456789ab"))
    summary = msgspec.structs.replace(given.summary, remove_when="success")
    agent.answers["batches.get"] = msgspec.structs.replace(given, summary=summary)
    assert perry_("batches", "show", ID).stdout.count("its workspace stays, since it did not succeed") == 1
    agent.answers["batches.get"] = given
    assert "stays" not in perry_("batches", "show", ID).stdout


def test_cancelling(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["batches.cancel"] = GOING
    assert f"The batch {ID} ends" in perry_("batches", "cancel", ID).stdout
    agent.answers["batches.cancel"] = ENDED
    assert f"The batch {ID} has ended already" in perry_("batches", "cancel", ID).stdout
