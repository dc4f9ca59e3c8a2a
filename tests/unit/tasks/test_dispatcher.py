"""Tasks from their turn to their end, and what is owed after it."""

import sqlite3

import anyio
import msgspec
import pytest

from controlplane.db import Database
from controlplane.errors import Conflict, InvalidInput, NotFound, NotReady, TookTooLong, TooLarge, WorkerUnavailable
from controlplane.tasks import service
from controlplane.tasks.state import Record
from protocol.tasks import (
    TASK_LIMIT,
    Commit,
    DispatchTask,
    ListTasks,
    ReadTaskLogs,
    RemoveWhen,
    TaskState,
    WaitForTasks,
    WakeWhen,
)
from protocol.worker import StartTask, TaskOutcome
from protocol.workspaces import Startup, StartupState, Step, StepStatus, WorkspaceStatus
from tests.unit.tasks.conftest import Scene


async def test_a_task_runs_and_its_end_wakes(scene: Scene) -> None:
    worker = scene.running("alpha")
    worker.outcome = TaskOutcome(last_message="Done.", commits=(Commit(id="abcdef1234567", subject="Fix it"),))
    async with scene.at_work():
        task = await scene.dispatch(agent="claude", model="opus", timeout=60)
        assert task.state is TaskState.QUEUED
        await scene.until(task.id, TaskState.RUNNING)
        assert worker.begun() == [StartTask(id=task.id, agent="claude", text="Fix it", model="opus", timeout=60)]
        worker.tell(task.id, TaskState.SUCCEEDED, exit_code=0)
        ended = await scene.settled(task.id)
    assert (ended.state, ended.exit_code) == (TaskState.SUCCEEDED, 0)
    (text,) = scene.waker.wakes.values()
    assert f"Task {task.id} (claude in alpha) is done." in text
    assert "Done." in text and "abcdef1234 “Fix it”" in text and f"perry tasks result {task.id}" in text
    assert worker.forgotten() == [task.id]
    assert [each.state for each in scene.announced][-1] is TaskState.SUCCEEDED


async def test_waiting_wakes_each_time_anew_and_once(scene: Scene) -> None:
    worker = scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        for state in (TaskState.WAITING, TaskState.WAITING, TaskState.RUNNING, TaskState.WAITING):
            worker.tell(task.id, state, reason="May it run rm?" if state is TaskState.WAITING else None)
            await scene.eventually(lambda: f"{task.id}-waiting-1" in scene.waker.wakes)
        await scene.eventually(lambda: len(scene.waker.wakes) == 2)
        worker.tell(task.id, TaskState.FAILED, reason="Refused.", exit_code=1)
        await scene.settled(task.id)
    assert list(scene.waker.wakes) == [f"{task.id}-waiting-1", f"{task.id}-waiting-2", f"{task.id}-failed"]
    assert "May it run rm?" in scene.waker.wakes[f"{task.id}-waiting-1"]
    assert "Refused." in scene.waker.wakes[f"{task.id}-failed"]


async def test_no_wake_where_none_is_wished(scene: Scene) -> None:
    worker = scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch(wake=WakeWhen.NONE)
        await scene.until(task.id, TaskState.RUNNING)
        worker.tell(task.id, TaskState.SUCCEEDED)
        await scene.settled(task.id)
    assert scene.waker.wakes == {}


async def test_a_wake_that_is_not_taken_is_tried_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.tasks.dispatcher.RETRY_SECONDS", 0.01)
    scene.waker.fails = 3
    worker = scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        worker.tell(task.id, TaskState.SUCCEEDED)
        await scene.settled(task.id)
    assert list(scene.waker.wakes) == [f"{task.id}-succeeded"]


