"""Tells every subscriber what has changed. Publishing never waits for anybody.

Changes are kept, encoded, in a ring. A subscriber is no more than a place in it: one that is slower than the ring is
long has lost its place, and is dropped. Everything here belongs to one event loop.
"""

import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple

import anyio
import msgspec

from protocol.batches import BatchSummary
from protocol.events import BatchChanged, Snapshot, TaskChanged, WorkspaceChanged, WorkspaceDeleted
from protocol.tasks import Task
from protocol.workspaces import Workspace

KEPT: Final = 512
"""Changes that a client may miss and still resume; also how far a slow one may fall behind."""


class _Change(NamedTuple):
    """Of which workspace, and what is sent of it."""

    name: str
    frame: str


class Bus:
    """The changes of this run of the control plane. ``epoch`` tells runs apart."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self.epoch = secrets.token_hex(8)
        self._ring: deque[_Change] = deque(maxlen=kept)
        self._seq = 0
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    def workspace_changed(self, workspace: Workspace) -> None:
        """A workspace was made or has changed."""
        self._publish(workspace.name, WorkspaceChanged(seq=self._seq + 1, workspace=workspace))

    def workspace_deleted(self, name: str) -> None:
        """A workspace is gone."""
        self._publish(name, WorkspaceDeleted(seq=self._seq + 1, name=name))

    def task_changed(self, task: Task) -> None:
        """A task was dispatched or has changed."""
        self._publish(task.workspace, TaskChanged(seq=self._seq + 1, task=task))

    def batch_changed(self, batch: BatchSummary) -> None:
        """A batch was started, or has changed. It is no one workspace's: who follows one does not hear of it."""
        self._publish("", BatchChanged(seq=self._seq + 1, batch=batch))

    def subscribe(
        self,
        snapshot: Callable[[], Sequence[Workspace]],
        *,
        epoch: str | None = None,
        after: int | None = None,
        only: str | None = None,
    ) -> "Subscription":
        """Follow the changes, as a context manager; those of one workspace where ``only`` names it.

        Where ``epoch`` is this run and all that came after change ``after`` is still kept, it goes on from there; else
        it begins with a snapshot.
        """
        resumes = epoch == self.epoch and after is not None and self._oldest <= after + 1 <= self._seq + 1
        place = after if resumes and after is not None else self._seq
        return Subscription(self, None if resumes else snapshot, place, only)

    @property
    def subscribers(self) -> int:
        """How many follow now."""
        return len(self._subscriptions)

    def close(self) -> None:
        """End every subscription, of now and later: the control plane stops."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.ended.set()

    def _publish(self, name: str, event: WorkspaceChanged | WorkspaceDeleted | TaskChanged | BatchChanged) -> None:
        self._seq = event.seq
        self._ring.append(_Change(name, msgspec.json.encode(event).decode()))
        for subscription in self._subscriptions:
            subscription.notify(name)

    # --- for subscriptions

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def seq(self) -> int:
        return self._seq

    @property
    def _oldest(self) -> int:
        return self._seq - len(self._ring) + 1

    def has_after(self, seq: int) -> bool:
        return seq + 1 >= self._oldest

    def after(self, seq: int) -> "_Change":
        """The change that follows change ``seq``."""
        return self._ring[seq + 1 - self._oldest]

    def add(self, subscription: "Subscription") -> None:
        self._subscriptions.add(subscription)

    def remove(self, subscription: "Subscription") -> None:
        self._subscriptions.discard(subscription)


class Subscription:
    """One follower. ``ended`` is set when it was too slow (``lost``) or the control plane stops."""

    def __init__(
        self, bus: Bus, snapshot: Callable[[], Sequence[Workspace]] | None, seq: int, only: str | None
    ) -> None:
        self._bus = bus
        self._snapshot = snapshot
        self._seq = seq
        self._only = only
        self._news = anyio.Event()
        if snapshot is None:
            self._news.set()  # There may be changes that have not been taken.
        self.ended = anyio.Event()
        self.lost = False

    def __enter__(self) -> "Subscription":
        self._bus.add(self)
        if self._bus.closed:
            self.ended.set()
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.remove(self)

    def notify(self, name: str) -> None:
        """There is a new change, of this workspace."""
        if self._only not in (None, name):
            if not self._news.is_set():
                self._seq = self._bus.seq  # All before it has been taken, and this one is not wanted.
            return
        if not self._bus.has_after(self._seq):
            self.lost = True
            self.ended.set()
        self._news.set()

    async def frames(self) -> AsyncIterator[str]:
        """Events as JSON, without end; it just stops giving any after ``ended``."""
        if self._snapshot is not None:
            self._seq = self._bus.seq
            shown = [each for each in self._snapshot() if self._only in (None, each.name)]
            snapshot = Snapshot(epoch=self._bus.epoch, seq=self._seq, workspaces=shown)
            yield msgspec.json.encode(snapshot).decode()
        while True:
            while self._seq < self._bus.seq and not self.ended.is_set():
                change = self._bus.after(self._seq)
                self._seq += 1
                if self._only in (None, change.name):
                    yield change.frame
            self._news = anyio.Event()
            await self._news.wait()
