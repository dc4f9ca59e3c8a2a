"""The stream ``/events``: first a snapshot, then changes, numbered so that a client resumes where it stopped.

A client that reconnects sends ``?epoch=<epoch>&after=<seq>``; where the server still has what follows, no snapshot is
sent.
"""

import msgspec

from protocol.batches import BatchSummary
from protocol.tasks import Task
from protocol.wire import Wire
from protocol.workspaces import Workspace


class Snapshot(Wire, frozen=True, tag="snapshot", tag_field="type"):
    """Everything as it stands after change ``seq``. ``epoch`` changes with each run of the control plane."""

    epoch: str
    seq: int
    workspaces: list[Workspace]


class WorkspaceChanged(Wire, frozen=True, tag="workspace", tag_field="type"):
    """A workspace was made or has changed."""

    seq: int
    workspace: Workspace


class WorkspaceDeleted(Wire, frozen=True, tag="workspaceDeleted", tag_field="type"):
    """A workspace is gone."""

    seq: int
    name: str


class TaskChanged(Wire, frozen=True, tag="task", tag_field="type"):
    """A task was dispatched or has changed. No snapshot has them: ``tasks.list`` does."""

    seq: int
    task: Task


class BatchChanged(Wire, frozen=True, tag="batch", tag_field="type"):
    """A batch was started, one of its items is done, or it has ended. ``batches.get`` has the items."""

    seq: int
    batch: BatchSummary


Event = Snapshot | WorkspaceChanged | WorkspaceDeleted | TaskChanged | BatchChanged


class Later(msgspec.Struct, frozen=True):
    """What every event has, also those that a newer control plane sends and this program does not know."""

    seq: int


event_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)
