"""What one look at work in a workspace has seen: its processes, its session, its files, its log. Values alone."""

from datetime import datetime

import msgspec

from protocol.sessions import SessionStatus
from protocol.tasks import Commit


class Processes(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's processes, with all that they began. ``cpu`` is what they have used in all, in seconds.

    ``stopped`` counts those that a signal stopped (state T of /proc).
    """

    count: int
    cpu: float
    stopped: int = 0


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """The agent's session. ``said`` is the agent's last message, at ``said_at``.

    ``error`` is what its provider answered last, where that was an error.
    """

    status: SessionStatus
    messages: int
    last_activity: datetime | None = None
    said: str | None = None
    said_at: datetime | None = None
    error: str | None = None


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """``git log -1`` and ``git status --porcelain``. ``commits`` counts those since the task began."""

    last: Commit | None = None
    commits: int = 0
    changed: int = 0


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent printed. ``size`` in bytes, ``tail`` its last lines."""

    size: int
    tail: str = ""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One look. Each part is None where it could not be seen (or there is none).

    ``task`` is None for work that was begun by hand. ``held_up`` says why a task has not begun although its turn has
    come, ``unreachable`` why the workspace could not be looked into.
    ``told`` is the wake that was delivered about it.
    """

    at: datetime
    workspace: str
    agent: str
    task: str | None = None
    started: datetime | None = None
    held_up: str | None = None
    unreachable: str | None = None
    told: str | None = None
    processes: Processes | None = None
    session: Session | None = None
    checkout: Checkout | None = None
    log: Log | None = None
