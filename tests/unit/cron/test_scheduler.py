"""Each job runs once: on time, late, over restarts, over kills, and whatever the clock does."""

import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from controlplane.cron import scheduler, spelling, store
from controlplane.cron.store import Ended
from protocol.cron import AddJob, JobRef, JobRun, ListJobs, Outcome, ReadHistory
from tests.unit.cron.clock import START, FakeClock
from tests.unit.cron.conftest import Assistant, NoWakes, System
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_it_runs_when_it_is_due_and_not_before(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(at="20m", message="Look after it."))
    clock.passes(minutes=19, seconds=59)
    await system.settles()
    assert system.assistant.texts == []
    clock.passes(seconds=1)
    await system.settles()
    assert system.assistant.texts == ["Look after it."]
    clock.passes(days=400)
    await system.settles()
    assert len(system.assistant.wakes) == 1


async def test_real_time_goes_by(tmp_path: Path, assistant: Assistant) -> None:
    """Nobody nudges: the scheduler wakes up by itself."""
    system = System(tmp_path / "state.db", FakeClock(running=True), assistant)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(system.scheduler.run)
        await anyio.lowlevel.checkpoint()
        system.cron.add(AddJob(at="0.2s", message="soon"))
        await until(lambda: assistant.texts, "it ran")
        assert (system.clock.now() - START).total_seconds() >= 0.2
        tasks.cancel_scope.cancel()
    system.database.close()


async def test_an_interval_goes_on(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="hourly", every="1h", message="again"))
    for _ in range(3):
        clock.passes(hours=1)
        await system.settles()
    assert list(system.assistant.wakes) == [f"cron-{run.id}" for run in reversed(history(system))]
    assert [f"wake {id_}" for id_ in system.assistant.wakes] == [run.detail for run in reversed(history(system))]
    assert len(system.assistant.wakes) == 3


async def test_what_was_missed_runs_once_and_says_that_it_is_late(idle: System, clock: FakeClock) -> None:
    for job in (
        AddJob(at="20m", message="at"),
        AddJob(every="1h", message="every"),
        AddJob(cron="*/5 * * * *", message="cron"),
    ):
        idle.cron.add(job)
    clock.passes(days=3)
    await run_for_a_while(idle)
    assert sorted(text.splitlines()[0] for text in idle.assistant.texts) == ["at", "cron", "every"]
    assert "(This was due at 2026-11-21 10:20 UTC, and comes late.)" in "\n".join(idle.assistant.texts)
    later = [job.next for job in idle.cron.list(ListJobs()).items]
    assert all(time is None or time > clock.now() for time in later)
    await run_for_a_while(idle)
    assert len(idle.assistant.wakes) == 3


async def test_more_than_one_batch_at_the_same_moment(system: System, clock: FakeClock) -> None:
    count = scheduler.BATCH * 3 + 1
    for number in range(count):
        system.cron.add(AddJob(name=f"job {number}", at="1m", message=f"text {number}"))
    clock.passes(minutes=1)
    await system.settles()
    assert Counter(system.assistant.texts) == Counter(f"text {number}" for number in range(count))


async def test_one_that_takes_long_holds_up_no_other(system: System, clock: FakeClock) -> None:
    slow, release = anyio.Event(), anyio.Event()
    plain = system.assistant.wake

    async def wake(text: str, **more: Any) -> str:
        if text == "slow":
            slow.set()
            await release.wait()
        return await plain(text, **more)

    system.assistant.wake = wake  # type: ignore[method-assign]
    system.cron.add(AddJob(at="1m", message="slow"))
    system.cron.add(AddJob(at="2m", message="quick"))
    clock.passes(minutes=1)
    system.scheduler.nudge()
    with anyio.fail_after(20):
        await slow.wait()
    clock.passes(minutes=1)
    system.scheduler.nudge()
    await until(lambda: system.assistant.texts == ["quick"], "the quick one is done")
    release.set()
    await system.settles()
    assert system.assistant.texts == ["quick", "slow"]


# --- what becomes of a run


async def test_delete_after_run(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="gone", at="1m", message="x", delete_after_run=True))
    system.cron.add(AddJob(name="stays", at="1m", message="y"))
    clock.passes(minutes=1)
    await system.settles()
    (job,) = system.cron.list(ListJobs()).items
    assert (job.name, job.next, job.last and job.last.outcome) == ("stays", None, Outcome.OK)
    assert {run.job for run in history(system)} == {"gone", "stays"}


