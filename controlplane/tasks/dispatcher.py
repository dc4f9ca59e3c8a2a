"""Lets tasks go on by themselves: begins those whose turn has come, hears what workers tell, and does what is owed
after an end (what was left is noted, the wake goes out, the workspace goes where that was wished).

Every step is safe to run twice, so that a control plane that ends anywhere goes on from state.db: a worker begins a
task once however often it is asked, and a wake has an id of its own for each state of a task.
"""

import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import anyio
import msgspec
from anyio.abc import TaskGroup

from controlplane.errors import Conflict, EngineUnavailable, NotFound, PerryError, WorkerUnavailable
from controlplane.ports import Waker, WorkerLink
from controlplane.tasks import aftermath, state
from controlplane.tasks.aftermath import Aftermath
from controlplane.tasks.service import News
from controlplane.tasks.state import UNDER_WAY, Record
from controlplane.tasks.store import Store
from controlplane.workspaces.state import StepId
from protocol.tasks import Task, TaskState
from protocol.worker import CancelTask, Event, SnapshotEnd, StartTask, TaskSeen
from protocol.workspaces import StartWorkspace, StepStatus, Workspace, WorkspaceStatus

log = logging.getLogger(__name__)

WORKER_SECONDS = 120.0
"""How long a task waits for its workspace's worker to be there."""

START_SECONDS = 125.0
"""How long a worker may take to begin a task; OpenCode's server may have to come up first."""

RETRY_SECONDS = 30.0
"""When what could not be done for now is tried again."""


