"""``perry cron``: what is sent, and what is shown."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import tzlocal

from cli import output, times
from protocol.cron import Job, JobRun, JobRuns, Jobs, Outcome
from protocol.errors import ErrorCode
from tests.unit.cli.agent import FakeAgent, refuses
from tests.unit.cli.conftest import Perry

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The person's device."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    tzlocal.reload_localzone()
    yield
    monkeypatch.undo()
    time.tzset()
    tzlocal.reload_localzone()


def job(name: str = "fallback", **changes: Any) -> Job:
    plain = Job(id="c-0123456789ab", name=name, created=NOW, action="wake", delete_after_run=False, text="Look.")
    return msgspec.structs.replace(plain, **changes)


def run(**changes: Any) -> JobRun:
    plain = JobRun(
        id="c-0123456789ab-1",
        job_id="c-0123456789ab",
        job="fallback",
        due=NOW,
        started=NOW,
        outcome=Outcome.OK,
        by_hand=False,
        ended=NOW,
        detail="w-1",
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    ("arguments", "sent"),
    [
        # As people have had it in their prompts, and as clawdbot itself takes it.
        (("--at", "+20m", "--message", "Look."), {"at": "+20m", "message": "Look."}),
        (
            ("--name", "fb", "--at", "20m", "--session", "main", "--system-event", "Look.", "--wake", "now",
             "--delete-after-run"),
            {"name": "fb", "at": "20m", "systemEvent": "Look.", "deleteAfterRun": True},
        ),
        (
            ("--every", "1h", "--message", "x", "--session", "isolated", "--wake", "next-heartbeat"),
            {"every": "1h", "message": "x", "session": "isolated", "wake": "next-heartbeat"},
        ),
        (("--cron", "0 9 * * *", "--message", "x"), {"cron": "0 9 * * *", "tz": "Europe/Berlin", "message": "x"}),
        (("--cron", "0 9 * * *", "--tz", "UTC", "--message", "x"), {"cron": "0 9 * * *", "tz": "UTC", "message": "x"}),
        (("--at", "20m", "--check", "alpha"), {"at": "20m", "check": "alpha"}),
        (("--every", "1h", "--check", "alpha", "--message", "x"), {"every": "1h", "check": "alpha", "message": "x"}),
        (
            ("--every", "1d", "--dispatch", "new", "--message", "Sweep", "--agent", "claude", "--model", "opus",
             "--timeout", "45m", "--fallback", "none", "--create", "--clone", "https://host/x", "--branch", "b",
             "--remove-when", "success", "--wake", "none"),
            {"every": "1d", "dispatch": {
                "workspace": "new", "task": "Sweep", "agent": "claude", "model": "opus", "timeout": 2700.0,
                "fallback": 0.0, "create": True, "clone": "https://host/x", "branch": "b", "removeWhen": "success",
                "wake": "none",
            }},
        ),
    ],
)  # fmt: skip
def test_what_add_sends(agent: FakeAgent, perry_: Perry, arguments: tuple[str, ...], sent: dict[str, Any]) -> None:
    agent.answers["cron.add"] = job(at=NOW, next=NOW)
    result = perry_("cron", "add", *arguments)
    assert result.exit_code == 0, result.stderr
    assert agent.calls[-1] == ("cron.add", sent)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--agent", "claude", "--message", "x"), "--agent is for a task; add --dispatch WORKSPACE."),
        (("--create", "--check", "alpha"), "--create is for a task"),
        (("--dispatch", "alpha"), "--dispatch needs --message"),
        (("--dispatch", "alpha", "--message", "x", "--check", "beta"), "are two jobs"),
        (("--dispatch", "alpha", "--message", "x", "--session", "isolated"), "leave --session away"),
        (("--dispatch", "new", "--message", "x", "--create", "--clone", "."), "a path here may be gone then"),
        (("--dispatch", "new", "--message", "x", "--create", "--branch", "b"), "give both"),
        (("--message", "x", "--wake", "none"), "any other job is there to wake"),
        (("--check", "Alpha"), "is no workspace name"),
    ],
)
def test_what_cannot_be_meant(agent: FakeAgent, perry_: Perry, arguments: tuple[str, ...], said: str) -> None:
    result = perry_("cron", "add", "--at", "20m", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert agent.calls == []


def test_the_names_of_clawdbots_commands(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers |= {
        "cron.add": job(at=NOW, next=NOW), "cron.remove": job(), "cron.run": run(),
        "cron.history": JobRuns(items=[run()], more=False),
    }  # fmt: skip
    for arguments in (
        ("create", "--name", "fb", "--at", "20m", "--message", "x"),
        ("rm", "fb"),
        ("run", "fb", "--force"),
        ("runs", "--id", "fb", "--limit", "3"),
    ):
        assert perry_("cron", *arguments).exit_code == 0, arguments
    assert [call for call, _ in agent.calls] == ["cron.add", "cron.remove", "cron.run", "cron.history"]
    assert agent.calls[-1][1] == {"job": "fb", "limit": 3}


def test_what_jobs_do_is_shown(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["cron.list"] = Jobs(
        items=[
            job("one", every=60.0, action="check", workspace="alpha", text="check alpha"),
            job("two", every=60.0, action="check", workspace="alpha", text="Issue 78."),
            job("three", every=60.0, action="dispatch", workspace="beta", agent="claude", text="Sweep"),
            job("four", every=60.0, session="isolated"),
        ]
    )
    shown = perry_("cron", "list").stdout.splitlines()[1:]
    assert [line.partition("every 1m")[2].strip() for line in shown] == [
        "check alpha", "check alpha: Issue 78.", "claude in beta: Sweep", "Look. (in a session of its own)",
    ]  # fmt: skip


def test_a_refusal_is_the_agents_own_sentence(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["cron.add"] = refuses(ErrorCode.BAD_REQUEST, "Every 1s is too often; 10s is the least.")
    result = perry_("cron", "add", "--every", "1s", "--message", "x")
    assert (result.exit_code, result.stderr) == (2, "Error: Every 1s is too often; 10s is the least.\n")


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"at": NOW, "delete_after_run": True}, "fallback runs in 20 min (HH:MM), once, and is forgotten then.\n"),
        ({"every": 5400.0}, "fallback runs in 20 min (HH:MM), and every 1h30m.\n"),
        ({"cron": "0 9 * * *", "tz": "UTC"}, "fallback runs in 20 min (HH:MM), by '0 9 * * *' in UTC.\n"),
    ],
)
def test_add_says_when_it_runs(agent: FakeAgent, perry_: Perry, added: dict[str, Any], said: str) -> None:
    due = datetime.now(UTC) + timedelta(minutes=20, seconds=1)
    agent.answers["cron.add"] = job(next=due, **added)
    clock = times.on_the_clock(due, datetime.now(UTC))
    assert perry_("cron", "add", "--at", "20m", "--message", "x").stdout == said.replace("HH:MM", clock)


def test_list(agent: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    pages = {
        None: Jobs(items=[job(next=now + timedelta(minutes=19, seconds=1), at=now)], next_cursor="1"),
        "1": Jobs(
            items=[
                job("a\x1b[31m name", next=None, at=now, last=run(ended=now - timedelta(hours=2, seconds=1))),
                job("x" * 60, every=60.0, next=now, last=run(outcome=Outcome.FAILED, ended=now, detail="No gateway.")),
            ]
        ),
    }
    agent.answers["cron.list"] = lambda wanted: pages[wanted.get("cursor")]
    shown = perry_("cron", "list").stdout
    assert "\x1b" not in shown
    lines = shown.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "fallback", "a", "x" * 60, "└"]
    assert "in 19 min (" in lines[1]
    assert "never" in lines[2]
    assert "ok, 2 h ago" in lines[2]
    assert lines[4] == "  └ No gateway."
    # On a terminal no name is so long that the rest is out of sight.
    monkeypatch.setattr(output, "width", lambda stream=None: 80)
    lines = perry_("cron", "list").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[5].startswith("x" * 23 + "…  now")
    assert "WHAT" not in lines[0] and lines[2] == lines[4] == lines[6] == "  Look."


def test_no_jobs(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["cron.list"] = Jobs(items=[])
    result = perry_("cron", "list")
    assert (result.stdout, result.stderr.split(";")[0]) == ("", "There are no jobs")
    assert perry_("cron", "list", "--json").stdout == "[]\n"


def test_run_tells_by_its_exit_code(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["cron.run"] = run()
    assert perry_("cron", "run", "fallback").stdout == "fallback ran: w-1.\n"
    agent.answers["cron.run"] = run(outcome=Outcome.FAILED, detail="No gateway.")
    result = perry_("cron", "run", "fallback")
    assert (result.exit_code, result.stderr) == (1, "Error: fallback failed: No gateway.\n")


def test_history(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["cron.history"] = JobRuns(
        items=[run(started=NOW + timedelta(hours=3)), run(by_hand=True), run(outcome=Outcome.RUNNING, detail=None)],
        more=True,
    )
    result = perry_("cron", "history", "fallback", "--limit", "3")
    assert agent.calls[-1] == ("cron.history", {"job": "fallback", "limit": 3})
    lines = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    assert lines[1][0] == "2026-11-21 14:00:00"
    assert "3 h" in lines[1]
    assert "ok, by hand" in lines[2]
    assert "running" in lines[3]
    assert result.stderr == "There are more; --limit shows more than 3.\n"


def test_remove(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["cron.remove"] = lambda wanted: job(wanted["job"])
    assert perry_("cron", "remove", "a", "b").stdout == "a is removed.\nb is removed.\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (1140, "19 min"), (5400, "2 h"), (79200, "22 h"), (200000, "2 d")],
)
def test_spans(seconds: float, text: str) -> None:
    assert times.span(seconds) == text


@pytest.mark.parametrize(
    ("utc", "text"),
    [
        ("2026-11-21T10:20+00:00", "11:20"),
        ("2026-11-22T08:00+00:00", "Sun 09:00"),
        ("2026-11-21T23:30+00:00", "Sun 00:30"),
        ("2026-12-01T08:00+00:00", "2026-12-01 09:00"),
        ("2027-07-01T08:00+00:00", "2027-07-01 10:00"),
        ("2026-11-20T08:00+00:00", "2026-11-20 09:00"),
    ],
)
def test_times_are_on_the_persons_clock(utc: str, text: str) -> None:
    assert times.on_the_clock(datetime.fromisoformat(utc), NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(10, "10s"), (5400, "1h30m"), (86400, "1d"), (90061.5, "1d1h1m1.5s"), (0, "0s")]
)
def test_intervals_are_shown_as_they_are_written(seconds: float, text: str) -> None:
    assert times.interval(seconds) == text
