"""Cron: jobs that run at a time, at intervals, or by the calendar."""

from datetime import datetime
from typing import Annotated, Final

import msgspec

from protocol.tasks import DispatchTask
from protocol.wake import TEXT_LIMIT, SessionTarget, WakeMode
from protocol.wire import Told, Wire
from protocol.workspaces import WorkspaceName

MESSAGE_LIMIT: Final = TEXT_LIMIT
"""Bytes of a job's message, at most."""


class AddJob(Wire, frozen=True, forbid_unknown_fields=True):
    """Input of ``cron.add``: when (one of ``at``, ``every`` and ``cron``), and what (``message``, ``check`` or
    ``dispatch``).

    ``at`` is so long from now (``20m``, ``+1h30m``) or a time with an offset; without one it is a time of the zone
    ``tz``. ``cron`` is a line of five fields, on the clock of ``tz`` (UTC where there is none). ``message`` and
    ``system_event`` are two words for the same: what the assistant is told. ``check`` looks at a workspace, and tells
    what that comes to, after ``message`` where there is one: with ``at`` in any case, else where it does not just work.
    ``dispatch`` gives a coding agent a task, unless that of an earlier run still goes on; the task's end wakes as it
    says. A job without a name gets one. ``key`` makes it safe to ask twice: the same key is the same job.
    """

    name: str | None = None
    at: str | None = None
    every: str | None = None
    cron: str | None = None
    tz: str | None = None
    message: str | None = None
    system_event: str | None = None
    check: WorkspaceName | None = None
    dispatch: DispatchTask | None = None
    session: SessionTarget = SessionTarget.MAIN
    wake: WakeMode = WakeMode.NOW
    delete_after_run: bool = False
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class Outcome(Told):
    """How a run of a job ended, or that it has not."""

    RUNNING = "running"
    OK = "ok"
    FAILED = "failed"


class JobRun(Wire, frozen=True):
    """One run. ``due`` is when it was meant to be. ``detail`` is the reason of a failure, or what came of it."""

    id: str
    job_id: str
    job: str
    due: datetime
    started: datetime
    outcome: Outcome
    by_hand: bool
    ended: datetime | None = None
    detail: str | None = None


class Job(Wire, frozen=True):
    """A job: when, what, and how it went.

    One of ``at``, ``every`` (seconds) and ``cron`` (with ``tz``) is there. ``action`` is ``wake``, ``check``
    or ``dispatch``; a newer control plane may know more. ``text`` is the beginning of its message, or of the task for
    ``agent`` in ``workspace``. Without ``next`` it will not run again.
    """

    id: str
    name: str
    created: datetime
    action: str
    delete_after_run: bool
    at: datetime | None = None
    every: float | None = None
    cron: str | None = None
    tz: str | None = None
    text: str | None = None
    wake: str | None = None
    session: str | None = None
    workspace: str | None = None
    agent: str | None = None
    next: datetime | None = None
    last: JobRun | None = None


class JobRef(Wire, frozen=True, forbid_unknown_fields=True):
    """One job, by its name or id."""

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class ListJobs(Wire, frozen=True, forbid_unknown_fields=True):
    """Which jobs: those that run next first, and those that will not run again last."""

    cursor: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class Jobs(Wire, frozen=True):
    """A page of jobs. ``next_cursor`` is absent on the last."""

    items: list[Job]
    next_cursor: str | None = None


class ReadHistory(Wire, frozen=True, forbid_unknown_fields=True):
    """Which runs: the newest first, of one job (also of one that is gone) or of all; ``before`` the run of that id."""

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    before: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class JobRuns(Wire, frozen=True):
    """Runs, the newest first."""

    items: list[JobRun]
    more: bool
