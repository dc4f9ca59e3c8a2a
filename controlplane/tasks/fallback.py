"""Looks for itself where nobody tells: the insurance of every dispatched task.

A task that is under way is looked at twice a minute, so that one in which nothing moves is found soon after it has
stalled. When its fallback is due (20 minutes after its start, and every 20 minutes), whatever the look concludes wakes,
unless it works or was told of.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import anyio
import msgspec

from controlplane.errors import InvalidInput, NotFound, PerryError
from controlplane.ports import Waker
from controlplane.tasks import policy
from controlplane.tasks.looking import Looker
from controlplane.tasks.policy import Conclusion, Marks, Verdict
from controlplane.tasks.state import UNDER_WAY, Record, shown
from controlplane.tasks.store import Store
from controlplane.tasks.words import clean
from protocol.tasks import Checked, CheckTask, TaskState

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 30.0
AT_ONCE: Final = 8
"""Looks that are under way side by side."""


class Fallback:
    """``changed`` writes a task down and tells everybody of it."""

    def __init__(
        self,
        store: Store,
        looker: Looker,
        waker: Waker,
        changed: Callable[[Record], None],
        *,
        every: timedelta,
        stall: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._looker = looker
        self._waker = waker
        self._changed = changed
        self._every = every
        self._stall = stall
        self._now = now
        self._marks: dict[str, Marks] = {}
        self._said: dict[str, Conclusion] = {}
        """What was said last of each: nobody is told the same again and again."""

    async def run(self) -> None:
        """For ever."""
        while True:
            await self.look_at_all()
            await anyio.sleep(LOOK_SECONDS)

    async def look_at_all(self) -> None:
        """One round. A look that fails is one that the next round makes up for."""
        under_way = [record for record in self._store.unsettled() if record.state in UNDER_WAY]
        ids = {record.id for record in under_way}
        self._marks = {id_: marks for id_, marks in self._marks.items() if id_ in ids}
        self._said = {id_: said for id_, said in self._said.items() if id_ in ids}
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

    async def check(self, wanted: CheckTask) -> Checked:
        """What a look concludes, now. What waits is not changed by it."""
        if (wanted.id is None) == (wanted.workspace is None):
            raise InvalidInput("Name a task or a workspace.")
        if wanted.id is None:
            verdict = policy.conclude(await self._looker.at_workspace(str(wanted.workspace)), None, stall=self._stall)
            return _checked(verdict, None)
        record = self._store.get(wanted.id)
        if record is None:
            raise NotFound(f"There is no task {wanted.id!r}; `perry tasks list` shows them.")
        if record.state not in UNDER_WAY:
            text = f"Task {record.id} ({record.wishes.agent} in {record.workspace}) is {record.state}."
            commands = [f"perry tasks result {record.id}"]
            conclusion = str(record.state) if not record.over else "told"
            return Checked(conclusion=conclusion, text=text, commands=commands, quiet=0.0, task=shown(record))
        verdict = policy.conclude(await self._looker.at_task(record), self._marks.get(record.id), stall=self._stall)
        return _checked(verdict, record)

    # --- one task

    async def _look_at(self, record: Record) -> None:
        seen = await self._looker.at_task(record)
        verdict = policy.conclude(seen, self._marks.get(record.id), stall=self._stall)
        self._marks[record.id] = verdict.marks
        latest = self._store.get(record.id)
        if latest is None or latest.state not in UNDER_WAY:
            return  # It ended while it was looked at, and that tells of itself.
        if not verdict.wakes:
            self._said.pop(latest.id, None)
        latest = self._note_stall(latest, verdict)
        if verdict.conclusion is Conclusion.STALLED and latest.wakes:
            await self._say(latest, verdict, f"{latest.id}-stalled-{latest.stalls}")
        due = self._due(latest)
        if due > latest.checks:
            if verdict.wakes:
                await self._say(latest, verdict, f"{latest.id}-fallback-{due}")
            # Those that were missed are one.
            self._changed(msgspec.structs.replace(self._store.get(latest.id) or latest, checks=due))

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
        if not record.wakes or every <= 0 or record.started is None:
            return 0
        return max(0, int((self._now() - record.started).total_seconds() // every))

    async def _say(self, record: Record, verdict: Verdict, id_: str) -> None:
        if self._said.get(record.id) == verdict.conclusion:
            return
        commands = " ".join(f"`{command}`" for command in verdict.commands)
        text = f"{verdict.text} Look further: {commands}" if commands else verdict.text
        await self._waker.wake(text, mode=record.wishes.wake, workspace=record.workspace, task=record.id, id=id_)
        self._said[record.id] = verdict.conclusion


def _checked(verdict: Verdict, record: Record | None) -> Checked:
    return Checked(
        conclusion=verdict.conclusion,
        text=verdict.text,
        commands=list(verdict.commands),
        quiet=verdict.quiet.total_seconds(),
        task=None if record is None else shown(record),
    )
