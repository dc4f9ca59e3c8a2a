"""The use cases of tasks. What happens to a task by itself, from its turn to its end, is :mod:`.dispatcher`'s."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Protocol

import anyio
import msgspec

from controlplane import cursors
from controlplane.errors import (
    Conflict,
    EngineUnavailable,
    InvalidInput,
    NotFound,
    NotReady,
    TookTooLong,
    TooLarge,
    WorkerError,
    WorkerUnavailable,
)
from controlplane.ids import new_id
from controlplane.ports import WorkerLink
from controlplane.tasks import state
from controlplane.tasks.state import Record
from controlplane.tasks.store import Store
from controlplane.workspaces.repository import valid_branch, valid_clone
from protocol.tasks import (
    ENDED,
    TASK_LIMIT,
    DispatchTask,
    ListTasks,
    ReadTaskLogs,
    Task,
    TaskLogs,
    TaskResult,
    Tasks,
    TaskState,
    Waited,
    WaitForTasks,
)
from protocol.worker import CancelTask, ReadOutcome, ReadTaskLog, TaskLog, TaskOutcome
from protocol.workspaces import Workspace, WorkspaceStatus

ASK_SECONDS = 20.0

ENCODED_LIMIT = 3 * TASK_LIMIT
"""A task's bytes as JSON, in which a worker is told of it: a control character has six."""


class Workspaces(Protocol):
    """What is asked of workspaces; see :class:`controlplane.workspaces.service.Workspaces`."""

    async def get(self, name: str) -> Workspace: ...

    def must_exist(self, name: str) -> None: ...

    def is_stopped(self, name: str) -> bool: ...


class Dispatcher(Protocol):
    """What lets tasks go on; see :class:`controlplane.tasks.dispatcher.Dispatcher`."""

    def nudge(self) -> None:
        """There is something new to do."""

    def changed(self, record: Record) -> None:
        """Write it down, and tell everybody."""


