"""One look at a task: its processes, its log, its project. What it comes to is the control plane's to say."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from protocol.worker import TaskLook
from worker import processes
from worker.tasks import outcome
from worker.tasks.record import State

TAIL: Final = 2_000
"""Bytes of the log's end that are shown."""


def look(
    folder: str, state: State | None, log: Path | None, pids: Sequence[int] | None, *, around: int = 1
) -> TaskLook:
    """``pids`` are the processes that are looked at, with all below them: none where they have ended, None where nobody
    asked about any. ``around`` of them only stand around the agent."""
    size, tail = (None, "") if log is None else _tail(log)
    last, commits, changed = outcome.standing(folder, None if state is None else state.base)
    if pids is None:
        return TaskLook(last=last, commits=commits, changed=changed)
    count, stopped, cpu = processes.usage(pids)
    inner = max(count - around, 0)
    return TaskLook(
        processes=inner,
        stopped=min(stopped, inner),
        cpu=cpu,
        log_size=size,
        log_tail=tail,
        last=last,
        commits=commits,
        changed=changed,
    )


def _tail(log: Path) -> tuple[int | None, str]:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL))
            return size, file.read(TAIL).decode(errors="replace")
    except OSError:
        return None, ""
