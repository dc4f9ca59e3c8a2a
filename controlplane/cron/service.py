"""Cron jobs: what people and agents ask about them."""

import re
from collections.abc import Callable
from typing import Final

import msgspec

from controlplane.cron import schedule
from controlplane.cron.actions import Action, Check, Dispatch, Wake, described
from controlplane.cron.schedule import At, Every, Line
from controlplane.cron.scheduler import Clock, Scheduler
from controlplane.cron.store import JobRecord, RunRecord, Store
from controlplane.errors import Conflict, InvalidInput, NotFound
from controlplane.ids import new_id, random_letters
from protocol.cron import (
    MESSAGE_LIMIT,
    AddJob,
    Job,
    JobRef,
    JobRun,
    JobRuns,
    Jobs,
    ListJobs,
    Outcome,
    ReadHistory,
)
from protocol.tasks import DispatchTask
from protocol.wake import SessionTarget, WakeMode
from protocol.workspaces import UPLOADED

JOBS: Final = 20_000
"""Jobs that there may be at once."""

NAME_LIMIT: Final = 64
"""Characters of a job's name."""

TEXT_SHOWN: Final = 500
"""Characters of a message that lists show."""


class Cron:
    """Adds jobs, shows them, and runs them when asked; when they are due, the scheduler does.

    ``is_there``: whether there is a workspace of a name. ``must_make_sense`` refuses a task that is wrong whatever
    there is.
    """

    def __init__(
        self,
        store: Store,
        scheduler: Scheduler,
        clock: Clock,
        *,
        is_there: Callable[[str], bool],
        must_make_sense: Callable[[DispatchTask], None],
    ) -> None:
        self._store = store
        self._scheduler = scheduler
        self._clock = clock
        self._is_there = is_there
        self._must_make_sense = must_make_sense

    def add(self, wanted: AddJob) -> Job:
        """InvalidInput says what to write instead; Conflict, where a job of that name is still to run."""
        if wanted.key is not None and (known := self._store.with_key(wanted.key)) is not None:
            return self._shown(known)
        now = self._clock.now()
        when = schedule.read(at=wanted.at, every=wanted.every, cron=wanted.cron, tz=wanted.tz, now=now)
        if wanted.delete_after_run and not isinstance(when, At):
            raise InvalidInput("--delete-after-run is for a job with --at, which runs once; leave it away.")
        action = self._action(wanted, once=isinstance(when, At))
        if self._store.count() >= JOBS:
            raise Conflict(f"There are {JOBS} jobs, which is the most; `perry cron remove` makes room.")
        job = JobRecord(
            id=new_id("c"),
            name=self._name(wanted.name, action),
            key=wanted.key,
            created=now,
            schedule=when,
            action=action,
            delete_after_run=wanted.delete_after_run,
            due=schedule.first(when, now),
        )
        self._store.add(job)
        self._scheduler.nudge()
        # As it stands now, with times of milliseconds.
        return self._shown(self._find(job.id))

    def list(self, wanted: ListJobs) -> Jobs:
        """Those that run next first."""
        offset = int(wanted.cursor) if wanted.cursor is not None and wanted.cursor.isdecimal() else 0
        found = self._store.page(offset, wanted.limit + 1)
        return Jobs(
            items=[self._shown(job) for job in found[: wanted.limit]],
            next_cursor=str(offset + wanted.limit) if len(found) > wanted.limit else None,
        )

    def remove(self, wanted: JobRef) -> Job:
        """The job that is gone now. NotFound where there is none."""
        job = self._find(wanted.job)
        shown = self._shown(job)
        self._store.remove(job.id)
        self._scheduler.nudge()
        return shown

    async def run(self, wanted: JobRef) -> JobRun:
        """Run it now, and wait for its end. When it is due stays."""
        run = self._store.get_run(await self._scheduler.run_now(self._find(wanted.job)))
        assert run is not None
        return _shown_run(run)

    def history(self, wanted: ReadHistory) -> JobRuns:
        """NotFound where there is no such job, and none that ran."""
        before = None
        if wanted.before is not None:
            if (run := self._store.get_run(wanted.before)) is None:
                raise NotFound(f"There is no run {wanted.before!r} any more; read the history anew.")
            before = run.number
        found = self._store.history(wanted.job, before, wanted.limit + 1)
        if wanted.job is not None and not found and before is None:
            self._find(wanted.job)
        return JobRuns(items=[_shown_run(run) for run in found[: wanted.limit]], more=len(found) > wanted.limit)

    def _find(self, name_or_id: str) -> JobRecord:
        if (job := self._store.find(name_or_id)) is None:
            raise NotFound(f"There is no job {name_or_id!r}; `perry cron list` shows them all.")
        return job

    def _name(self, wanted: str | None, action: Action) -> str:
        if wanted is not None:
            if not 0 < len(wanted.strip()) == len(wanted) <= NAME_LIMIT or not wanted.isprintable():
                raise InvalidInput(f"A name has 1 to {NAME_LIMIT} characters on one line; choose another --name.")
            if self._taken(wanted):
                raise Conflict(
                    f"There is a job {wanted!r} already; choose another --name, or remove it with "
                    f"`perry cron remove {wanted!r}`."
                )
            return wanted
        base = "-".join(re.findall(r"[a-z0-9]+", described(action).text[:200].lower())[:3])[:40] or "job"
        for name in (base, *(f"{base}-{number}" for number in range(2, 10))):
            if not self._taken(name):
                return name
        return f"{base}-{random_letters(6)}"

    def _action(self, wanted: AddJob, *, once: bool) -> Action:
        text = _message(wanted)
        if wanted.dispatch is not None:
            if text is not None or wanted.check is not None:
                raise InvalidInput("A task, a check and a message are three jobs; add one for each.")
            return self._dispatch(wanted, wanted.dispatch)
        if wanted.check is not None:
            self._must_be_there(wanted.check)
            return Check(workspace=wanted.check, once=once, text=text or "", mode=wanted.wake, session=wanted.session)
        if text is None:
            raise InvalidInput(
                "It is not said what to do; give --message 'what your assistant is to be told', --check WORKSPACE or "
                "--dispatch WORKSPACE."
            )
        return Wake(text=text, mode=wanted.wake, session=wanted.session)

    def _dispatch(self, wanted: AddJob, task: DispatchTask) -> Dispatch:
        if wanted.session is SessionTarget.ISOLATED or wanted.wake is not WakeMode.NOW:
            raise InvalidInput(
                "How a task's end wakes is said with the task (`wake`), and always to the main session; leave "
                "`session` and the job's own `wake` away."
            )
        if (task.clone or "").startswith(UPLOADED) or task.origin is not None:
            raise InvalidInput("A job clones when it runs, and a path on your device may be gone then; give a URL.")
        self._must_make_sense(task)
        if not task.create:
            self._must_be_there(task.workspace)
        # Each run has a key of its own.
        return Dispatch(task=msgspec.structs.replace(task, key=None))

    def _must_be_there(self, workspace: str) -> None:
        if not self._is_there(workspace):
            raise NotFound(f"There is no workspace {workspace!r}; `perry list` shows them all.")

    def _taken(self, name: str) -> bool:
        job = self._store.find(name)
        return job is not None and job.due is not None

    def _shown(self, job: JobRecord) -> Job:
        when, last, does = job.schedule, self._store.last_run(job.id), described(job.action)
        return Job(
            id=job.id,
            name=job.name,
            created=job.created,
            action=does.kind,
            delete_after_run=job.delete_after_run,
            at=when.time if isinstance(when, At) else None,
            every=when.seconds if isinstance(when, Every) else None,
            cron=when.expression if isinstance(when, Line) else None,
            tz=when.tz if isinstance(when, Line) else None,
            text=does.text[:TEXT_SHOWN],
            wake=does.wake,
            session=does.session,
            workspace=does.workspace,
            agent=does.agent,
            next=job.due,
            last=None if last is None else _shown_run(last),
        )


def _message(wanted: AddJob) -> str | None:
    """What the assistant is to be told, under either of its two names."""
    if wanted.message is not None and wanted.system_event is not None:
        raise InvalidInput("--message and --system-event are two words for the same; give one of them.")
    text = wanted.message if wanted.message is not None else wanted.system_event
    if text is None or not text.strip():
        return None
    if (size := len(text.encode(errors="replace"))) > MESSAGE_LIMIT:
        raise InvalidInput(
            f"The message has {size >> 10} KB, and {MESSAGE_LIMIT >> 10} KB are the most; put the rest into a "
            "file, and name that."
        )
    return text


def _shown_run(run: RunRecord) -> JobRun:
    ended = Outcome.FAILED if run.failed else Outcome.OK
    return JobRun(
        id=run.id,
        job_id=run.job,
        job=run.name,
        due=run.due,
        started=run.started,
        outcome=Outcome.RUNNING if run.ended is None else ended,
        by_hand=run.by_hand,
        ended=run.ended,
        detail=run.detail,
    )