async def test_a_state_db_that_cannot_be_read_is_asked_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.tasks.dispatcher.RETRY_SECONDS", 0.01)
    scene.running("alpha").outcome = TaskOutcome()
    unsettled, failures = scene.store.unsettled, [sqlite3.OperationalError("disk I/O error")]

    def fails() -> list[Record]:
        if failures:
            raise failures.pop()
        return unsettled()

    monkeypatch.setattr(scene.store, "unsettled", fails)
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
    assert not failures


async def test_tasks_take_turns(database: Database) -> None:
    scene = Scene(database, parallel=3, per_workspace=2)
    alpha, beta = scene.running("alpha"), scene.running("beta")
    async with scene.at_work():
        first = [await scene.dispatch("alpha") for _ in range(3)]
        second = [await scene.dispatch("beta") for _ in range(2)]
        for task in (*first[:2], second[0]):
            await scene.until(task.id, TaskState.RUNNING)
        await anyio.sleep(0.05)
        assert len(alpha.begun()) == 2 and len(beta.begun()) == 1
        alpha.tell(first[0].id, TaskState.SUCCEEDED)
        await scene.until(first[2].id, TaskState.RUNNING)
        assert len(beta.begun()) == 1
        beta.tell(second[0].id, TaskState.FAILED)
        await scene.until(second[1].id, TaskState.RUNNING)


async def test_a_workspace_is_made_for_its_task(scene: Scene) -> None:
    async with scene.at_work():
        task = await scene.dispatch("beta", create=True, clone="https://x/y.git", branch="fix/issue-78")
        await scene.until(task.id, TaskState.RUNNING)
    (started,) = scene.workspaces.started
    assert (started.name, started.clone, started.new_branch) == ("beta", "https://x/y.git", "fix/issue-78")


@pytest.mark.parametrize(("status", "starts"), [(StepStatus.FAILED, 1), (StepStatus.DONE, 0)])
async def test_a_clone_that_failed_while_nobody_heard_is_tried_again(
    scene: Scene, status: StepStatus, starts: int
) -> None:
    scene.running("beta")
    step = Step(id="clone", title="Clone", status=status)
    startup = Startup(attempt=1, state=StartupState.FAILED, steps=[step])
    beta = msgspec.structs.replace(scene.workspaces.there["beta"], startup=startup, repo="https://x/y.git")
    scene.workspaces.there["beta"] = beta
    async with scene.at_work():
        task = await scene.dispatch("beta", create=True, clone="https://x/y.git")
        await scene.until(task.id, TaskState.RUNNING)
    assert [each.clone for each in scene.workspaces.started] == ["https://x/y.git"] * starts


async def test_a_quiet_tasks_end_wakes_nobody_and_its_question_does(scene: Scene) -> None:
    worker = scene.running("alpha")
    async with scene.at_work():
        task = await scene.service.dispatch(DispatchTask(workspace="alpha", task="Fix it"), quiet=True)
        await scene.until(task.id, TaskState.RUNNING)
        worker.tell(task.id, TaskState.WAITING, reason="May it?")
        await scene.eventually(lambda: f"{task.id}-waiting-1" in scene.waker.wakes)
        assert not scene.service.is_settled(task.id)
        worker.tell(task.id, TaskState.SUCCEEDED)
        await scene.settled(task.id)
    assert list(scene.waker.wakes) == [f"{task.id}-waiting-1"] and scene.service.is_settled(task.id)


async def test_a_stopped_workspace_is_started_when_asked_to(scene: Scene) -> None:
    scene.has("alpha", WorkspaceStatus.STOPPED)
    with pytest.raises(NotReady, match="--start"):
        await scene.dispatch()
    async with scene.at_work():
        task = await scene.dispatch(start=True)
        await scene.until(task.id, TaskState.RUNNING)
    assert [each.name for each in scene.workspaces.started] == ["alpha"]


