"""What people ask of cron, and what they are refused."""

from datetime import timedelta
from typing import Any

import pytest

from controlplane.cron import service
from controlplane.cron.actions import Wake
from controlplane.errors import Conflict, InvalidInput, NotFound, PerryError
from protocol.cron import AddJob, JobRef, ListJobs, ReadHistory
from protocol.tasks import DispatchTask
from protocol.wake import SessionTarget, WakeMode
from tests.unit.cron.clock import START, FakeClock
from tests.unit.cron.conftest import System

pytestmark = pytest.mark.anyio


def task(workspace: str = "alpha", **more: Any) -> DispatchTask:
    return DispatchTask(**{"workspace": workspace, "task": "Sweep the floor"} | more)


def test_what_is_added_is_shown(idle: System, clock: FakeClock) -> None:
    clock.passes(microseconds=1)
    added = idle.cron.add(
        AddJob(
            name="morning", cron="0 9 * * *", tz="Europe/Berlin", system_event="Hello.", wake=WakeMode.NEXT_HEARTBEAT
        )
    )
    assert (added.name, added.cron, added.tz, added.text) == ("morning", "0 9 * * *", "Europe/Berlin", "Hello.")
    assert (added.action, added.wake, added.session, added.last) == ("wake", "next-heartbeat", "main", None)
    assert added.next is not None
    assert added.next.isoformat() == "2026-11-22T08:00:00+00:00"
    assert idle.cron.list(ListJobs()).items == [added]


def test_what_jobs_are_about_is_shown(idle: System) -> None:
    check = idle.cron.add(AddJob(at="20m", check="alpha", session=SessionTarget.ISOLATED))
    assert (check.name, check.action, check.workspace, check.session) == ("check-alpha", "check", "alpha", "isolated")
    sweep = idle.cron.add(AddJob(every="1d", dispatch=task("new", create=True, agent="claude", key="k")))
    assert (sweep.name, sweep.action, sweep.workspace) == ("sweep-the-floor", "dispatch", "new")
    assert (sweep.agent, sweep.text, sweep.wake, sweep.session) == ("claude", "Sweep the floor", "now", None)