async def test_a_failure_is_kept_with_its_reason(system: System, clock: FakeClock) -> None:
    system.assistant.refuses = NoWakes("No assistant is set up.")
    system.cron.add(AddJob(name="fails", at="1m", message="x", delete_after_run=True))
    clock.passes(minutes=1)
    await system.settles()
    (job,) = system.cron.list(ListJobs()).items
    assert job.last is not None
    assert (job.last.outcome, job.last.detail) == (Outcome.FAILED, "No assistant is set up.")


async def test_a_defect_fails_one_run_and_nothing_else(
    system: System, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    system.assistant.refuses = ZeroDivisionError()
    system.cron.add(AddJob(name="breaks", every="1m", message="x"))
    clock.passes(minutes=1)
    await system.settles()
    system.assistant.refuses = None
    clock.passes(minutes=1)
    await system.settles()
    assert [run.outcome for run in history(system)] == [Outcome.OK, Outcome.FAILED]
    assert "ZeroDivisionError" in caplog.text


async def test_run_by_hand_changes_nothing_else(system: System, clock: FakeClock) -> None:
    added = system.cron.add(AddJob(name="tomorrow", at="24h", message="x", delete_after_run=True))
    run = await system.cron.run(JobRef(job="tomorrow"))
    assert (run.outcome, run.by_hand, run.job_id) == (Outcome.OK, True, added.id)
    (job,) = system.cron.list(ListJobs()).items
    assert job.next == added.next
    clock.passes(hours=24)
    await system.settles()
    assert len(system.assistant.wakes) == 2
    assert system.cron.list(ListJobs()).items == []


async def test_one_that_is_removed_does_not_run(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="off", at="1m", message="x"))
    system.cron.remove(JobRef(job="off"))
    clock.passes(minutes=2)
    await system.settles()
    assert system.assistant.asked == 0


async def test_history_is_bounded(system: System, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "KEPT_RUNS", 3)
    for name in ("a", "b"):
        system.cron.add(AddJob(name=name, every="1m", message=name))
    for _ in range(6):
        clock.passes(minutes=1)
        await system.settles()
    runs = history(system)
    assert Counter(run.job for run in runs) == {"a": 3, "b": 3}
    monkeypatch.setattr(store, "KEPT_IN_ALL", 5)
    system.cron.add(AddJob(name="c", every="1m", message="c"))
    system.cron.remove(JobRef(job="a"))
    for _ in range(3):
        clock.passes(minutes=1)
        await system.settles()
    assert len(history(system)) <= 5


