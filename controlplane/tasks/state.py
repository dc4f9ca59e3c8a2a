"""How a task stands, and what follows from what its worker tells. Pure.

queued ──► running ⇄ waiting ──► succeeded | failed | cancelled
   │           └── stalled            lost from anywhere its workspace goes
   └──► cancelled | failed
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime

import msgspec

from controlplane.quoting import clean, hexadecimal, quoted
from controlplane.tasks.paragraph import count
from controlplane.workspaces.repository import same
from protocol.tasks import ENDED, Commit, DispatchTask, RemoveWhen, Task, TaskState, WakeWhen
from protocol.worker import TaskOutcome, TaskSeen
from protocol.workspaces import UPLOADED, Workspace

SHOWN = 400
"""Characters of a task's text that lists show."""

SAID = 1500
"""Characters of the agent's last message that a wake carries."""

REASON = 1000
TEXT = 200
SUBJECT = 120
"""And those of why it ended so, of what was asked for, and of a commit's subject."""

UNDER_WAY = frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.STALLED})

TOLD = frozenset(
    {TaskState.RUNNING, TaskState.WAITING, TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED},
)
"""What a worker may say of a task."""


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for with a task, besides its text."""

    agent: str
    wake: str
    remove_when: str
    model: str | None = None
    timeout: float | None = None
    create: bool = False
    start: bool = False
    clone: str | None = None
    origin: str | None = None
    branch: str | None = None
    fallback: float | None = None
    quiet: bool = False
    """Its end wakes nobody: whoever dispatched it tells of that."""
    own: bool = False
    """It works in a workspace that is made for it, and in no other."""


def wishes(wanted: DispatchTask, *, quiet: bool = False, own: bool = False) -> Wishes:
    return Wishes(
        agent=wanted.agent,
        wake=wanted.wake,
        remove_when=wanted.remove_when,
        model=wanted.model,
        timeout=wanted.timeout,
        create=wanted.create,
        start=wanted.start or wanted.create,
        clone=wanted.clone,
        origin=wanted.origin,
        branch=wanted.branch,
        fallback=wanted.fallback,
        quiet=quiet,
        own=own,
    )


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A task as state.db has it. ``text`` is its beginning; ``waits`` counts how often it began to wait."""

    number: int
    id: str
    workspace: str
    wishes: Wishes
    text: str
    state: TaskState
    created: datetime
    started: datetime | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    session_id: str | None = None
    last_message: str | None = None
    waits: int = 0
    wake_id: str | None = None
    outcome: TaskOutcome | None = None
    removal: str | None = None
    stalls: int = 0
    """How often nothing moved in it for too long."""
    checks: int = 0
    """How many of its fallback checks were due by now, and are done."""
    settled: bool = False

    @property
    def over(self) -> bool:
        return self.state in ENDED

    @property
    def wakes(self) -> bool:
        return self.wishes.wake != WakeWhen.NONE

    @property
    def removes(self) -> bool:
        """Whether its workspace is to go, now that it has ended."""
        done = self.wishes.remove_when == RemoveWhen.DONE
        return done or (self.wishes.remove_when == RemoveWhen.SUCCESS and self.state is TaskState.SUCCEEDED)


def shown(record: Record) -> Task:
    """As clients see it."""
    return Task(
        id=record.id,
        workspace=record.workspace,
        agent=record.wishes.agent,
        state=record.state,
        text=record.text,
        created=record.created,
        wake=record.wishes.wake,
        remove_when=record.wishes.remove_when,
        model=record.wishes.model,
        timeout=record.wishes.timeout,
        started=record.started,
        ended=record.ended,
        exit_code=record.exit_code,
        reason=record.reason,
        session_id=record.session_id,
        wake_id=record.wake_id,
        removal=record.removal,
    )


def heard(record: Record, seen: TaskSeen, now: datetime) -> Record:
    """The task after its worker told of it. What has ended stays as it ended; an unknown state changes nothing.

    A workspace's clock is its own affair: no time of it may lie before the task was made, or after now.
    """
    if record.over or seen.state not in TOLD:
        return record
    waits = record.waits + (seen.state is TaskState.WAITING and record.state is not TaskState.WAITING)
    over = seen.state in ENDED
    return msgspec.structs.replace(
        record,
        state=seen.state,
        started=_within(seen.started, record.created, now),
        ended=_within(seen.ended or now, record.created, now) if over else None,
        exit_code=seen.exit_code if over else None,
        reason=clean(seen.reason) if seen.reason else None,
        session_id=seen.session_id or record.session_id,
        last_message=seen.last_message or record.last_message,
        waits=waits,
    )


