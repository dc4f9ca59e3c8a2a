"""The stream of changes (``/events``), which survives a lost connection."""

from typing import Final
from urllib.parse import urlencode

import msgspec

from cli.client import Client
from cli.reconnecting import PATIENCE, Reconnecting
from protocol.events import Event, Later, Snapshot, event_decoder


class Events(Reconnecting[Event]):
    """Events as they come, of one workspace where that is named (an older agent tells of all).

    After a lost connection it goes on where it stopped, or begins with a new snapshot.
    """

    hint = "what was begun goes on when it is back: look with `perry list`"

    def __init__(self, client: Client, workspace: str | None = None, *, patience: float = PATIENCE) -> None:
        super().__init__(client, patience=patience)
        self._workspace = workspace
        self._epoch: str | None = None
        self._seq = 0

    def path(self) -> str:
        wanted = {"workspace": self._workspace} if self._workspace is not None else {}
        if self._epoch is not None:
            wanted |= {"epoch": self._epoch, "after": str(self._seq)}
        return f"/events?{urlencode(wanted)}" if wanted else "/events"

    def decoded(self, frame: str | bytes) -> Event | None:
        event = _known(frame)
        if isinstance(event, Snapshot):
            self._epoch = event.epoch
        self._seq = event.seq
        return None if isinstance(event, Later) else event


def _known(frame: str | bytes) -> Event | Later:
    """The event; its number alone where it is of a kind that only a newer agent knows."""
    try:
        return event_decoder.decode(frame)
    except msgspec.ValidationError:
        if msgspec.json.decode(frame, type=_Kind).type in KINDS:
            raise
        return msgspec.json.decode(frame, type=Later)


class _Kind(msgspec.Struct):
    type: str


KINDS: Final = frozenset({"snapshot", "workspace", "workspaceDeleted"})
