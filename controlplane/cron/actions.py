"""What a job does: the values that say it. Pure; :mod:`.doers` does it.

A new kind of action is one more struct in :data:`Action`, what :func:`described` says of it, and one more doer.
"""

from datetime import datetime, timedelta
from typing import Final

import msgspec

from protocol.tasks import DispatchTask
from protocol.wake import SessionTarget, WakeMode

LATE: Final = timedelta(minutes=1)
"""From here on what is told says that it is late."""


class Wake(msgspec.Struct, frozen=True, tag="wake"):
    """Wake the person's assistant with a text."""

    text: str
    mode: WakeMode = WakeMode.NOW
    session: SessionTarget = SessionTarget.MAIN


class Check(msgspec.Struct, frozen=True, tag="check"):
    """Look at a workspace, and wake the person's assistant with what that comes to.

    ``once``: nobody looks again, so it is told also where all is well. ``text`` comes before what is told.
    """

    workspace: str
    once: bool
    text: str = ""
    mode: WakeMode = WakeMode.NOW
    session: SessionTarget = SessionTarget.MAIN


class Dispatch(msgspec.Struct, frozen=True, tag="dispatch"):
    """Give a coding agent a task, whose end wakes as that of any other."""

    task: DispatchTask


Action = Wake | Check | Dispatch
"""All kinds of them."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """An action as lists show it; see :class:`protocol.cron.Job`. A name is made of ``text``."""

    kind: str
    text: str
    wake: str | None = None
    session: str | None = None
    workspace: str | None = None
    agent: str | None = None


def described(action: Action) -> Described:
    match action:
        case Wake():
            return Described(kind="wake", text=action.text, wake=action.mode, session=action.session)
        case Check():
            return Described(
                kind="check",
                text=action.text or f"check {action.workspace}",
                wake=action.mode,
                session=action.session,
                workspace=action.workspace,
            )
        case Dispatch(task=task):
            return Described(
                kind="dispatch", text=task.task, wake=task.wake, workspace=task.workspace, agent=task.agent
            )


class Begun(msgspec.Struct, frozen=True):
    """A run that is noted as begun. ``id`` is the same however often it is begun again."""

    id: str
    job: str
    action: Action
    due: datetime
    started: datetime
    by_hand: bool = False

    @property
    def runs_of(self) -> str:
        """What the ids of all runs of its job begin with, and no others."""
        return f"{self.id.rpartition('-')[0]}-"


def told(run: Begun, text: str) -> str:
    """The text of a wake; one that is late says so, as its text may speak of the time."""
    late = run.started - run.due
    if run.by_hand or late < LATE:
        return text
    return f"{text}\n(This was due at {run.due:%Y-%m-%d %H:%M} UTC, and comes late.)"