@pytest.mark.parametrize(
    ("wanted", "error", "said"),
    [
        (AddJob(at="20m"), InvalidInput, "not said what to do; give --message"),
        (AddJob(at="20m", message=" \n"), InvalidInput, "not said what to do"),
        (AddJob(at="20m", message="x", system_event="y"), InvalidInput, "two words for the same"),
        (AddJob(at="20m", message="x" * 1_000_000), InvalidInput, "has 976 KB, and 64 KB are the most"),
        (AddJob(at="20m", message="ä" * 40_000), InvalidInput, "has 78 KB"),
        (AddJob(message="x"), InvalidInput, "not said when to run"),
        (AddJob(at="2020-01-01T00:00Z", message="x"), InvalidInput, "in the past; write a time to come"),
        (AddJob(every="1h", message="x", delete_after_run=True), InvalidInput, "is for a job with --at"),
        (AddJob(at="1m", check="beta"), NotFound, "no workspace 'beta'; `perry list`"),
        (AddJob(at="1m", dispatch=task("beta")), NotFound, "no workspace 'beta'"),
        (AddJob(at="1m", dispatch=task(), message="x"), InvalidInput, "are three jobs; add one for each"),
        (AddJob(at="1m", dispatch=task(), check="alpha"), InvalidInput, "are three jobs"),
        (AddJob(at="1m", dispatch=task(), session=SessionTarget.ISOLATED), InvalidInput, "always to the main session"),
        (AddJob(at="1m", dispatch=task(), wake=WakeMode.NEXT_HEARTBEAT), InvalidInput, "is said with the task"),
        (AddJob(at="1m", dispatch=task(task=" ")), InvalidInput, "The task is empty"),
        (AddJob(at="1m", dispatch=task("new", clone="https://x/y")), InvalidInput, "add `create`"),
        (AddJob(at="1m", dispatch=task("new", create=True, clone="-x")), InvalidInput, "no repository that git"),
        (
            AddJob(at="1m", dispatch=task("new", create=True, clone="upload:" + "0" * 32)),
            InvalidInput,
            "may be gone then; give a URL",
        ),
        (AddJob(name="", at="20m", message="x"), InvalidInput, "A name has 1 to 64 characters"),
        (AddJob(name=" a", at="20m", message="x"), InvalidInput, "A name has"),
        (AddJob(name="a\nb", at="20m", message="x"), InvalidInput, "on one line"),
        (AddJob(name="x" * 65, at="20m", message="x"), InvalidInput, "A name has"),
        (AddJob(name="there", at="20m", message="x"), Conflict, "a job 'there' already; choose another --name"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(idle: System, wanted: AddJob, error: type[PerryError], said: str) -> None:
    idle.cron.add(AddJob(name="there", every="1h", message="x"))
    with pytest.raises(error, match=said):
        idle.cron.add(wanted)
    assert len(idle.cron.list(ListJobs()).items) == 1


def test_a_text_goes_through_as_it_is(idle: System, clock: FakeClock) -> None:
    text = 'it\'s $(rm -rf ~) `x` "quoted"\n\t😀 ä \\n'
    idle.cron.add(AddJob(at="1m", message=text))
    clock.passes(minutes=1)
    (run,) = idle.store.begin_due(clock.now(), 10)
    assert run.action == Wake(text=text)


def test_names_are_made_up_of_the_message(idle: System) -> None:
    names = [idle.cron.add(AddJob(at="20m", message="Fallback check: is it done?")).name for _ in range(11)]
    assert names[:2] == ["fallback-check-is", "fallback-check-is-2"]
    assert len(set(names)) == 11
    assert idle.cron.add(AddJob(at="20m", message="😀")).name == "job"


async def test_a_name_is_free_again_once_its_job_will_not_run_again(system: System, clock: FakeClock) -> None:
    first = system.cron.add(AddJob(name="fb", at="1m", message="one"))
    clock.passes(minutes=1)
    await system.settles()
    second = system.cron.add(AddJob(name="fb", at="1m", message="two"))
    assert [job.id for job in system.cron.list(ListJobs()).items] == [second.id]
    assert [run.job_id for run in system.cron.history(ReadHistory(job="fb")).items] == [first.id]


def test_asked_twice_with_a_key_it_is_one_job(idle: System, clock: FakeClock) -> None:
    wanted = AddJob(at="20m", message="x", key="k1")
    first = idle.cron.add(wanted)
    clock.passes(minutes=5)
    assert idle.cron.add(wanted) == first
    assert idle.store.count() == 1


def test_there_are_only_so_many(idle: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "JOBS", 2)
    for _ in range(2):
        idle.cron.add(AddJob(every="1h", message="x"))
    with pytest.raises(Conflict, match="which is the most; `perry cron remove`"):
        idle.cron.add(AddJob(every="1h", message="x"))


def test_pages(idle: System) -> None:
    for number in range(5):
        idle.cron.add(AddJob(name=f"{number}", at=f"{9 - number}m", message="x"))
    first = idle.cron.list(ListJobs(limit=3))
    rest = idle.cron.list(ListJobs(limit=3, cursor=first.next_cursor))
    assert [job.name for job in first.items + rest.items] == ["4", "3", "2", "1", "0"]
    assert rest.next_cursor is None


async def test_pages_of_history(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="a", every="1m", message="x"))
    for _ in range(5):
        clock.passes(minutes=1)
        await system.settles()
    first = system.cron.history(ReadHistory(limit=3))
    rest = system.cron.history(ReadHistory(limit=3, before=first.items[-1].id))
    assert (first.more, rest.more) == (True, False)
    dues = [run.due for run in first.items + rest.items]
    assert dues == [START + timedelta(minutes=number) for number in (5, 4, 3, 2, 1)]


def test_what_is_not_there(idle: System) -> None:
    with pytest.raises(NotFound, match="no job 'none'; `perry cron list`"):
        idle.cron.remove(JobRef(job="none"))
    with pytest.raises(NotFound, match="no job 'none'"):
        idle.cron.history(ReadHistory(job="none"))
    with pytest.raises(NotFound, match="no run 'none' any more"):
        idle.cron.history(ReadHistory(before="none"))
    assert idle.cron.history(ReadHistory()).items == []


def test_a_job_is_found_by_its_id(idle: System) -> None:
    added = idle.cron.add(AddJob(name="a", at="20m", message="x"))
    assert idle.cron.remove(JobRef(job=added.id)).name == "a"
    assert idle.cron.list(ListJobs()).items == []
