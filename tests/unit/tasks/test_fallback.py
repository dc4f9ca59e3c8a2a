"""Looking where nobody tells: stalls found, fallbacks that wake once, and what a person is told now."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from controlplane.errors import InvalidInput, NotFound, PerryError
from controlplane.tasks.fallback import Fallback
from controlplane.tasks.looking import Looker
from protocol.sessions import (
    ListMessages,
    ListSessions,
    Message,
    MessageRole,
    Messages,
    SessionInfo,
    SessionRef,
    SessionStatus,
    Text,
)
from protocol.sessions import Sessions as SessionsPage
from protocol.tasks import CheckTask, Commit, Task, TaskState, WakeWhen
from protocol.worker import LookAtTask, Request, Result, TaskLook
from tests.unit.tasks.conftest import FakeLink, Scene


class FakeSessions:
    """One session at most."""

    def __init__(self) -> None:
        self.info: SessionInfo | None = None
        self.said = "I am at it."

    def _must(self) -> SessionInfo:
        if self.info is None:
            raise NotFound("There is no such session.")
        return self.info

    async def get(self, wanted: SessionRef) -> SessionInfo:
        return self._must()

    async def messages(self, wanted: ListMessages) -> Messages:
        message = Message(ordinal=1, id="1", role=MessageRole.ASSISTANT, blocks=[Text(text=self.said)])
        return Messages(items=[message], more_before=False, more_after=False)

    async def list_(self, wanted: ListSessions) -> SessionsPage:
        return SessionsPage(items=[] if self.info is None else [self.info])


class Watch:
    """A task under way, and a clock that the test sets."""

    def __init__(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scene = scene
        self.sessions = FakeSessions()
        self.look = TaskLook(processes=2, cpu=1.0, log_size=10, log_tail="…", commits=0, changed=0)
        self.began = self.now = datetime.now(UTC)
        scene_ask = FakeLink.ask

        async def ask(link: FakeLink, request: Request) -> Result:
            if isinstance(request, LookAtTask) and not link.gone:
                link.asked.append(request)
                return self.look
            return await scene_ask(link, request)

        class Clock(datetime):
            @classmethod
            def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
                return self.now

        monkeypatch.setattr(FakeLink, "ask", ask)
        monkeypatch.setattr("controlplane.tasks.looking.datetime", Clock)
        self.restart()

    def restart(self) -> None:
        """Another run of the control plane."""
        scene = self.scene
        self.fallback = Fallback(
            scene.store,
            Looker(scene.workers.link, self.sessions),
            scene.waker,
            scene.dispatcher.changed,
            scene.workspaces,
            problem=scene.dispatcher.problem,
            every=timedelta(minutes=20),
            stall=timedelta(minutes=10),
            now=lambda: self.now,
        )

    async def begin(self, **wishes: Any) -> Task:
        self.worker = self.scene.running("alpha")
        async with self.scene.at_work():
            task = await self.scene.dispatch(**wishes)
            await self.scene.until(task.id, TaskState.RUNNING)
        return task

    async def after(self, minutes: float) -> None:
        self.now = self.began + timedelta(minutes=minutes)
        await self.fallback.look_at_all()

    def state(self, task: Task) -> TaskState:
        record = self.scene.store.get(task.id)
        assert record is not None
        return record.state


@pytest.fixture
def watch(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(scene, monkeypatch)


async def test_a_stall_is_found_told_once_and_over_when_it_moves(watch: Watch) -> None:
    task = await watch.begin()
    await watch.after(0.5)
    await watch.after(10)
    assert watch.state(task) is TaskState.RUNNING
    await watch.after(10.6)
    assert watch.state(task) is TaskState.STALLED
    await watch.after(11)
    await watch.after(21)
    (id_,) = watch.scene.waker.wakes
    assert id_ == f"{task.id}-stalled-1"
    assert (
        "has stalled" in watch.scene.waker.wakes[id_] and f"perry tasks logs {task.id}" in watch.scene.waker.wakes[id_]
    )
    watch.look = TaskLook(processes=2, cpu=1.0, log_size=99, commits=0, changed=0)
    await watch.after(21.5)
    assert watch.state(task) is TaskState.RUNNING
    await watch.after(32)
    assert list(watch.scene.waker.wakes) == [f"{task.id}-stalled-1", f"{task.id}-stalled-2"]


async def test_restarts_hide_no_stall_and_repeat_nothing(watch: Watch) -> None:
    task = await watch.begin()
    for minutes in (0.5, 5, 10.6, 15, 25):
        await watch.after(minutes)
        watch.restart()
    assert list(watch.scene.waker.wakes) == [f"{task.id}-stalled-1"]
    # Found within a minute of its threshold, and not of the restart's.
    assert "for 10 min" in watch.scene.waker.wakes[f"{task.id}-stalled-1"]


async def test_what_a_hostile_worker_sees_is_kept_within_bounds(watch: Watch) -> None:
    task = await watch.begin()
    long = "x\x1b" * 500_000
    watch.look = TaskLook(
        processes=2, log_size=10, log_tail=f"{long}the end", last=Commit(id=long, subject=long), commits=0, changed=0
    )
    await watch.after(0.5)
    assert len(watch.scene.store.looks()[task.id]) < 1000
    record = watch.scene.store.get(task.id)
    assert record is not None
    seen = await Looker(watch.scene.workers.link, watch.sessions).at_task(record)
    assert seen.log is not None and len(seen.log.tail) <= 4096 and seen.log.tail.endswith("the end")
    assert seen.checkout is not None and seen.checkout.last is not None and "\x1b" not in seen.checkout.last.subject


async def test_looks_that_did_not_change_are_not_saved_again(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[list[str]] = []
    real = watch.scene.store.save_looks

    def save_looks(looks: Mapping[str, str]) -> None:
        saved.append(list(looks))
        real(looks)

    monkeypatch.setattr(watch.scene.store, "save_looks", save_looks)
    task = await watch.begin()
    for minutes in (0.5, 0.5, 1):
        await watch.after(minutes)
    watch.restart()
    await watch.after(1)
    assert saved == [[task.id], [], [task.id], []]


async def test_work_that_nobody_saw_is_no_standstill(watch: Watch) -> None:
    """As that of a task while the control plane was away."""
    task = await watch.begin()
    await watch.after(0.5)
    watch.look = TaskLook(processes=2, cpu=60.0, log_size=10, commits=0, changed=0)
    await watch.after(60)
    assert watch.state(task) is TaskState.RUNNING
    assert watch.scene.waker.wakes == {}


async def test_what_is_stopped_is_said_so(watch: Watch) -> None:
    task = await watch.begin()
    watch.look = TaskLook(processes=2, stopped=2, cpu=1.0, log_size=10, commits=0, changed=0)
    await watch.after(0.5)
    await watch.after(11)
    assert "kill -STOP" in watch.scene.waker.wakes[f"{task.id}-stalled-1"]
    checked = await watch.fallback.check(CheckTask(id=task.id))
    assert checked.conclusion == "stalled" and checked.task is not None and checked.quiet > 600


async def test_an_agent_that_finished_silently_is_told_of_when_the_fallback_is_due(watch: Watch) -> None:
    task = await watch.begin(agent="opencode")
    record = watch.scene.store.get(task.id)
    assert record is not None
    watch.look = TaskLook(
        processes=1, cpu=1.0, log_size=10, last=Commit(id="abcdef1", subject="Fix it"), commits=1, changed=0
    )
    await watch.after(0.5)
    watch.look = TaskLook(processes=0, cpu=1.0, log_size=10, last=watch.look.last, commits=1, changed=0)
    await watch.after(19)
    assert watch.scene.waker.wakes == {}
    await watch.after(20.1)
    (text,) = watch.scene.waker.wakes.values()
    assert "finished and told nobody" in text and "abcdef1 “Fix it”" in text
    await watch.after(41)
    assert len(watch.scene.waker.wakes) == 1


async def test_what_works_wakes_nobody(watch: Watch) -> None:
    task = await watch.begin()
    for minutes in range(1, 100, 3):
        watch.look = TaskLook(processes=2, cpu=float(minutes * 30), log_size=10, commits=0, changed=0)
        await watch.after(minutes)
    assert watch.scene.waker.wakes == {} and watch.state(task) is TaskState.RUNNING
    record = watch.scene.store.get(task.id)
    assert record is not None and record.checks == 4


@pytest.mark.parametrize("wishes", [{"wake": "none"}, {"fallback": 0.0}])
async def test_no_fallback_where_none_is_wished(watch: Watch, wishes: dict[str, object]) -> None:
    given = {"wake": WakeWhen.NONE} if "wake" in wishes else wishes
    await watch.begin(**given)
    watch.worker.gone = True
    for minutes in (1, 21, 41):
        await watch.after(minutes)
    assert watch.scene.waker.wakes == {}


async def test_a_workspace_that_cannot_be_reached(watch: Watch) -> None:
    task = await watch.begin(fallback=60.0)
    watch.scene.workers.detach("alpha")
    await watch.after(1.1)
    await watch.after(2.1)
    (text,) = watch.scene.waker.wakes.values()
    assert "cannot be looked at" in text and "perry start alpha" in text
    assert watch.state(task) is TaskState.RUNNING


async def test_missed_fallbacks_are_one(watch: Watch) -> None:
    task = await watch.begin()
    watch.look = TaskLook(processes=0, cpu=0.0, commits=1, changed=0)
    await watch.after(501)
    assert list(watch.scene.waker.wakes) == [f"{task.id}-fallback-25"]


def known(watch: Watch, status: SessionStatus, minutes_ago: float) -> SessionInfo:
    return SessionInfo(
        workspace="alpha",
        agent="claude",
        session_id="s1",
        title="t",
        status=status,
        message_count=3,
        last_activity=watch.now - timedelta(minutes=minutes_ago),
        live=True,
    )


@pytest.mark.parametrize(
    ("status", "minutes", "conclusion", "words"),
    [
        (SessionStatus.WAITING, 0, "waiting", "The work (claude in alpha) waits for a person"),
        (SessionStatus.IDLE, 180, "finished silently", "it has been idle for 3 h. It said last: “I am at it.”."),
        (SessionStatus.IDLE, 0.5, "working", "its session was active 30 s ago"),
        # A command may take long, and nobody sees here what it uses.
        (SessionStatus.BUSY, 180, "working", "its session was active 3 h ago"),
        (SessionStatus.ERROR, 5, "failed", "its provider answered “I am at it.”"),
    ],
)
async def test_a_look_at_what_nobody_dispatched(
    watch: Watch, status: SessionStatus, minutes: float, conclusion: str, words: str
) -> None:
    watch.worker = watch.scene.running("alpha")
    watch.look = TaskLook(last=Commit(id="abcdef1", subject="Fix it"), commits=0, changed=2)
    watch.sessions.info = known(watch, status, minutes)
    checked = await watch.fallback.check(CheckTask(workspace="alpha"))
    assert (checked.conclusion, checked.task) == (conclusion, None)
    assert words in checked.text
    assert "The last commit is abcdef1 “Fix it”, and 2 files not committed." in checked.text
    watch.scene.workers.detach("alpha")
    assert (await watch.fallback.check(CheckTask(workspace="alpha"))).conclusion == "unreachable"


async def test_what_the_runtime_of_an_agent_that_rests_uses_means_nothing(watch: Watch) -> None:
    watch.worker = watch.scene.running("alpha")
    watch.sessions.info = known(watch, SessionStatus.IDLE, 0)
    for minutes, conclusion in ((0, "working"), (30, "finished silently"), (60, "finished silently")):
        watch.now = watch.began + timedelta(minutes=minutes)
        watch.look = TaskLook(processes=2, cpu=minutes * 10.0, commits=0, changed=0)
        checked = await watch.fallback.check(CheckTask(workspace="alpha"))
        assert (checked.conclusion, round(checked.quiet / 60)) == (conclusion, minutes)


async def test_an_agent_of_a_person_that_was_stopped(watch: Watch) -> None:
    """Its session says that it rests, as it does not say anything any more."""
    watch.worker = watch.scene.running("alpha")
    watch.look = TaskLook(processes=2, stopped=2, cpu=9.0, commits=0, changed=0)
    watch.sessions.info = known(watch, SessionStatus.IDLE, 12)
    checked = await watch.fallback.check(CheckTask(workspace="alpha"))
    assert (checked.conclusion, checked.quiet) == ("stalled", 720.0)
    assert "All of its processes are stopped" in checked.text
    assert watch.worker.asked[-1] == LookAtTask(agent="claude")


async def test_a_busy_session_is_compared_with_the_look_before(watch: Watch) -> None:
    watch.worker = watch.scene.running("alpha")
    watch.sessions.info = known(watch, SessionStatus.BUSY, 1)
    for minutes, cpu, conclusion in ((0, 9.0, "working"), (11, 900.0, "working"), (22, 900.0, "stalled")):
        watch.now = watch.began + timedelta(minutes=minutes)
        watch.look = TaskLook(processes=2, cpu=cpu, commits=0, changed=0)
        assert (await watch.fallback.check(CheckTask(workspace="alpha"))).conclusion == conclusion, minutes


async def test_a_look_at_a_workspace_is_one_at_its_tasks(watch: Watch) -> None:
    first = await watch.begin()
    async with watch.scene.at_work():
        second = await watch.scene.dispatch()
        await watch.scene.until(second.id, TaskState.RUNNING)
    checked = await watch.fallback.check(CheckTask(workspace="alpha"))
    assert checked.conclusion == "working"
    assert first.id in checked.text and second.id in checked.text
    watch.look = TaskLook(processes=2, stopped=2, cpu=1.0, log_size=10, commits=0, changed=0)
    await watch.after(0.5)
    watch.now += timedelta(minutes=15)
    checked = await watch.fallback.check(CheckTask(workspace="alpha"))
    assert checked.conclusion == "stalled" and checked.task is not None


async def test_a_look_at_a_workspace_whose_task_has_ended(watch: Watch) -> None:
    task = await watch.begin()
    async with watch.scene.at_work():
        watch.worker.tell(task.id, TaskState.SUCCEEDED)
        await watch.scene.settled(task.id)
    watch.now = datetime.now(UTC)
    watch.sessions.info = known(watch, SessionStatus.IDLE, 0)
    checked = await watch.fallback.check(CheckTask(workspace="alpha"))
    assert checked.conclusion == "told" and f"Wake {task.id}-succeeded told of it." in checked.text
    # Somebody went on in the session by hand.
    watch.look = TaskLook(commits=0, changed=0)
    watch.now += timedelta(hours=1)
    watch.sessions.info = known(watch, SessionStatus.IDLE, 5)
    assert (await watch.fallback.check(CheckTask(workspace="alpha"))).conclusion == "finished silently"


async def test_an_end_that_was_to_wake_nobody_is_told_to_who_asks(watch: Watch) -> None:
    task = await watch.begin(wake=WakeWhen.NONE)
    async with watch.scene.at_work():
        watch.worker.tell(task.id, TaskState.FAILED, reason="It broke.", exit_code=1)
        await watch.scene.settled(task.id)
    watch.now = datetime.now(UTC) + timedelta(minutes=7)
    checked = await watch.fallback.check(CheckTask(workspace="alpha"))
    assert (checked.conclusion, round(checked.quiet / 60)) == ("failed", 7)
    assert "It broke." in checked.text


async def test_a_look_where_there_is_nothing(watch: Watch) -> None:
    with pytest.raises(NotFound, match="no workspace 'alpha'"):
        await watch.fallback.check(CheckTask(workspace="alpha"))
    watch.scene.running("alpha")
    with pytest.raises(NotFound, match="no session, and no task; `perry dispatch alpha"):
        await watch.fallback.check(CheckTask(workspace="alpha"))


async def test_a_task_that_cannot_begin_is_told_of(watch: Watch) -> None:
    """Its worker is there, and never says that it began."""
    link = watch.scene.running("alpha")
    link.gone = True
    async with watch.scene.at_work():
        task = await watch.scene.dispatch()
        with anyio.fail_after(20):
            while watch.scene.dispatcher.problem(task.id) is None:  # noqa: ASYNC110 — it tells nobody
                await anyio.sleep(0.01)
    await watch.after(10)
    assert watch.scene.waker.wakes == {}
    await watch.after(20.1)
    await watch.after(41)
    ((id_, text),) = watch.scene.waker.wakes.items()
    assert id_ == f"{task.id}-fallback-1"
    assert "has not begun: “The worker of 'alpha' did not say that it began.”." in text and "perry doctor" in text
    assert (await watch.fallback.check(CheckTask(id=task.id))).conclusion == "unreachable"


async def test_a_task_whose_turn_has_not_come_wakes_nobody(watch: Watch) -> None:
    watch.scene.running("alpha")
    task = await watch.scene.dispatch()
    await watch.after(100)
    assert watch.scene.waker.wakes == {}
    assert "waits for its turn" in (await watch.fallback.check(CheckTask(id=task.id))).text


async def test_what_cannot_be_checked(watch: Watch) -> None:
    for wanted in (CheckTask(), CheckTask(id="t-000000000000", workspace="alpha")):
        with pytest.raises(InvalidInput):
            await watch.fallback.check(wanted)
    with pytest.raises(PerryError, match="perry tasks list"):
        await watch.fallback.check(CheckTask(id="t-000000000000"))


async def test_what_has_ended_is_what_it_is(watch: Watch) -> None:
    task = await watch.begin()
    async with watch.scene.at_work():
        watch.worker.tell(task.id, TaskState.SUCCEEDED)
        await watch.scene.settled(task.id)
    checked = await watch.fallback.check(CheckTask(id=task.id))
    assert checked.conclusion == "told" and "succeeded" in checked.text
