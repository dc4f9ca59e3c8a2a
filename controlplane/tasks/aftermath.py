"""What is owed after the end of a task, and when it waits: what was left is noted, the wake goes out, the worker may
forget it, the workspace goes where that was wished. Each step is written down when it is done, and safe to do twice."""

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol

import anyio
import msgspec

from controlplane.errors import NotFound, PerryError, WorkerError
from controlplane.ports import Waker, WorkerLink
from controlplane.tasks import state
from controlplane.tasks.service import ASK_SECONDS
from controlplane.tasks.state import Record
from controlplane.tasks.store import Store
from protocol.tasks import TaskState
from protocol.worker import ForgetTask, ReadOutcome, TaskOutcome
from protocol.workspaces import DeleteWorkspace, Workspace


class Workspaces(Protocol):
    """What is asked of workspaces; see :class:`controlplane.workspaces.service.Workspaces`."""

    async def get(self, name: str) -> Workspace: ...

    def made_for(self, name: str) -> str | None: ...

    async def delete(self, wanted: DeleteWorkspace) -> None: ...


class Aftermath:
    """``links`` are the workers that are there now; ``changed`` writes a task down, and tells everybody."""

    def __init__(
        self,
        store: Store,
        workspaces: Workspaces,
        waker: Waker,
        links: Mapping[str, WorkerLink],
        changed: Callable[[Record], None],
    ) -> None:
        self._store = store
        self._workspaces = workspaces
        self._waker = waker
        self._links = links
        self._changed = changed

    async def finish(self, record: Record) -> None:
        """All that is owed after an end, each step written down when it is done."""
        if record.outcome is None and (outcome := await self._read_outcome(record)) is not None:
            record = msgspec.structs.replace(record, outcome=outcome)
            self._changed(record)
        if record.wakes and not record.wishes.quiet:
            record = await self.wake(record)
        if (link := self._links.get(record.workspace)) is not None:
            await self.forget(link, record.id)
        if record.removes and record.removal is None:
            record = msgspec.structs.replace(record, removal=await self._remove(record))
        self._changed(msgspec.structs.replace(record, settled=True))

    async def _read_outcome(self, record: Record) -> TaskOutcome | None:
        """None where the worker is not there: a wake with less in it is better than none."""
        link = self._links.get(record.workspace)
        if link is None or record.started is None or record.state is TaskState.LOST:
            return None
        with contextlib.suppress(WorkerError, TimeoutError), anyio.fail_after(ASK_SECONDS):
            found = await link.ask(ReadOutcome(id=record.id))
            return state.bounded(found) if isinstance(found, TaskOutcome) else None
        return None

    async def wake(self, record: Record) -> Record:
        """Tell of the state that it is in, once."""
        id_ = state.wake_id(record)
        if record.wake_id == id_:
            return record
        text = state.wake_text(record, record.outcome)
        mode = record.wishes.wake
        await self._waker.wake(text, mode=mode, workspace=record.workspace, task=record.id, id=id_)
        latest = self._store.get(record.id) or record
        record = msgspec.structs.replace(latest, wake_id=id_)
        self._changed(record)
        return record

    async def forget(self, link: WorkerLink, id_: str) -> None:
        """The worker need not tell of its end any more."""
        with contextlib.suppress(WorkerError, TimeoutError), anyio.fail_after(ASK_SECONDS):
            await link.ask(ForgetTask(id=id_))

    async def _remove(self, record: Record) -> str:
        """What became of the wish to delete the workspace."""
        name = record.workspace
        others = [each for each in self._store.unsettled() if each.workspace == name and not each.over]
        if others:
            return f"kept: {len(others)} other task{'s are' if len(others) > 1 else ' is'} not done"
        try:
            if not await self._is_the_same(record):
                return "kept: somebody has made it since"
            await self._workspaces.delete(DeleteWorkspace(name=name))
        except NotFound:
            return "deleted"
        except PerryError as exc:
            return f"kept: {exc.message}"
        return "deleted"

    async def _is_the_same(self, record: Record) -> bool:
        """Whether the workspace is the one that the task was dispatched to, or that it or another one had made. Who
        deletes that and makes another one of its name has not asked for this one to go."""
        maker = self._workspaces.made_for(record.workspace)
        if maker is not None and (other := self._store.get(maker)) is not None:
            return record.ended is None or other.created <= record.ended
        return datetime.fromisoformat((await self._workspaces.get(record.workspace)).created) <= record.created
