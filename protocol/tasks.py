"""Tasks: work that a coding agent is given, and is not watched at."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from protocol.wire import Told, Wire
from protocol.workspaces import WorkspaceName

TASK_LIMIT: Final = 1 << 20
"""Bytes of a task's text, at most."""

LONGEST: Final = 30 * 86400
"""Seconds that a task may be given, or until Perry looks for itself, at most."""

MODEL_LIMIT: Final = 200
"""Characters of a model's name, at most."""

TASK_ID_PATTERN: Final = r"^t-[0-9a-z]{12}$"
TaskId = Annotated[str, msgspec.Meta(pattern=TASK_ID_PATTERN)]


class TaskAgent(StrEnum):
    """Who does it. ``command``: no coding agent; the task is a command line for the workspace's shell."""

    OPENCODE = "opencode"
    CLAUDE = "claude"
    CODEX = "codex"
    COMMAND = "command"


class TaskState(Told):
    """How a task stands.

    ``queued``: its turn has not come, or its workspace is still being made. ``waiting``: a person has to answer or to
    allow something. ``stalled``: it runs, and nothing moves. ``lost``: its workspace is gone, or forgot it.
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    STALLED = "stalled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


ENDED: Final = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED, TaskState.LOST})


class WakeWhen(StrEnum):
    """How the end of a task wakes the gateway that waits."""

    NOW = "now"
    NEXT_HEARTBEAT = "next-heartbeat"
    NONE = "none"


class RemoveWhen(StrEnum):
    """When a task's workspace is deleted after it. Never while work exists in it that is nowhere else."""

    NEVER = "never"
    SUCCESS = "success"
    DONE = "done"


class DispatchTask(Wire, frozen=True, forbid_unknown_fields=True):
    """Input of ``tasks.dispatch``.

    ``create`` makes the workspace where it is missing, with ``clone`` as ``workspaces.start`` takes it; ``branch`` is
    what the work is done on, and made where the repository has none of that name. ``start`` starts a workspace that is
    stopped. ``timeout`` is in seconds, from the task's start. ``key`` makes it safe to ask twice: the same key is the
    same task. ``fallback`` is after how many seconds (and every so many) the control plane looks for itself where
    nobody told of an end; 0 never does, and absent is as configured.
    """

    workspace: WorkspaceName
    task: Annotated[str, msgspec.Meta(min_length=1)]
    agent: TaskAgent = TaskAgent.OPENCODE
    model: Annotated[str, msgspec.Meta(min_length=1, max_length=MODEL_LIMIT)] | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=LONGEST)] | None = None
    wake: WakeWhen = WakeWhen.NOW
    remove_when: RemoveWhen = RemoveWhen.NEVER
    create: bool = False
    start: bool = False
    clone: str | None = None
    origin: str | None = None
    branch: str | None = None
    fallback: Annotated[float, msgspec.Meta(ge=0, le=LONGEST)] | None = None
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class Task(Wire, frozen=True):
    """A task. ``text`` is its beginning. ``reason`` is one sentence: why it waits or failed.

    ``wake_id`` is the wake that told of it, once there is one. ``removal`` says what became of ``remove_when``.
    """

    id: str
    workspace: str
    agent: str
    state: TaskState
    text: str
    created: datetime
    wake: str
    remove_when: str
    model: str | None = None
    timeout: float | None = None
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    session_id: str | None = None
    wake_id: str | None = None
    removal: str | None = None


class TaskRef(Wire, frozen=True, forbid_unknown_fields=True):
    """One task."""

    id: TaskId


class ListTasks(Wire, frozen=True, forbid_unknown_fields=True):
    """Which tasks: the newest first."""

    workspace: WorkspaceName | None = None
    state: str | None = None
    cursor: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class Tasks(Wire, frozen=True):
    """A page of tasks. ``next_cursor`` is absent on the last."""

    items: list[Task]
    next_cursor: str | None = None


class ReadTaskLogs(Wire, frozen=True, forbid_unknown_fields=True):
    """What the agent has printed, from byte ``offset`` on; a negative one counts from the end."""

    id: TaskId
    offset: int = 0
    limit: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 1 << 16


class TaskLogs(Wire, frozen=True):
    """A piece of a task's log. ``next`` is the offset after it, ``size`` what there is now, in bytes."""

    text: str
    offset: int
    next: int
    size: int
    ended: bool


class CheckTask(Wire, frozen=True, forbid_unknown_fields=True):
    """Look for yourself, now: at a task, or at the latest session of a workspace."""

    id: TaskId | None = None
    workspace: WorkspaceName | None = None


class Checked(Wire, frozen=True):
    """What a look concludes: ``working``, ``waiting``, ``stalled``, ``failed``, ``finished silently``,
    ``unreachable``, ``told``. ``text`` is a paragraph, ``commands`` are for looking further, ``quiet`` is for how many
    seconds nothing has moved."""

    conclusion: str
    text: str
    commands: list[str]
    quiet: float
    task: Task | None = None


class WaitForTasks(Wire, frozen=True, forbid_unknown_fields=True):
    """Wait until all of these tasks (with ``any``, one of them) have ended or wait for a person, or ``timeout``
    seconds have passed."""

    ids: Annotated[list[TaskId], msgspec.Meta(min_length=1, max_length=500)]
    any: bool = False
    timeout: Annotated[float, msgspec.Meta(ge=0, le=300)] = 60


class Waited(Wire, frozen=True):
    """The tasks as they stand. ``done``: what was waited for has come."""

    items: list[Task]
    done: bool


class Commit(Wire, frozen=True):
    """A commit that was made during a task."""

    id: str
    subject: str


class TaskResult(Wire, frozen=True):
    """What a task left. ``diff_stat`` is git's own, from the commit where it began to the files as they are now;
    ``uncommitted`` counts the files that are in no commit; ``unpushed`` the commits on no remote; ``unknown`` says why
    git could not be asked, where it could not."""

    task: Task
    last_message: str | None = None
    commits: tuple[Commit, ...] = ()
    diff_stat: str | None = None
    uncommitted: int | None = None
    unpushed: int | None = None
    unknown: str | None = None
