"""What batches that go on by themselves ask of other features."""

from typing import Protocol

from protocol.tasks import DispatchTask, ListTasks, Task, Tasks
from protocol.workspaces import DeleteWorkspace


class TaskWork(Protocol):
    """What is asked of tasks; see :class:`controlplane.tasks.service.TaskService`."""

    async def dispatch(self, wanted: DispatchTask, *, quiet: bool = False, own: bool = False) -> Task: ...

    async def get(self, id_: str) -> Task: ...

    async def list(self, wanted: ListTasks) -> Tasks: ...

    async def cancel(self, id_: str) -> Task: ...

    def is_settled(self, id_: str) -> bool: ...


class Workspaces(Protocol):
    """What is asked of workspaces; see :class:`controlplane.workspaces.service.Workspaces`."""

    def made_for(self, name: str) -> str | None: ...

    async def delete(self, wanted: DeleteWorkspace) -> None: ...
