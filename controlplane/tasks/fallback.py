"""Looks for itself where nobody tells: the insurance of every dispatched task.

A task that is under way is looked at twice a minute, so that one in which nothing moves is found soon after it has
stalled. When its fallback is due (20 minutes after it was dispatched, and every 20 minutes), whatever the look
concludes wakes, unless it works, waits for its turn, or was told of.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import anyio
import msgspec

from controlplane.errors import InvalidInput, NotFound, PerryError
from controlplane.ports import Waker
from controlplane.quoting import clean, quoted
from controlplane.tasks import policy
from controlplane.tasks.looking import Looker
from controlplane.tasks.policy import Conclusion, Marks, Verdict
from controlplane.tasks.state import UNDER_WAY, VERBS, Record, left_behind, shown
from controlplane.tasks.store import Store
from protocol.tasks import Checked, CheckTask, TaskState
from protocol.workspaces import Workspace

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0
"""From the beginning of a round of looks to that of the next, at most; shorter where thresholds are."""

SHORTEST_SECONDS: Final = 2.0

AT_ONCE: Final = 16
"""Looks that are under way side by side. Where workers do not answer, a round of fifty takes 40 seconds."""

WORST_FIRST: Final = (
    Conclusion.FAILED,
    Conclusion.STALLED,
    Conclusion.UNREACHABLE,
    Conclusion.WAITING,
    Conclusion.FINISHED_SILENTLY,
    Conclusion.WORKING,
    Conclusion.TOLD,
)
"""Which of several tasks of a workspace says what is concluded of it."""

UNTOLD: Final = {
    TaskState.SUCCEEDED: Conclusion.FINISHED_SILENTLY,
    TaskState.FAILED: Conclusion.FAILED,
    TaskState.LOST: Conclusion.FAILED,
}
"""What a task that has ended comes to where no wake told of it. Who cancels one knows."""

BY_HAND: Final = 1_000
"""Sessions that nobody dispatched of which the latest look is kept, until the next restart."""

AFTERWARDS: Final = timedelta(seconds=30)
"""So long after the end of its task a session may still write."""


class Look(msgspec.Struct, frozen=True):
    """What is kept of the latest look at a task. ``said`` is what was told last: nobody is told the same again and
    again."""

    marks: Marks
    said: Conclusion | None = None


_looks: msgspec.json.Decoder[Look] = msgspec.json.Decoder(Look)


class Workspaces(Protocol):
    """What is asked of workspaces; see :class:`controlplane.workspaces.service.Workspaces`."""

    async def get(self, name: str) -> Workspace: ...


class Fallback:
    """``changed`` writes a task down and tells everybody of it. ``problem`` says why one does not begin although its
    turn has come."""

    def __init__(
        self,
        store: Store,
        looker: Looker,
        waker: Waker,
        changed: Callable[[Record], None],
        workspaces: Workspaces,
        *,
        problem: Callable[[str], str | None],
        every: timedelta,
        stall: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._looker = looker
        self._waker = waker
        self._changed = changed
        self._workspaces = workspaces
        self._problem = problem
        self._every = every
        self._stall = stall
        self._now = now
        self._by_hand: dict[tuple[str, str, str], Marks] = {}
        self._saved = store.looks()
        self._looks = {id_: _looks.decode(look) for id_, look in self._saved.items()}

    async def run(self) -> None:
        """For ever."""
        shortest = min(self._stall, self._every or self._stall).total_seconds() / 4
        pause = min(max(shortest, SHORTEST_SECONDS), LOOK_SECONDS)
        while True:
            began = anyio.current_time()
            try:
                await self.look_at_all()
            except Exception:
                # As when the disk is full. The next round makes up for it.
                log.exception("tasks could not be looked at")
            await anyio.sleep(max(began + pause - anyio.current_time(), 0))

    async def look_at_all(self) -> None:
        """One round. A look that fails is one that the next round makes up for."""
        under_way = [record for record in self._store.unsettled() if not record.over]
        ids = {record.id for record in under_way}
        self._looks = {id_: look for id_, look in self._looks.items() if id_ in ids}
        limiter = anyio.CapacityLimiter(AT_ONCE)

        async def look(record: Record) -> None:
            async with limiter:
                try:
                    await self._look_at(record)
                except PerryError as exc:
                    log.warning("task %s could not be looked at: %s", record.id, exc.message)
                except Exception:
                    log.exception("task %s", record.id)

        async with anyio.create_task_group() as tasks:
            for record in under_way:
                tasks.start_soon(look, record)
        looks = {id_: msgspec.json.encode(left).decode() for id_, left in self._looks.items()}
        self._store.save_looks({id_: look for id_, look in looks.items() if self._saved.get(id_) != look})
        self._saved = looks

    async def check(self, wanted: CheckTask) -> Checked:
        """What a look concludes, now. What waits is not changed by it."""
        if (wanted.id is None) == (wanted.workspace is None):
            raise InvalidInput("Name a task or a workspace.")
        if wanted.id is None:
            return await self._check_workspace(str(wanted.workspace))
        record = self._store.get(wanted.id)
        if record is None:
            raise NotFound(f"There is no task {wanted.id!r}; `perry tasks list` shows them.")
        return await self._check_task(record)

    async def _check_task(self, record: Record) -> Checked:
        if record.over or not (record.state in UNDER_WAY or self._problem(record.id)):
            return _as_it_stands(record, self._now())
        return _checked(await self._conclude(record), record)

    async def _check_workspace(self, name: str) -> Checked:
        """The tasks that are under way in it, and else what was active last: a session, or a task that has ended."""
        await self._workspaces.get(name)
        tasks = [each for each in self._store.unsettled() if each.workspace == name and each.state in UNDER_WAY]
        if tasks:
            found = [(await self._conclude(record), record) for record in tasks]
            found.sort(key=lambda each: WORST_FIRST.index(each[0].conclusion))
            checked = _checked(*found[0])
            return msgspec.structs.replace(checked, text=" ".join(verdict.text for verdict, _ in found))
        session = await self._looker.latest_session(name)
        last = next(iter(self._store.page(workspace=name, state=None, before=None, limit=1)), None)
        if last is not None and (session is None or _is_of(last, session.last_activity)):
            return await self._check_task(last)
        if session is None:
            raise NotFound(
                f"Nothing is known of a coding agent in {name!r}: it has had no session, and no task; "
                f"`perry dispatch {name} 'what to do'` gives it one."
            )
        key = (session.workspace, session.agent, session.session_id)
        verdict = policy.conclude(
            await self._looker.at_session(session), self._by_hand.pop(key, None), stall=self._stall
        )
        self._by_hand[key] = verdict.marks
        while len(self._by_hand) > BY_HAND:
            self._by_hand.pop(next(iter(self._by_hand)))
        return _checked(verdict, None)

    # --- one task

    async def _look_at(self, record: Record) -> None:
        if record.state is TaskState.QUEUED and self._problem(record.id) is None:
            return  # Its turn has not come.
        verdict = await self._conclude(record)
        said = self._said(record.id) if verdict.wakes else None
        self._looks[record.id] = Look(marks=verdict.marks, said=said)
        latest = self._store.get(record.id)
        if latest is None or (latest.state in UNDER_WAY) != (record.state in UNDER_WAY) or latest.over:
            return  # It ended (or began) while it was looked at, and that tells of itself.
        latest = self._note_stall(latest, verdict)
        if verdict.conclusion is Conclusion.STALLED and latest.wakes:
            await self._say(latest, verdict, f"{latest.id}-stalled-{latest.stalls}")
        due = self._due(latest)
        if due > latest.checks:
            if verdict.wakes:
                await self._say(latest, verdict, f"{latest.id}-fallback-{due}")
            # Those that were missed are one.
            self._changed(msgspec.structs.replace(self._store.get(latest.id) or latest, checks=due))

    async def _conclude(self, record: Record) -> Verdict:
        if record.state is TaskState.QUEUED:
            seen = self._looker.at_queued(record, self._problem(record.id))
        else:
            seen = await self._looker.at_task(record)
        before = self._looks.get(record.id)
        return policy.conclude(seen, None if before is None else before.marks, stall=self._stall)

    def _said(self, id_: str) -> Conclusion | None:
        return self._looks[id_].said if id_ in self._looks else None

    def _note_stall(self, record: Record, verdict: Verdict) -> Record:
        stalls = verdict.conclusion is Conclusion.STALLED
        if stalls and record.state is TaskState.RUNNING:
            reason = clean(verdict.text)[:1000]
            record = msgspec.structs.replace(record, state=TaskState.STALLED, reason=reason, stalls=record.stalls + 1)
            self._changed(record)
        elif not stalls and record.state is TaskState.STALLED:
            record = msgspec.structs.replace(record, state=TaskState.RUNNING, reason=None)
            self._changed(record)
        return record

    def _due(self, record: Record) -> int:
        """How many of its fallbacks are due by now."""
        every = self._every.total_seconds() if record.wishes.fallback is None else record.wishes.fallback
        if not record.wakes or every <= 0:
            return 0
        return max(0, int((self._now() - record.created).total_seconds() // every))

    async def _say(self, record: Record, verdict: Verdict, id_: str) -> None:
        if self._said(record.id) == verdict.conclusion:
            return
        commands = " ".join(f"`{command}`" for command in verdict.commands)
        text = f"{verdict.text} Look further: {commands}" if commands else verdict.text
        await self._waker.wake(text, mode=record.wishes.wake, workspace=record.workspace, task=record.id, id=id_)
        self._looks[record.id] = Look(marks=verdict.marks, said=verdict.conclusion)


def _is_of(task: Record, active: datetime) -> bool:
    """Whether what was active last is that task, or is over since it has ended."""
    return active <= (task.ended or task.created) + AFTERWARDS


def _as_it_stands(record: Record, now: datetime) -> Checked:
    """Of a task that has ended, or whose turn has not come. What a wake told of is told; what none did is not."""
    who = f"Task {record.id} ({record.wishes.agent} in {record.workspace})"
    if not record.over:
        text, conclusion = f"{who} waits for its turn.", str(record.state)
    else:
        left = "" if record.outcome is None else left_behind(record.outcome)
        why = f"Why: {quoted(record.reason)}." if record.reason else ""
        text = " ".join(filter(None, (f"{who} {VERBS[record.state]}.", why, left)))
        conclusion = UNTOLD.get(record.state, Conclusion.TOLD)
        if record.wake_id is not None:
            text, conclusion = f"{text} Wake {record.wake_id} told of it.", Conclusion.TOLD
        elif record.wishes.quiet:
            conclusion = Conclusion.TOLD
    quiet = max(now - (record.ended or now), timedelta(0)).total_seconds()
    commands = [f"perry tasks result {record.id}"]
    return Checked(conclusion=str(conclusion), text=text, commands=commands, quiet=quiet, task=shown(record))


def _checked(verdict: Verdict, record: Record | None) -> Checked:
    return Checked(
        conclusion=verdict.conclusion,
        text=verdict.text,
        commands=list(verdict.commands),
        quiet=verdict.quiet.total_seconds(),
        task=None if record is None else shown(record),
    )
