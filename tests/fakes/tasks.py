"""Tasks in a worker in memory: each begins at once, and is done in a moment, unless its text says that it waits."""

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from controlplane.errors import WorkerError
from protocol.tasks import ENDED, Commit, TaskState
from protocol.worker import (
    CancelTask,
    Done,
    ForgetTask,
    LookAtTask,
    ReadOutcome,
    ReadTaskLog,
    Request,
    Result,
    StartTask,
    TaskLog,
    TaskLook,
    TaskOutcome,
    TaskSeen,
)

GOES_ON = "[[goes on]]"
"""In its text: the task ends when it is cancelled, and not before."""

MOMENT = 0.05


class FakeTasks:
    """``tell`` hears of each change. What a task is asked to do, it says that it has done, in one commit."""

    def __init__(self, tell: Callable[[TaskSeen], None]) -> None:
        self._tell = tell
        self._texts: dict[str, str] = {}
        self._seen: dict[str, TaskSeen] = {}
        self._forgotten: set[str] = set()

    def seen(self) -> list[TaskSeen]:
        """What a stream that begins is told."""
        return [seen for id_, seen in self._seen.items() if id_ not in self._forgotten]

    def answer(self, request: Request) -> Result | None:
        """None for what is not about tasks."""
        match request:
            case StartTask():
                self._begin(request)
                return Done()
            case CancelTask(id=id_):
                self._end(self._must(id_).id, TaskState.CANCELLED)
                return Done()
            case ForgetTask(id=id_):
                self._forgotten.add(id_)
                return Done()
            case ReadTaskLog(id=id_, offset=offset, limit=limit):
                log = self._log(id_)
                begin = min(max(offset if offset >= 0 else len(log) + offset, 0), len(log))
                piece = log[begin : begin + limit]
                return TaskLog(text=piece, offset=begin, next=begin + len(piece), size=len(log))
            case ReadOutcome(id=id_):
                commit = Commit(id=hashlib.sha1(id_.encode()).hexdigest(), subject=self._texts[self._must(id_).id][:60])
                return TaskOutcome(
                    last_message=self._must(id_).last_message, commits=(commit,), uncommitted=0, unpushed=1
                )
            case LookAtTask(id=None):
                return TaskLook(commits=0, changed=0)
            case LookAtTask(id=str(id_)):
                count = 0 if self._must(id_).state in ENDED else 1
                return TaskLook(
                    processes=count, log_size=len(self._log(id_)), log_tail=self._log(id_), commits=0, changed=0
                )
            case _:
                return None

    def _begin(self, request: StartTask) -> None:
        if request.id in self._seen:
            return  # Asked again, it begins once.
        self._texts[request.id] = request.text
        self._change(TaskSeen(seq=0, id=request.id, state=TaskState.RUNNING, started=datetime.now(UTC)))
        if GOES_ON not in request.text:
            asyncio.get_running_loop().call_later(MOMENT, self._end, request.id, TaskState.SUCCEEDED)

    def _end(self, id_: str, how: TaskState) -> None:
        seen = self._seen[id_]
        if seen.state not in ENDED:
            said = f"I have done it: {self._texts[id_]}" if how is TaskState.SUCCEEDED else None
            code = 0 if how is TaskState.SUCCEEDED else 143
            ended = msgspec.structs.replace(seen, state=how, ended=datetime.now(UTC), exit_code=code, last_message=said)
            self._change(ended)

    def _change(self, seen: TaskSeen) -> None:
        self._seen[seen.id] = seen
        self._tell(seen)

    def _log(self, id_: str) -> str:
        return f"{self._must(id_).started:%H:%M:%S} at work: {self._texts[id_]}\n"

    def _must(self, id_: str) -> TaskSeen:
        if id_ not in self._seen:
            raise WorkerError(f"There is no task {id_!r} here.")
        return self._seen[id_]
