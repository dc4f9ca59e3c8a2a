"""What jobs do when they are due: looks that are told once, tasks that do not pile up, and what is said of failures."""

import msgspec
import pytest

from controlplane.errors import Conflict, NotFound
from protocol.cron import AddJob, JobRef, JobRun, Outcome, ReadHistory
from protocol.tasks import Checked, DispatchTask, TaskAgent, WakeWhen
from protocol.wake import SessionTarget, WakeMode
from tests.unit.cron.clock import FakeClock
from tests.unit.cron.conftest import System

pytestmark = pytest.mark.anyio

STALLED = Checked(conclusion="stalled", text="It stands still.", commands=["perry ssh alpha"], quiet=700.0)
TOLD = Checked(conclusion="told", text="It was told of.", commands=[], quiet=0.0)
SWEEP = DispatchTask(workspace="alpha", task="Sweep", agent=TaskAgent.CLAUDE)


async def passes(system: System, clock: FakeClock, minutes: int = 1) -> JobRun:
    """Time, and the latest run by then."""
    clock.passes(minutes=minutes)
    await system.settles()
    return system.cron.history(ReadHistory()).items[0]


async def test_a_check_tells_what_it_found_and_how_to_look_further(system: System, clock: FakeClock) -> None:
    system.looks.finds = STALLED
    system.cron.add(AddJob(name="fb", at="1m", check="alpha", message="About issue 78:", delete_after_run=True))
    run = await passes(system, clock)
    assert system.looks.asked == ["alpha"]
    ((id_, (text, mode)),) = system.assistant.wakes.items()
    assert text == "About issue 78:\nJob fb: It stands still. Look further: `perry ssh alpha`"
    assert (mode, run.outcome, run.detail) == ("now", Outcome.OK, f"stalled; wake {id_}")


async def test_what_is_told_goes_where_that_was_wished(system: System, clock: FakeClock) -> None:
    more = {"session": SessionTarget.ISOLATED, "wake": WakeMode.NEXT_HEARTBEAT}
    system.cron.add(AddJob(at="1m", check="alpha", **more))  # type: ignore[arg-type]
    system.cron.add(AddJob(at="1m", message="Look.", **more))  # type: ignore[arg-type]
    await passes(system, clock)
    assert set(system.assistant.sessions.values()) == {"isolated"}
    assert {mode for _, mode in system.assistant.wakes.values()} == {"next-heartbeat"}


async def test_a_check_that_is_due_once_tells_also_of_work(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(at="1m", check="alpha"))
    assert (await passes(system, clock)).detail == f"working; wake {next(iter(system.assistant.wakes))}"


async def test_what_was_told_of_is_not_told_again(system: System, clock: FakeClock) -> None:
    system.looks.finds = TOLD
    system.cron.add(AddJob(at="1m", check="alpha"))
    assert (await passes(system, clock)).detail == "told"
    assert system.assistant.wakes == {}


async def test_a_check_that_looks_again_and_again_tells_each_thing_once(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="watch", every="1m", check="alpha"))
    assert (await passes(system, clock)).detail == "working"
    system.looks.finds = STALLED
    await passes(system, clock)
    # The same standstill, seen once more.
    assert (await passes(system, clock)).detail == "stalled"
    assert len(system.assistant.wakes) == 1
    # It has moved, and stands still anew.
    system.looks.finds = msgspec.structs.replace(STALLED, quiet=60.0)
    await passes(system, clock)
    assert len(system.assistant.wakes) == 2
    # A person who asks is told in any case.
    await system.cron.run(JobRef(job="watch"))
    assert len(system.assistant.wakes) == 3


