"""Long work, one job at a time for each workspace, in the control plane's own task group."""

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import anyio

from controlplane.errors import Conflict, PerryError, StepFailed

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

log = logging.getLogger(__name__)


class Job:
    """Something long that happens to one workspace. ``error`` is set when ``done`` is, where it failed."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.scope = anyio.CancelScope()
        self.done = anyio.Event()
        self.error: PerryError | None = None


class Jobs:
    """The jobs that are under way, by workspace."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._tasks: TaskGroup | None = None

    def run_in(self, tasks: "TaskGroup") -> None:
        """All jobs run in this task group."""
        self._tasks = tasks

    def get(self, name: str) -> Job | None:
        return self._jobs.get(name)

    def busy(self, name: str) -> bool:
        """Whether a job has this workspace."""
        return name in self._jobs

    def submit(self, name: str, kind: str, run: Callable[[str], Awaitable[None]]) -> Job:
        """Begin a job; Conflict where another is under way."""
        assert self._tasks is not None
        if (other := self._jobs.get(name)) is not None:
            raise Conflict(f"A {other.kind} of {name!r} is under way; try again when it has ended.")
        job = self._jobs[name] = Job(kind)
        self._tasks.start_soon(self._run, name, job, run)
        return job

    async def _run(self, name: str, job: Job, run: Callable[[str], Awaitable[None]]) -> None:
        try:
            with job.scope:
                await run(name)
            if job.scope.cancelled_caught:
                job.error = StepFailed(f"The {job.kind} of {name!r} was broken off by another request.")
        except PerryError as exc:
            job.error = exc
            log.warning("the %s of workspace %s failed: %s", job.kind, name, exc.message)
        except Exception:
            log.exception("the %s of workspace %s crashed", job.kind, name)
            job.error = StepFailed(f"The {job.kind} of {name!r} failed for a reason of Perry's own; see its log.")
        finally:
            del self._jobs[name]
            job.done.set()

    async def finished(self, job: Job) -> None:
        """Wait for its end, and raise what it failed with."""
        await job.done.wait()
        if job.error is not None:
            raise job.error

    async def end(self, name: str) -> None:
        """Break off what is under way; each job is safe to be broken off anywhere."""
        while (job := self._jobs.get(name)) is not None:
            job.scope.cancel()
            await job.done.wait()