@pytest.mark.parametrize(
    ("there", "wanted"), [(None, "https://x/y.git"), ("https://x/other.git", "https://x/y"), ("/home/ada/y", "git@x:y")]
)
async def test_no_agent_works_on_another_repository_than_it_was_dispatched_for(
    scene: Scene, there: str | None, wanted: str
) -> None:
    scene.running("beta")
    scene.workspaces.there["beta"] = msgspec.structs.replace(scene.workspaces.there["beta"], repo=there)
    with pytest.raises(Conflict, match=f"'beta' exists already, with(out a repository| {there}); choose"):
        await scene.dispatch("beta", create=True, clone=wanted)


@pytest.mark.parametrize("wanted", ["https://x/y", "git@x:y.git", "upload:" + "a" * 32])
async def test_the_same_repository_may_be_named_again(scene: Scene, wanted: str) -> None:
    scene.running("beta")
    scene.workspaces.there["beta"] = msgspec.structs.replace(scene.workspaces.there["beta"], repo="https://x/y.git")
    assert (await scene.dispatch("beta", create=True, clone=wanted)).state is TaskState.QUEUED


async def test_a_log_that_went_with_its_workspace_is_said(scene: Scene) -> None:
    worker = scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        worker.tell(task.id, TaskState.SUCCEEDED)
        await scene.settled(task.id)
        scene.workers.detach("alpha")
        with pytest.raises(WorkerUnavailable, match="not there"):
            await scene.service.logs(ReadTaskLogs(id=task.id))
        del scene.workspaces.there["alpha"]
        with pytest.raises(NotFound, match=f"'alpha' is gone, .*`perry tasks result {task.id}`"):
            await scene.service.logs(ReadTaskLogs(id=task.id))


async def test_what_the_worker_refuses_has_failed(scene: Scene) -> None:
    scene.running("alpha").refuse = "Codex is not installed in 'alpha'."
    async with scene.at_work():
        task = await scene.settled((await scene.dispatch(agent="codex")).id)
    assert (task.state, task.reason) == (TaskState.FAILED, "Codex is not installed in 'alpha'.")
    assert "not installed" in scene.waker.wakes[f"{task.id}-failed"]


async def test_a_control_plane_that_ended_goes_on(database: Database) -> None:
    before = Scene(database)
    worker = before.running("alpha")
    async with before.at_work():
        running = await before.dispatch()
        ends = await before.dispatch()
        await before.until(running.id, TaskState.RUNNING)
        await before.until(ends.id, TaskState.RUNNING)
        before.waker.fails = 1 << 30
        worker.tell(ends.id, TaskState.SUCCEEDED)
        await before.until(ends.id, TaskState.SUCCEEDED)
    queued = await before.dispatch()

    after = Scene(database)
    async with after.at_work():
        again = after.running("alpha")
        again.tell(running.id, TaskState.RUNNING)
        again.tell(ends.id, TaskState.SUCCEEDED)
        again.end_snapshot()
        await after.settled(ends.id)
        await after.until(queued.id, TaskState.RUNNING)
        assert [each.id for each in again.begun()] == [queued.id]
        assert (await after.service.get(running.id)).state is TaskState.RUNNING
    assert list(after.waker.wakes) == [f"{ends.id}-succeeded"]


async def test_what_a_worker_has_forgotten_is_lost(scene: Scene) -> None:
    scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        scene.workers.detach("alpha")
        late = scene.workers.attach("alpha")
        begun_since = await scene.dispatch()
        await scene.until(begun_since.id, TaskState.RUNNING)
        late.end_snapshot()
        assert (await scene.settled(task.id)).state is TaskState.LOST
        assert (await scene.service.get(begun_since.id)).state is TaskState.RUNNING
    assert "is lost" in scene.waker.wakes[f"{task.id}-lost"]


async def test_another_workspace_has_no_say(scene: Scene) -> None:
    scene.running("alpha")
    beta = scene.running("beta")
    async with scene.at_work():
        task = await scene.dispatch("alpha")
        await scene.until(task.id, TaskState.RUNNING)
        beta.tell(task.id, TaskState.SUCCEEDED)
        assert (await scene.service.get(task.id)).state is TaskState.RUNNING