class TaskService:
    """Tasks, as clients ask about them."""

    def __init__(
        self,
        store: Store,
        workspaces: Workspaces,
        link: Callable[[str], WorkerLink],
        dispatcher: Dispatcher,
        news: "News",
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._link = link
        self._dispatcher = dispatcher
        self._news = news

    async def dispatch(self, wanted: DispatchTask, *, quiet: bool = False, own: bool = False) -> Task:
        """Queue a task, and return at once. A ``key`` that was used before gives the task that it made.

        ``quiet``: its end wakes nobody, its questions do. ``own``: it fails where somebody else makes its workspace
        before its turn has come.
        """
        must_make_sense(wanted)
        if wanted.key is not None and (before := self._store.of_key(wanted.key)) is not None:
            return state.shown(before)
        if not wanted.create:
            await self._must_take(wanted)
        elif not own:
            await self._must_be_a_clone(wanted)
        wishes = state.wishes(wanted, quiet=quiet, own=own)
        record = self._store.add(new_id("t"), wanted.workspace, wishes, wanted.task, wanted.key, datetime.now(UTC))
        self._dispatcher.nudge()
        return state.shown(record)

    async def _must_take(self, wanted: DispatchTask) -> None:
        name = wanted.workspace
        try:
            workspace = await self._workspaces.get(name)
        except NotFound as exc:
            raise NotFound(f"{exc.message.rstrip('.')}; `--create` makes it for the task.") from exc
        except EngineUnavailable:
            return  # The task waits for Docker, and its turn sees how the workspace is.
        if workspace.deleting:
            raise Conflict(f"The workspace {name!r} is being deleted; choose another.")
        if workspace.status is WorkspaceStatus.STOPPED and not wanted.start:
            raise NotReady(f"The workspace {name!r} is stopped; `perry start {name}` starts it, or add `--start`.")

    async def _must_be_a_clone(self, wanted: DispatchTask) -> None:
        if wanted.clone is None:
            return
        try:
            workspace = await self._workspaces.get(wanted.workspace)
        except (NotFound, EngineUnavailable):
            return
        if (why := state.other_repository(workspace, wanted.clone)) is not None:
            raise Conflict(why)

    async def list(self, wanted: ListTasks) -> Tasks:
        """A page, the newest first."""
        before = cursors.before(wanted.cursor, "tasks.list")
        page = self._store.page(workspace=wanted.workspace, state=wanted.state, before=before, limit=wanted.limit + 1)
        shown, more = page[: wanted.limit], len(page) > wanted.limit
        return Tasks(
            items=[state.shown(record) for record in shown], next_cursor=str(shown[-1].number) if more else None
        )

    async def get(self, id_: str) -> Task:
        return state.shown(self._must_exist(id_))

    def going_on(self, keys: str, *, but: str) -> str | None:
        """The id of a task that has not ended and whose key begins with ``keys``, and is not ``but``; None where there
        is none."""
        return self._store.going_on(keys, but)

    def is_settled(self, id_: str) -> bool:
        """Whether nothing is owed any more after its end: what it left is noted, and who waits is told."""
        return self._must_exist(id_).settled

    async def logs(self, wanted: ReadTaskLogs) -> TaskLogs:
        """A piece of what the agent has printed."""
        record = self._must_exist(wanted.id)
        if record.started is None:
            return TaskLogs(text="", offset=0, next=0, size=0, ended=record.over)
        try:
            with _patience(record.workspace):
                found = await self._link(record.workspace).ask(
                    ReadTaskLog(id=record.id, offset=wanted.offset, limit=wanted.limit)
                )
        except WorkerUnavailable as exc:
            if self._is_gone(record):
                raise NotFound(
                    f"The workspace {record.workspace!r} is gone, and with it what the task printed; "
                    f"`perry tasks result {record.id}` shows what it has left."
                ) from exc
            raise
        if not isinstance(found, TaskLog):
            raise WorkerError(f"The worker of {record.workspace!r} answered something else; `perry sync` mends it.")
        return TaskLogs(text=found.text, offset=found.offset, next=found.next, size=found.size, ended=record.over)

    def _is_gone(self, record: Record) -> bool:
        try:
            self._workspaces.must_exist(record.workspace)
        except NotFound:
            return True
        return False

    async def wait(self, wanted: WaitForTasks) -> Waited:
        """Until all (or any) have ended or wait for a person, or the time is over."""
        some = any if wanted.any else all
        with anyio.move_on_after(wanted.timeout):
            while True:
                heard = self._news.next()
                records = [self._must_exist(id_) for id_ in wanted.ids]
                if some(_rests(record) for record in records):
                    break
                await heard.wait()
        records = [self._must_exist(id_) for id_ in wanted.ids]
        return Waited(items=[state.shown(record) for record in records], done=some(_rests(each) for each in records))

    async def cancel(self, id_: str) -> Task:
        """End it. What has ended stays as it is; what runs is ended with its whole process group."""
        record = self._must_exist(id_)
        if record.state is TaskState.QUEUED:
            self._end(record, None)
        elif not record.over and (self._is_gone(record) or self._workspaces.is_stopped(record.workspace)):
            # Nothing of it runs any more, and its worker is not there to say so.
            self._end(record, f"The workspace {record.workspace!r} was stopped while the task was running.")
        elif not record.over:
            with _patience(record.workspace):
                await self._link(record.workspace).ask(CancelTask(id=id_))
                while not self._must_exist(id_).over:
                    await self._news.next().wait()
        return state.shown(self._must_exist(id_))

    def _end(self, record: Record, reason: str | None) -> None:
        self._dispatcher.changed(state.ended(record, TaskState.CANCELLED, reason, datetime.now(UTC)))
        self._dispatcher.nudge()

    async def result(self, id_: str) -> TaskResult:
        """What a task left: as it was at its end, or, while it goes on, as it is now."""
        record = self._must_exist(id_)
        outcome = record.outcome or await self._outcome(record)
        return TaskResult(
            task=state.shown(record),
            last_message=outcome.last_message or record.last_message,
            commits=outcome.commits,
            diff_stat=outcome.diff_stat,
            uncommitted=outcome.uncommitted,
            unpushed=outcome.unpushed,
            unknown=outcome.unknown,
        )

    async def _outcome(self, record: Record) -> TaskOutcome:
        if record.started is None:
            return TaskOutcome(unknown="It has not begun.")
        try:
            with _patience(record.workspace):
                found = await self._link(record.workspace).ask(ReadOutcome(id=record.id))
        except (WorkerError, TookTooLong) as exc:
            if isinstance(exc, WorkerUnavailable) and self._is_gone(record):
                return TaskOutcome(
                    unknown=f"The workspace {record.workspace!r} is gone, and with it what was left there."
                )
            return TaskOutcome(unknown=exc.message)
        return state.bounded(found) if isinstance(found, TaskOutcome) else TaskOutcome(unknown="The worker cannot say.")

    def _must_exist(self, id_: str) -> Record:
        record = self._store.get(id_)
        if record is None:
            raise NotFound(f"There is no task {id_!r}; `perry tasks list` shows them.")
        return record


def must_make_sense(wanted: DispatchTask) -> None:
    """InvalidInput and TooLarge, for what is wrong whatever workspaces there are."""
    size = len(wanted.task.encode())
    if size > TASK_LIMIT:
        raise TooLarge(f"The task has {size:,} bytes, and at most {TASK_LIMIT:,} are taken; put it into a file.")
    if len(msgspec.json.encode(wanted.task)) > ENCODED_LIMIT:
        raise TooLarge("The task has too many control characters; put it into a file.")
    if not wanted.task.strip():
        raise InvalidInput("The task is empty; say what the agent is to do.")
    if "\0" in wanted.task:
        raise InvalidInput("The task has a NUL character, which no agent can be given; leave it out.")
    if (wanted.clone or wanted.branch or wanted.origin) and not wanted.create:
        raise InvalidInput("`clone` and `branch` are for a workspace that is made; add `create` (--create).")
    if wanted.clone is not None:
        valid_clone(wanted.clone)
    if wanted.branch is not None:
        valid_branch(wanted.branch)


@contextmanager
def _patience(workspace: str) -> Iterator[None]:
    """TookTooLong where a worker does not answer in time."""
    try:
        with anyio.fail_after(ASK_SECONDS):
            yield
    except TimeoutError as exc:
        raise TookTooLong(
            f"{workspace!r} did not answer within {ASK_SECONDS:g} s; try again. `perry logs {workspace}` may say why."
        ) from exc


class News:
    """Tells who waits that some task has changed."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def next(self) -> anyio.Event:
        """Set at the next change."""
        return self._event

    def tell(self) -> None:
        self._event.set()
        self._event = anyio.Event()


def _rests(record: Record) -> bool:
    return record.state in ENDED or record.state is TaskState.WAITING