class Workspaces(aftermath.Workspaces, Protocol):
    """What is asked of workspaces; see :class:`controlplane.workspaces.service.Workspaces`."""

    async def create(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace: ...

    async def start(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace: ...

    def is_stopped(self, name: str) -> bool: ...

    def must_exist(self, name: str) -> None: ...


class Dispatcher:
    """Follows every worker (a ``WorkerFollower``), and owns what tasks do by themselves."""

    def __init__(
        self,
        store: Store,
        workspaces: Workspaces,
        waker: Waker,
        news: News,
        *,
        parallel: int,
        per_workspace: int,
        announce: Callable[[Task], None],
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._news = news
        self._parallel = parallel
        self._per_workspace = per_workspace
        self._announce = announce
        self._links: dict[str, WorkerLink] = {}
        self._aftermath = Aftermath(store, workspaces, waker, self._links, self.changed)
        self._problems: dict[str, str] = {}
        self._missing: dict[str, set[str]] = {}
        self._at_work: set[str] = set()
        self._wanted = anyio.Event()

    def nudge(self) -> None:
        """There is something new to do."""
        self._wanted.set()

    def problem(self, id_: str) -> str | None:
        """Why a task does not go on although its turn has come, as far as it was found."""
        return self._problems.get(id_)

    def changed(self, record: Record) -> None:
        """Write it down, and tell everybody."""
        self._store.save(record)
        self._announce(state.shown(record))
        self._news.tell()

    # --- what workers tell

    def attached(self, workspace: str, link: WorkerLink) -> None:
        self._links[workspace] = link
        if not link.hello.resumed:
            under_way = (each for each in self._store.unsettled() if each.state in UNDER_WAY)
            self._missing[workspace] = {each.id for each in under_way if each.workspace == workspace}
        self._news.tell()
        self.nudge()

    def detached(self, workspace: str) -> None:
        self._links.pop(workspace, None)
        self._missing.pop(workspace, None)

    def deleted(self, workspace: str) -> None:
        self.detached(workspace)
        for record in self._store.unsettled():
            if record.workspace == workspace and not record.over and record.id not in self._at_work:
                self._end(record, TaskState.LOST, f"The workspace {workspace!r} was deleted.")

    def told(self, workspace: str, event: Event) -> None:
        if isinstance(event, TaskSeen):
            self._hear(workspace, event)
        elif isinstance(event, SnapshotEnd):
            for id_ in self._missing.pop(workspace, ()):
                if (record := self._store.get(id_)) is not None and record.state in UNDER_WAY:
                    self._end(record, TaskState.LOST, f"The workspace {workspace!r} knows nothing of it any more.")

    def _hear(self, workspace: str, seen: TaskSeen) -> None:
        self._missing.get(workspace, set()).discard(seen.id)
        record = self._store.get(seen.id)
        if record is None or record.workspace != workspace:
            return  # Not ours, or not this workspace's to tell of.
        now = state.heard(record, seen, datetime.now(UTC))
        if now != record:
            self.changed(now)
            if now.over or now.state is TaskState.WAITING:
                self.nudge()
        if now.settled and (link := self._links.get(workspace)) is not None:
            self._forget_later(link, now.id)

    def _end(self, record: Record, how: TaskState, reason: str | None) -> None:
        self.changed(state.ended(record, how, reason, datetime.now(UTC)))
        self.nudge()

    def workspace_changed(self, workspace: Workspace) -> None:
        """Somebody may have stopped it; see :class:`controlplane.workspaces.service.Announcer`."""
        if workspace.status is WorkspaceStatus.STOPPED:
            self._news.tell()
            self.nudge()

    def workspace_deleted(self, name: str) -> None:
        """That is heard as :meth:`deleted`."""

    def _end_where_nothing_runs(self) -> None:
        """What was under way in a workspace that somebody has stopped, or that is gone, will not end by itself.

        A workspace that restarts, or that Docker has ended, is left alone: it comes back, and its worker tells.
        """
        for record in self._store.unsettled():
            if record.state not in UNDER_WAY or record.id in self._at_work:
                continue
            try:
                self._workspaces.must_exist(record.workspace)
            except NotFound:
                self._end(record, TaskState.LOST, f"The workspace {record.workspace!r} was deleted.")
                continue
            if self._workspaces.is_stopped(record.workspace):
                self._end(record, TaskState.FAILED, state.stopped(record.workspace))

    # --- what tasks do by themselves

    async def run(self) -> None:
        """For ever. Each task that goes on does so in a task of its own, so that none holds up another."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            while True:
                self._wanted = anyio.Event()
                try:
                    self._go_on(tasks)
                except Exception:
                    # Such as a state.db that cannot be read just now. It must not end all the rest.
                    log.exception("tasks")
                with anyio.move_on_after(RETRY_SECONDS):
                    await self._wanted.wait()

    def _forget_later(self, link: WorkerLink, id_: str) -> None:
        self._tasks.start_soon(self._aftermath.forget, link, id_)

    def _go_on(self, tasks: TaskGroup) -> None:
        self._end_where_nothing_runs()
        records = self._store.unsettled()
        for record in records:
            if record.id in self._at_work:
                continue
            if record.over:
                self._begin_work(tasks, record, self._aftermath.finish)
            elif record.state is TaskState.WAITING and record.wakes and record.wake_id != state.wake_id(record):
                self._begin_work(tasks, record, self._aftermath.wake)
        under_way = [each for each in records if each.state in UNDER_WAY or self._is_beginning(each)]
        queued = [each for each in records if each.state is TaskState.QUEUED and each.id not in self._at_work]
        turns = state.next_to_begin(queued, under_way, parallel=self._parallel, per_workspace=self._per_workspace)
        for record in turns:
            self._begin_work(tasks, record, self._start)

    def _is_beginning(self, record: Record) -> bool:
        return record.state is TaskState.QUEUED and record.id in self._at_work

    def _begin_work(self, tasks: TaskGroup, record: Record, work: "Callable[[Record], object]") -> None:
        self._at_work.add(record.id)
        tasks.start_soon(self._work, record, work)

    async def _work(self, record: Record, work: "Callable[[Record], object]") -> None:
        """Work that fails is tried again later; a bug in it must not end the other tasks."""
        again = True
        try:
            await work(record)  # type: ignore[misc]
            again = False
            self._problems.pop(record.id, None)
        except PerryError as exc:
            log.warning("task %s: %s", record.id, exc.message)
            self._problems[record.id] = exc.message
        except Exception:
            log.exception("task %s", record.id)
        finally:
            self._at_work.discard(record.id)
            if not again:
                self.nudge()

    async def _start(self, record: Record) -> None:
        """Ask the worker to begin it, once its workspace and worker are there."""
        name = record.workspace
        try:
            await self._ensure_workspace(record)
            link = await self._await_link(name)
            if not self._is_queued(record):
                return  # It was cancelled meanwhile.
            request = StartTask(
                id=record.id,
                agent=record.wishes.agent,
                text=self._store.text(record.id),
                model=record.wishes.model,
                timeout=record.wishes.timeout,
            )
            with anyio.fail_after(START_SECONDS):
                await link.ask(request)
        except EngineUnavailable:
            if self._is_queued(record):
                raise  # Docker comes back.
        except (WorkerUnavailable, TimeoutError) as exc:
            if self._is_queued(record):
                # It may have begun. Asked again, it begins once.
                raise WorkerUnavailable(f"The worker of {name!r} did not say that it began.") from exc
        except PerryError as exc:
            if (latest := self._store.get(record.id)) is not None and latest.state is TaskState.QUEUED:
                self._end(latest, TaskState.FAILED, exc.message)
        else:
            latest = self._store.get(record.id)
            if latest is not None and latest.over:
                await link.ask(CancelTask(id=record.id))  # It was cancelled while it began.
            elif latest is not None and latest.state is TaskState.QUEUED:
                started = msgspec.structs.replace(latest, state=TaskState.RUNNING, started=datetime.now(UTC))
                self.changed(started)

    def _is_queued(self, record: Record) -> bool:
        latest = self._store.get(record.id)
        return latest is not None and latest.state is TaskState.QUEUED

    async def _ensure_workspace(self, record: Record) -> None:
        name, wishes = record.workspace, record.wishes
        wanted = StartWorkspace(name=name, clone=wishes.clone, origin=wishes.origin, new_branch=wishes.branch)
        try:
            workspace = await self._workspaces.get(name)
            made_for = self._workspaces.made_for(name)
        except NotFound as exc:
            if not wishes.create:
                raise Conflict(f"The workspace {name!r} was deleted before the task's turn came.") from exc
            if wishes.own:
                await self._make_own(wanted, record)
                return
        else:
            if wishes.own and made_for != record.id:
                raise Conflict(state.made_meanwhile(name))
            if wishes.clone and made_for != record.id and (why := state.other_repository(workspace, wishes.clone)):
                raise Conflict(why)
            if workspace.status is WorkspaceStatus.RUNNING and not (wishes.clone and _lacks_clone(workspace)):
                return
            if workspace.status is WorkspaceStatus.STOPPED and not wishes.start:
                raise Conflict(f"The workspace {name!r} was stopped before the task's turn came.")
        await self._workspaces.start(wanted, made_for=record.id)

    async def _make_own(self, wanted: StartWorkspace, record: Record) -> None:
        try:
            await self._workspaces.create(wanted, made_for=record.id)
        except Conflict as exc:
            with contextlib.suppress(NotFound):
                if self._workspaces.made_for(wanted.name) != record.id:
                    raise Conflict(state.made_meanwhile(wanted.name)) from exc
            raise

    async def _await_link(self, name: str) -> WorkerLink:
        with anyio.move_on_after(WORKER_SECONDS):
            while name not in self._links:
                if self._workspaces.is_stopped(name):
                    raise Conflict(f"The workspace {name!r} was stopped before the task began.")
                await self._news.next().wait()
            return self._links[name]
        raise Conflict(
            f"The worker of {name!r} does not answer; `perry doctor` says more, `perry restart {name}` starts it anew."
        )


def _lacks_clone(workspace: Workspace) -> bool:
    """Whether it runs without what was to be cloned: its start may have ended while we were not there to hear of it."""
    steps = workspace.startup.steps if workspace.startup is not None else []
    return any(step.id == StepId.CLONE and step.status is StepStatus.FAILED for step in steps)