async def test_tasks_of_a_deleted_workspace_are_lost(scene: Scene) -> None:
    scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        scene.dispatcher.deleted("alpha")
        assert (await scene.settled(task.id)).state is TaskState.LOST


@pytest.mark.parametrize(
    ("wish", "end", "removed"),
    [
        (RemoveWhen.NEVER, TaskState.SUCCEEDED, False),
        (RemoveWhen.SUCCESS, TaskState.SUCCEEDED, True),
        (RemoveWhen.SUCCESS, TaskState.FAILED, False),
        (RemoveWhen.DONE, TaskState.FAILED, True),
    ],
)
async def test_its_workspace_goes_as_was_wished(scene: Scene, wish: RemoveWhen, end: TaskState, removed: bool) -> None:
    worker = scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch(remove_when=wish)
        await scene.until(task.id, TaskState.RUNNING)
        worker.tell(task.id, end)
        task = await scene.settled(task.id)
        assert ("alpha" in scene.workspaces.there) is not removed
        assert task.removal == ("deleted" if removed else None)
        assert (await scene.service.result(task.id)).last_message == "All 12 tests pass."


async def test_work_that_is_nowhere_else_keeps_the_workspace(scene: Scene) -> None:
    worker = scene.running("alpha")
    scene.workspaces.unsaved.add("alpha")
    async with scene.at_work():
        task = await scene.dispatch(remove_when=RemoveWhen.DONE)
        await scene.until(task.id, TaskState.RUNNING)
        worker.tell(task.id, TaskState.SUCCEEDED)
        task = await scene.settled(task.id)
    assert task.removal == "kept: 'alpha' has work that would be lost."
    assert "alpha" in scene.workspaces.there


async def test_other_tasks_keep_the_workspace(scene: Scene) -> None:
    worker = scene.running("alpha")
    async with scene.at_work():
        first = await scene.dispatch(remove_when=RemoveWhen.DONE)
        second = await scene.dispatch()
        await scene.until(second.id, TaskState.RUNNING)
        worker.tell(first.id, TaskState.SUCCEEDED)
        assert (await scene.settled(first.id)).removal == "kept: 1 other task is not done"


async def test_cancelling(scene: Scene) -> None:
    worker = scene.running("alpha")
    queued = await scene.dispatch()
    assert (await scene.service.cancel(queued.id)).state is TaskState.CANCELLED
    async with scene.at_work():
        running = await scene.dispatch()
        await scene.until(running.id, TaskState.RUNNING)
        assert (await scene.service.cancel(running.id)).state is TaskState.CANCELLED
        assert (await scene.service.cancel(running.id)).state is TaskState.CANCELLED
    assert [each.id for each in worker.begun()] == [running.id]


async def test_a_worker_that_does_not_answer_is_said(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "ASK_SECONDS", 0.05)
    worker = scene.running("alpha")
    async with scene.at_work():
        running = await scene.dispatch()
        await scene.until(running.id, TaskState.RUNNING)
        worker.deaf = True
        with pytest.raises(TookTooLong, match="'alpha' did not answer within"):
            await scene.service.logs(ReadTaskLogs(id=running.id))
        with pytest.raises(TookTooLong, match="'alpha' did not answer within"):
            await scene.service.cancel(running.id)
        unknown = (await scene.service.result(running.id)).unknown
        assert unknown is not None and "did not answer within" in unknown


async def test_cancelling_what_was_stopped_with_its_workspace(scene: Scene) -> None:
    scene.running("alpha")
    async with scene.at_work():
        task = await scene.dispatch()
        await scene.until(task.id, TaskState.RUNNING)
        scene.workers.detach("alpha")
        scene.has("alpha", WorkspaceStatus.STOPPED)
        with pytest.raises(WorkerUnavailable):  # It may restart: then its worker is asked, and ends what runs.
            await scene.service.cancel(task.id)
        scene.workspaces.stopped.add("alpha")
        cancelled = await scene.service.cancel(task.id)
        assert cancelled.state is TaskState.CANCELLED and "was stopped" in (cancelled.reason or "")
        again = scene.running("alpha")
        again.tell(task.id, TaskState.FAILED)
        assert (await scene.settled(task.id)).state is TaskState.CANCELLED