def stopped(workspace: str) -> str:
    """Why a task has failed whose workspace somebody has stopped."""
    return (
        f"The workspace {workspace!r} was stopped while the task was running; `perry start {workspace}` starts it with "
        "what is there by now, and the task can be dispatched again."
    )


def made_meanwhile(workspace: str) -> str:
    """Why a task that wants a workspace of its own does not begin."""
    return (
        f"The workspace {workspace!r} was made meanwhile by somebody else, so nothing was done in it; give the item "
        "another --name, or let it work in what is there with --reuse."
    )


def other_repository(workspace: Workspace, clone: str) -> str | None:
    """Why a task that is to work in a clone of that does not begin in a workspace that is there: an agent would set to
    work on something else. None where it is a clone of that. What is sent from a folder is not compared."""
    if clone.startswith(UPLOADED) or (workspace.repo is not None and same(workspace.repo, clone)):
        return None
    has = "without a repository" if workspace.repo is None else f"with {workspace.repo}"
    return f"The workspace {workspace.name!r} exists already, {has}; choose another name, or leave --clone out."


def ended(record: Record, state: TaskState, reason: str | None, now: datetime) -> Record:
    """The task, ended by us and not by its worker."""
    return msgspec.structs.replace(record, state=state, reason=reason, ended=now)


def _within(at: datetime, least: datetime, most: datetime) -> datetime:
    return min(max(at, least), most) if at.tzinfo is not None else most


def next_to_begin(
    queued: Iterable[Record], under_way: Iterable[Record], *, parallel: int, per_workspace: int
) -> list[Record]:
    """The queued tasks whose turn has come, in their order: so many at once, and so many in each workspace."""
    busy = Counter(record.workspace for record in under_way)
    free = parallel - busy.total()
    chosen: list[Record] = []
    for record in sorted(queued, key=lambda each: each.number):
        if free > len(chosen) and busy[record.workspace] < per_workspace:
            busy[record.workspace] += 1
            chosen.append(record)
    return chosen


def wake_id(record: Record) -> str:
    """Of the wake that tells of the task's state: the same state is the same wake, however often it is told of."""
    return f"{record.id}-waiting-{record.waits}" if record.state is TaskState.WAITING else f"{record.id}-{record.state}"


VERBS = {
    TaskState.SUCCEEDED: "is done",
    TaskState.FAILED: "has failed",
    TaskState.CANCELLED: "was cancelled",
    TaskState.LOST: "is lost",
    TaskState.WAITING: "waits for a person",
}


def wake_text(record: Record, outcome: TaskOutcome | None) -> str:
    """What the one who waits is told: what happened, what the agent said, what it left, and how to look further."""
    lines = [f"Task {record.id} ({record.wishes.agent} in {record.workspace}) {VERBS[record.state]}."]
    if record.reason:
        lines.append(f"Why: {quoted(record.reason, REASON)}")
    lines.append(f"Task: {quoted(record.text, TEXT)}")
    if said := (outcome.last_message if outcome else None) or record.last_message:
        lines.append(f"The agent said: {quoted(said, SAID)}")
    if outcome is not None and (left := left_behind(outcome)):
        lines.append(left)
    lines.append(f"Look further: `perry tasks result {record.id}`, `perry tasks logs {record.id}`.")
    return "\n".join(lines)


def left_behind(outcome: TaskOutcome) -> str:
    """Commits and files, in one line; nothing where there is none."""
    parts = []
    if outcome.commits:
        newest = outcome.commits[0]
        named = f"{hexadecimal(newest.id)[:10]} {quoted(newest.subject, SUBJECT)}"
        parts.append(f"{count(len(outcome.commits), 'commit')}, the newest {named}")
    if outcome.uncommitted:
        parts.append(f"{count(outcome.uncommitted, 'file')} not committed")
    if outcome.unpushed:
        parts.append(f"{count(outcome.unpushed, 'commit')} not pushed")
    return f"It left {'; '.join(parts)}." if parts else ""


def bounded(outcome: TaskOutcome) -> TaskOutcome:
    """What a worker says that a task left, within bounds."""
    return TaskOutcome(
        last_message=outcome.last_message[:20_000] if outcome.last_message else None,
        commits=tuple(bounded_commit(commit) for commit in outcome.commits[:200]),
        diff_stat=outcome.diff_stat[:20_000] if outcome.diff_stat else None,
        uncommitted=outcome.uncommitted,
        unpushed=outcome.unpushed,
        unknown=clean(outcome.unknown)[:500] if outcome.unknown else None,
    )


def bounded_commit(commit: Commit) -> Commit:
    """What a worker says of one commit, within bounds."""
    return msgspec.structs.replace(commit, id=clean(commit.id)[:64], subject=clean(commit.subject)[:500])
