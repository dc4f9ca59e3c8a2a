"""What is owed after an item's end: what it left is kept, and its workspace goes. When, is :mod:`.driver`'s."""

from typing import Final

import anyio

from controlplane.batches import state
from controlplane.batches.collecting import Collector
from controlplane.batches.needs import TaskWork, Workspaces
from controlplane.batches.state import Item, Kept
from controlplane.errors import NotFound, PerryError
from controlplane.quoting import quoted
from protocol.tasks import ListTasks, Task
from protocol.workspaces import DeleteWorkspace

COLLECT_TRIES: Final = 4
"""How often what an item left is tried to be read before that is given up, and its workspace kept."""

COLLECT_SECONDS: Final = 120.0
"""How long reading it may take, each time. A workspace that answers slowly, or for ever, holds up no batch."""

WHY_SHOWN: Final = 120
"""Characters of why it could not be read that stand beside the workspace; the item's note has them all."""


class Aftermath:
    """Of all batches."""

    def __init__(self, collector: Collector, tasks: TaskWork, workspaces: Workspaces) -> None:
        self._collector = collector
        self._tasks = tasks
        self._workspaces = workspaces
        self._tries: dict[str, int] = {}

    async def collected(self, item: Item, task: Task | None) -> Kept:
        """What it left. PerryError or TimeoutError where it may be read later; after some of them it is given up."""
        if task is None:
            return Kept(missing="Its task is no longer known.")
        try:
            with anyio.fail_after(COLLECT_SECONDS):
                return await self._collector.collect(item)
        except (PerryError, TimeoutError) as exc:
            tries = self._tries[task.id] = self._tries.get(task.id, 0) + 1
            if tries < COLLECT_TRIES:
                raise
            why = exc.message if isinstance(exc, PerryError) else "It did not answer in time."
            return Kept(missing=why)

    async def removed(self, item: Item) -> str:
        """What became of the wish to delete the workspace."""
        if item.was_there:
            return "kept: it was there before the batch"
        try:
            if self._workspaces.made_for(item.workspace) != item.task:
                return "kept: somebody else made it"
        except NotFound:
            return "deleted"
        if item.kept is not None and item.kept.missing is not None:
            return f"kept: what it left could not all be read: {quoted(item.kept.missing, WHY_SHOWN)}"
        others = (await self._tasks.list(ListTasks(workspace=item.workspace, limit=500))).items
        if count := sum(not state.is_over(each) for each in others):
            return f"kept: {count} other task{'s are' if count > 1 else ' is'} not done"
        try:
            await self._workspaces.delete(DeleteWorkspace(name=item.workspace))
        except NotFound:
            return "deleted"
        except PerryError as exc:
            return f"kept: {exc.message}"
        return "deleted"

    def forget(self, task: str) -> None:
        """Nothing is owed to it any more."""
        self._tries.pop(task, None)
