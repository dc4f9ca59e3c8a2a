"""Does what jobs are for: one class for each kind of action.

A doer is told which run it is, and drops one that it has done before: after a kill between the doing and the noting of
it, it is asked again.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import msgspec

from controlplane.cron.actions import Action, Begun, Check, Dispatch, Wake, told
from controlplane.errors import PerryError
from controlplane.ports import Waker
from controlplane.quoting import quoted
from protocol.tasks import Checked, CheckTask, DispatchTask, Task, WakeWhen

QUIET: Final = frozenset({"working", "told", "queued"})
"""Conclusions that a job which looks again says nothing of."""

SAME: Final = timedelta(seconds=5)
"""What moved within this of each other has moved once."""


class Doer(Protocol):
    """Does one kind of action. Called once for each run, and again with the same id after a kill."""

    async def do(self, run: Begun) -> str | None:
        """What came of it, for the history. PerryError says why it failed."""


class Looks(Protocol):
    """Looks at workspaces; see :class:`controlplane.tasks.fallback.Fallback`."""

    async def check(self, wanted: CheckTask) -> Checked: ...


class Tasks(Protocol):
    """Takes tasks; see :class:`controlplane.tasks.service.TaskService`."""

    async def dispatch(self, wanted: DispatchTask) -> Task: ...

    def going_on(self, keys: str, *, but: str) -> str | None: ...


def doers(waker: Waker, looks: Looks, tasks: Tasks) -> Mapping[type[Action], Doer]:
    """One for each kind of action."""
    return {Wake: Wakes(waker), Check: Checks(looks, waker), Dispatch: Dispatches(tasks, waker)}


def _key(run: Begun) -> str:
    """What a wake and a task of a run are known by."""
    return f"cron-{run.id}"


class Wakes:
    """Does :class:`Wake`."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker

    async def do(self, run: Begun) -> str | None:
        action = run.action
        assert isinstance(action, Wake)
        text = told(run, action.text)
        return f"wake {await self._waker.wake(text, mode=action.mode, session=action.session, id=_key(run))}"


class Checks:
    """Does :class:`Check`. A job that looks again and again tells each thing that it finds once."""

    def __init__(self, looks: Looks, waker: Waker) -> None:
        self._looks = looks
        self._waker = waker
        self._said: dict[str, tuple[str, datetime | None]] = {}
        """What was told last, of each job that looks again, and when something had moved by then. A restart forgets
        it."""

    async def do(self, run: Begun) -> str | None:
        action = run.action
        assert isinstance(action, Check)
        try:
            found = await self._looks.check(CheckTask(workspace=action.workspace))
        except PerryError as exc:
            if self._is_news(run, action, exc.message, None):
                await self._wake(run, action, f"{action.workspace} could not be looked at: {quoted(exc.message)}")
            self._note(run, action, exc.message, None)
            raise
        moved = None if found.conclusion == "unreachable" else datetime.now(UTC) - timedelta(seconds=found.quiet)
        said: str = found.conclusion
        if self._is_news(run, action, found.conclusion, moved):
            commands = " ".join(f"`{command}`" for command in found.commands)
            text = f"{found.text} Look further: {commands}" if commands else found.text
            said = f"{said}; wake {await self._wake(run, action, text)}"
        self._note(run, action, found.conclusion, moved)
        return said

    def _is_news(self, run: Begun, action: Check, what: str, moved: datetime | None) -> bool:
        before = self._said.get(run.runs_of)
        if what in QUIET:
            return action.once and what != "told"
        if before is None or run.by_hand or before[0] != what:
            return True
        return moved is not None and (before[1] is None or abs(moved - before[1]) > SAME)

    def _note(self, run: Begun, action: Check, what: str, moved: datetime | None) -> None:
        """It is told; called after the wake, so that one that failed is tried again by the next run."""
        if what in QUIET:
            self._said.pop(run.runs_of, None)
        elif not action.once:
            self._said[run.runs_of] = (what, moved)

    async def _wake(self, run: Begun, action: Check, text: str) -> str:
        lines = [action.text, f"Job {run.job}: {text}"] if action.text else [f"Job {run.job}: {text}"]
        return await self._waker.wake(
            "\n".join(lines), mode=action.mode, session=action.session, workspace=action.workspace, id=_key(run)
        )


class Dispatches:
    """Does :class:`Dispatch`, unless the task of an earlier run still goes on. What fails wakes: nobody looks on."""

    def __init__(self, tasks: Tasks, waker: Waker) -> None:
        self._tasks = tasks
        self._waker = waker

    async def do(self, run: Begun) -> str | None:
        action = run.action
        assert isinstance(action, Dispatch)
        key = _key(run)
        if not run.by_hand and (before := self._tasks.going_on(f"cron-{run.runs_of}", but=key)) is not None:
            return f"nothing was dispatched, as the task {before} of an earlier run still goes on"
        try:
            task = await self._tasks.dispatch(msgspec.structs.replace(action.task, key=key))
        except PerryError as exc:
            if action.task.wake is not WakeWhen.NONE:
                text = f"Job {run.job}: its task for {action.task.workspace} was not dispatched: {quoted(exc.message)}"
                await self._waker.wake(text, mode=action.task.wake, id=key)
            raise
        return f"task {task.id}"