@pytest.mark.parametrize("finds", [STALLED, NotFound("There is no workspace named 'alpha'.")])
async def test_what_could_not_be_told_is_told_at_the_next_look(
    system: System, clock: FakeClock, finds: Checked | NotFound
) -> None:
    system.cron.add(AddJob(name="watch", every="1m", check="alpha"))
    system.looks.finds, system.assistant.refuses = finds, Conflict("The outbox is full.")
    run = await passes(system, clock)
    assert (run.outcome, run.detail) == (Outcome.FAILED, "The outbox is full.")
    system.assistant.refuses = None
    await passes(system, clock)
    await passes(system, clock)
    assert len(system.assistant.wakes) == 1


async def test_a_check_that_is_due_once_is_told_also_after_one_by_hand(system: System, clock: FakeClock) -> None:
    system.looks.finds = STALLED
    system.cron.add(AddJob(name="fb", at="1m", check="alpha"))
    await system.cron.run(JobRef(job="fb"))
    await passes(system, clock)
    assert len(system.assistant.wakes) == 2


async def test_a_workspace_that_vanished_before_its_check(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="fb", every="1m", check="alpha"))
    system.looks.finds = NotFound("There is no workspace named 'alpha'.")
    run = await passes(system, clock)
    assert (run.outcome, run.detail) == (Outcome.FAILED, "There is no workspace named 'alpha'.")
    (text,) = system.assistant.texts
    assert text == "Job fb: alpha could not be looked at: “There is no workspace named 'alpha'.”"
    await passes(system, clock)
    assert len(system.assistant.texts) == 1


async def test_a_task_is_dispatched_with_a_key_of_its_run(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="sweep", at="1m", dispatch=SWEEP))
    run = await passes(system, clock)
    assert system.tasks.taken == {f"cron-{run.id}": msgspec.structs.replace(SWEEP, key=f"cron-{run.id}")}
    assert (run.outcome, run.detail, system.assistant.wakes) == (Outcome.OK, "task t-000000000000", {})


async def test_tasks_of_a_job_do_not_pile_up(system: System, clock: FakeClock) -> None:
    system.cron.add(AddJob(name="sweep", every="1m", dispatch=SWEEP))
    system.cron.add(AddJob(name="other", every="90s", dispatch=SWEEP))
    await passes(system, clock)
    run = await passes(system, clock)
    assert len(system.tasks.taken) == 2, "one of each job"
    assert "an earlier run still goes on" in str(system.cron.history(ReadHistory(job="sweep")).items[0].detail)
    system.tasks.ended.update(system.tasks.taken)
    run = await passes(system, clock)
    assert str(run.detail).startswith("task ")
    # A person who runs it means it.
    assert str((await system.cron.run(JobRef(job="sweep"))).detail).startswith("task ")


@pytest.mark.parametrize(("wake", "told"), [(WakeWhen.NOW, 1), (WakeWhen.NONE, 0)])
async def test_a_task_that_cannot_be_dispatched_wakes(
    system: System, clock: FakeClock, wake: WakeWhen, told: int
) -> None:
    system.tasks.refuses = Conflict("The workspace 'alpha' is stopped.")
    system.cron.add(AddJob(name="sweep", at="1m", dispatch=msgspec.structs.replace(SWEEP, wake=wake)))
    run = await passes(system, clock)
    assert (run.outcome, run.detail) == (Outcome.FAILED, "The workspace 'alpha' is stopped.")
    expected = ["Job sweep: its task for alpha was not dispatched: “The workspace 'alpha' is stopped.”"]
    assert system.assistant.texts == expected[:told]


async def test_a_run_that_was_cut_off_is_done_once(idle: System, clock: FakeClock) -> None:
    """As after a kill between the doing and the noting of it."""
    idle.looks.finds = STALLED
    idle.cron.add(AddJob(at="1m", check="alpha"))
    idle.cron.add(AddJob(at="1m", dispatch=SWEEP))
    clock.passes(minutes=1)
    for run in idle.store.begin_due(clock.now(), 10):
        await idle.scheduler._doers[type(run.action)].do(run)
    for run in idle.store.open():
        await idle.scheduler._doers[type(run.action)].do(run)
    assert (len(idle.assistant.wakes), len(idle.tasks.taken)) == (1, 1)
