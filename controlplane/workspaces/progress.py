"""Long work besides starts, step by step, for as long as it lasts: who follows `/events` sees how far it is."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

import msgspec

from controlplane.errors import PerryError
from protocol.workspaces import Step, StepStatus, Work


class Kind(StrEnum):
    """What is done."""

    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"


TITLES: Mapping[Kind, Mapping[str, str]] = {
    Kind.STOP: {"stop": "Stop the workspace, its sidecar and its sandbox"},
    Kind.RESTART: {"stop": "Stop the workspace"},
    Kind.DELETE: {
        "containers": "Remove the containers",
        "rest": "Remove its volumes and its network",
    },
}


class Progress:
    """What is under way, by workspace. ``changed`` tells everybody how one stands now."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._work: dict[str, Work] = {}

    def of(self, name: str) -> Work | None:
        return self._work.get(name)

    @contextlib.contextmanager
    def work(self, name: str, kind: Kind) -> Iterator[None]:
        """Something is done to a workspace until the block ends."""
        steps = [Step(id=key, title=title, status=StepStatus.PENDING) for key, title in TITLES[kind].items()]
        self._work[name] = Work(kind=kind, steps=steps)
        try:
            yield
        finally:
            del self._work[name]
            self._changed(name)

    @contextlib.contextmanager
    def step(self, name: str, step: str) -> Iterator[None]:
        """One step of what is under way."""
        began = time.monotonic()
        self._report(name, step, StepStatus.RUNNING)
        try:
            yield
        except PerryError as exc:
            self._report(name, step, StepStatus.FAILED, exc.message, time.monotonic() - began)
            raise
        self._report(name, step, StepStatus.DONE, None, time.monotonic() - began)

    def _report(
        self, name: str, step: str, status: StepStatus, detail: str | None = None, seconds: float | None = None
    ) -> None:
        work = self._work[name]
        rounded = None if seconds is None else round(seconds, 3)
        steps = [
            msgspec.structs.replace(each, status=status, detail=detail, seconds=rounded) if each.id == step else each
            for each in work.steps
        ]
        self._work[name] = msgspec.structs.replace(work, steps=steps)
        self._changed(name)
