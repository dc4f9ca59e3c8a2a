"""What a job does. Pure: the values that say it, and the port that does it.

A new kind of action is one more struct in :data:`Action`, what :func:`described` says of it, and one more
:class:`Doer` at wiring. A doer is told which run it is, and drops one that it has done before: after a kill between the
doing and the noting of it, it is asked again.
"""

from datetime import datetime, timedelta
from typing import Final, Protocol

import msgspec

from controlplane.ports import Waker
from protocol.cron import SessionTarget
from protocol.wake import WakeMode

LATE: Final = timedelta(minutes=1)
"""From here on what is told says that it is late."""


class Wake(msgspec.Struct, frozen=True, tag="wake"):
    """Wake the person's assistant with a text."""

    text: str
    mode: WakeMode = WakeMode.NOW
    session: SessionTarget = SessionTarget.MAIN


Action = Wake
"""All kinds of them: a union, once there are more."""


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """An action as lists show it; see :class:`protocol.cron.Job`. A name is made of ``text``."""

    kind: str
    text: str
    wake: str | None = None
    session: str | None = None


def described(action: Action) -> Described:
    return Described(kind="wake", text=action.text, wake=action.mode, session=action.session)


class Begun(msgspec.Struct, frozen=True):
    """A run that is noted as begun. ``id`` is the same however often it is begun again."""

    id: str
    job: str
    action: Action
    due: datetime
    started: datetime
    by_hand: bool = False


class Doer(Protocol):
    """Does one kind of action. Called once for each run, and again with the same id after a kill."""

    async def do(self, run: Begun) -> str | None:
        """What came of it, for the history. PerryError says why it failed."""


class Wakes:
    """Does :class:`Wake`."""

    def __init__(self, waker: Waker) -> None:
        self._waker = waker

    async def do(self, run: Begun) -> str | None:
        return f"wake {await self._waker.wake(told(run), mode=run.action.mode, id=f'cron-{run.id}')}"


def told(run: Begun) -> str:
    """The text of a wake; one that is late says so, as its text may speak of the time."""
    late = run.started - run.due
    if run.by_hand or late < LATE:
        return run.action.text
    return f"{run.action.text}\n(This was due at {run.due:%Y-%m-%d %H:%M} UTC, and comes late.)"