async def test_a_zone_that_is_gone_holds_up_nobody_else(
    system: System, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with another version of the database of zones."""
    system.cron.add(AddJob(name="gone", cron="* * * * *", tz="Europe/Berlin", message="x"))
    system.cron.add(AddJob(name="there", every="1m", message="y"))
    monkeypatch.setattr(spelling, "_zones", lambda: frozenset({"UTC"}))
    clock.is_set(days=-3)
    clock.passes(days=4)
    await system.settles()
    assert system.assistant.texts[0].startswith("y")
    gone = next(job for job in system.cron.list(ListJobs()).items if job.name == "gone")
    assert gone.next is None
    assert gone.last is not None
    assert gone.last.detail is not None
    assert gone.last.detail.startswith("When it is due next cannot be told: There is no time zone 'Europe/Berlin'")


# --- the clock


@pytest.mark.parametrize("by", [-300, -1, 1, 300])
async def test_the_clock_is_set_and_intervals_do_not_notice(system: System, clock: FakeClock, by: int) -> None:
    system.cron.add(AddJob(name="once", at="20m", message="once"))
    system.cron.add(AddJob(name="every", every="30m", message="every"))
    clock.passes(minutes=10)
    clock.is_set(days=by)
    await system.settles()
    assert system.assistant.texts == []
    clock.passes(minutes=10)
    await system.settles()
    assert system.assistant.texts == ["once"]
    clock.passes(minutes=10)
    await system.settles()
    assert system.assistant.texts == ["once", "every"]


async def test_the_clock_is_set_forward_over_a_time_of_day(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="noon", cron="0 12 * * *", message="noon"))
    clock.is_set(days=10)
    await system.settles()
    assert len(system.assistant.wakes) == 1
    assert next_of(system, "noon") == "2026-12-01T12:00:00+00:00"


async def test_the_clock_is_set_back_over_a_time_of_day(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="half past", cron="30 10 * * *", message="x"))
    clock.passes(minutes=40)
    await system.settles()
    clock.is_set(minutes=-30)
    await system.settles()
    clock.passes(minutes=30)
    await system.settles()
    assert len(system.assistant.wakes) == 1
    assert next_of(system, "half past") == "2026-11-22T10:30:00+00:00"


async def test_a_clock_that_was_years_ahead_at_start(idle: System, clock: FakeClock) -> None:
    clock.is_set(days=3000)
    idle.cron.add(AddJob(name="hourly", every="1h", message="x"))
    idle.cron.add(AddJob(name="daily", cron="0 12 * * *", message="x"))
    clock.is_set(days=-3000)
    await run_for_a_while(idle)
    assert next_of(idle, "hourly") == "2026-11-21T11:00:00+00:00"
    assert next_of(idle, "daily") == "2026-11-21T12:00:00+00:00"


# --- ends anywhere


async def test_a_run_whose_end_was_not_noted_is_done_again_under_its_id(
    idle: System, tmp_path: Path, clock: FakeClock
) -> None:
    idle.cron.add(AddJob(name="once", at="1m", message="x", delete_after_run=True))
    clock.passes(minutes=2)
    (begun,) = idle.store.begin_due(clock.now(), 10)
    assert idle.store.begin_due(clock.now(), 10) == []
    idle.database.close()
    again = System(tmp_path / "state.db", clock, idle.assistant)
    await run_for_a_while(again)
    assert list(idle.assistant.wakes) == [f"cron-{begun.id}"]
    assert again.cron.list(ListJobs()).items == []
    again.database.close()


async def test_a_job_that_is_removed_while_it_runs_is_done(idle: System, clock: FakeClock) -> None:
    idle.cron.add(AddJob(name="once", at="1m", message="x"))
    clock.passes(minutes=2)
    (begun,) = idle.store.begin_due(clock.now(), 10)
    idle.cron.remove(JobRef(job="once"))
    assert [run.id for run in idle.store.open()] == [begun.id]
    idle.store.end([Ended(begun.id, clock.now(), False, None)])
    assert idle.store.open() == []


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_killed_at_the_action(tmp_path: Path, moment: str) -> None:
    """Three jobs, and a kill at the action of each: all are done, none under two ids."""
    argv = [sys.executable, "-m", "tests.unit.cron.killed", str(tmp_path), moment]
    deaths = 0
    for _ in range(10):
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(argv, timeout=60, check=False, capture_output=True)
        )
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr.decode()
        deaths += 1
    assert deaths == 3
    assert len(set((tmp_path / "done").read_text().split())) == 3


async def test_a_full_disk_delays_and_loses_nothing(
    system: System, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.01)
    system.cron.add(AddJob(at="1m", message="x"))
    plain = system.store.begin_due, system.store.end
    full = sqlite3.OperationalError("database or disk is full")

    def fails(*_: object) -> None:
        raise full

    monkeypatch.setattr(system.store, "begin_due", fails)
    monkeypatch.setattr(system.store, "end", fails)
    clock.passes(minutes=1)
    system.scheduler.nudge()
    await anyio.sleep(0.05)
    assert system.assistant.asked == 0
    monkeypatch.setattr(system.store, "begin_due", plain[0])
    await until(lambda: system.assistant.asked, "it is done")
    await anyio.sleep(0.05)
    monkeypatch.setattr(system.store, "end", plain[1])
    await system.settles()
    assert (system.assistant.asked, history(system)[0].outcome) == (1, Outcome.OK)


def history(system: System) -> list[JobRun]:
    return system.cron.history(ReadHistory(limit=500)).items


def next_of(system: System, name: str) -> str | None:
    found = next(job.next for job in system.cron.list(ListJobs()).items if job.name == name)
    return None if found is None else found.isoformat()


async def run_for_a_while(system: System) -> None:
    """A run of the control plane, until what is due is done."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(system.scheduler.run)
        await anyio.sleep(0.01)
        await system.settles()
        tasks.cancel_scope.cancel()
