"""What stands in a task's folder. Everything is written whole or not at all.

``task.json`` what was asked, but for the text (:class:`Spec`) · ``text`` the task · ``log`` what the agent prints, for
people · ``state.json`` how it stands (:class:`State`) · ``cancel`` is there where it is to be ended · ``told`` once its
end need not be told of any more.
"""

import os
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from protocol.tasks import TaskState

TASK: Final = "task.json"
TEXT: Final = "text"
LOG: Final = "log"
STATE: Final = "state.json"
TOLD: Final = "told"
CANCEL: Final = "cancel"

LOG_LIMIT: Final = 64 << 20
"""Bytes of a log; what comes after is dropped, and the log says so."""

MESSAGE_LIMIT: Final = 16_000
"""Characters of the agent's last message that are kept."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. ``folder`` is where the agent works; ``session_id`` is one that we chose for it."""

    id: str
    agent: str
    folder: str
    session_id: str
    model: str | None = None
    timeout: float | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """How it stands. ``pid`` and ``pid_started`` (field 22 of its ``stat``) are the runner's; ``base`` is the commit on
    which the work began."""

    state: TaskState
    started: datetime
    pid: int
    pid_started: int
    base: str | None = None
    ended: datetime | None = None
    exit_code: int | None = None
    reason: str | None = None
    session_id: str | None = None
    last_message: str | None = None


def write(path: Path, data: bytes) -> None:
    """Whole or not at all, also when the machine stops."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def read_spec(folder: Path) -> Spec:
    return msgspec.json.decode((folder / TASK).read_bytes(), type=Spec)


def read_state(folder: Path) -> State | None:
    """None where its runner has not come so far."""
    try:
        return msgspec.json.decode((folder / STATE).read_bytes(), type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


STOPPED: Final = "The workspace stopped while the task was running, or its processes were killed."


def write_state(folder: Path, state: State) -> None:
    write(folder / STATE, msgspec.json.encode(state))