async def test_waiting_for_several(scene: Scene) -> None:
    worker = scene.running("alpha")
    async with scene.at_work():
        one, two = await scene.dispatch(), await scene.dispatch()
        await scene.until(two.id, TaskState.RUNNING)
        worker.tell(one.id, TaskState.SUCCEEDED)
        ids = [one.id, two.id]
        assert (await scene.service.wait(WaitForTasks(ids=ids, any=True))).done
        assert not (await scene.service.wait(WaitForTasks(ids=ids, timeout=0.01))).done
        async with anyio.create_task_group() as tasks:

            async def end() -> None:
                await anyio.sleep(0.02)
                worker.tell(two.id, TaskState.FAILED)

            tasks.start_soon(end)
            waited = await scene.service.wait(WaitForTasks(ids=ids))
    assert waited.done
    assert [task.state for task in waited.items] == [TaskState.SUCCEEDED, TaskState.FAILED]


async def test_the_same_key_is_the_same_task(scene: Scene) -> None:
    scene.running("alpha")
    assert (await scene.dispatch(key="k")).id == (await scene.dispatch(key="k")).id


async def test_lists_have_pages(scene: Scene) -> None:
    scene.running("alpha")
    ids = [(await scene.dispatch()).id for _ in range(5)]
    page = await scene.service.list(ListTasks(limit=3))
    rest = await scene.service.list(ListTasks(limit=3, cursor=page.next_cursor))
    assert [task.id for task in (*page.items, *rest.items)] == ids[::-1]
    assert rest.next_cursor is None
    assert (await scene.service.list(ListTasks(workspace="beta"))).items == []
    with pytest.raises(InvalidInput, match="cursor"):
        await scene.service.list(ListTasks(cursor="x"))


@pytest.mark.parametrize("text", ["  \n", "a\0b"])
async def test_what_is_no_task(scene: Scene, text: str) -> None:
    scene.running("alpha")
    with pytest.raises(InvalidInput):
        await scene.service.dispatch(DispatchTask(workspace="alpha", task=text))


async def test_a_task_of_many_bytes(scene: Scene) -> None:
    scene.running("alpha")
    text = "“$(rm)”\n🙂" * (TASK_LIMIT // 20)
    task = await scene.service.dispatch(DispatchTask(workspace="alpha", task=text))
    assert scene.store.text(task.id) == text
    assert len(task.text) == 400
    with pytest.raises(TooLarge, match="file"):
        await scene.service.dispatch(DispatchTask(workspace="alpha", task="x" * (TASK_LIMIT + 1)))
    with pytest.raises(TooLarge, match="control characters"):
        await scene.service.dispatch(DispatchTask(workspace="alpha", task="\x01" * TASK_LIMIT))


async def test_a_workspace_that_is_not_there(scene: Scene) -> None:
    with pytest.raises(NotFound, match="--create"):
        await scene.dispatch("nowhere")


async def test_a_task_that_is_not_there(scene: Scene) -> None:
    with pytest.raises(NotFound, match="perry tasks list"):
        await scene.service.get("t-000000000000")


async def test_what_was_sent_ahead_is_needed_until_the_task_begins(scene: Scene) -> None:
    task = await scene.dispatch("beta", create=True, clone="upload:" + "a" * 32)
    await scene.dispatch("gamma", create=True, clone="https://x/y.git", timeout=5)
    assert scene.store.uploads() == {"a" * 32}
    async with scene.at_work():
        await scene.until(task.id, TaskState.RUNNING)
    assert scene.store.uploads() == set()
