"""What sessions do while they do it (``/sessions``, ``/sessions/<name>``), over lost connections."""

from collections.abc import Mapping
from typing import Final

import msgspec

from cli.client import Client
from cli.reconnecting import PATIENCE, Reconnecting
from protocol.sessions import (
    NewMessages,
    SessionRef,
    SessionsFrame,
    SessionsSnapshot,
    Subscribe,
    SubscribeKind,
    frame_decoder,
)

KINDS: Final = frozenset({"snapshot", "session", "sessionDeleted", "messages"})
Key = tuple[str, str, str]
"""Workspace, agent and id."""


class Feed(Reconnecting[SessionsFrame]):
    """A snapshot, then changes. After a lost connection it goes on where it stopped, or with a new snapshot; what was
    subscribed to stays so."""

    hint = "the agents go on without it: look with `perry sessions list`"

    def __init__(self, client: Client, workspace: str | None = None, *, patience: float = PATIENCE) -> None:
        super().__init__(client, patience=patience)
        self._path = "/sessions" + (f"/{workspace}" if workspace else "")
        self._subscribed: dict[Key, tuple[SessionRef, int | None]] = {}
        self._epoch: str | None = None
        self._seq = 0

    def path(self) -> str:
        return self._path + (f"?epoch={self._epoch}&after={self._seq}" if self._epoch is not None else "")

    def connected(self) -> None:
        for session, after in self._subscribed.values():
            self._say(SubscribeKind.SUBSCRIBE, session, after)

    def subscribe(self, session: SessionRef, after: int | None) -> None:
        """Its messages too: those ``after`` an ordinal, or without one from now on."""
        self._subscribed[session.workspace, session.agent, session.session_id] = (session, after)
        self._say(SubscribeKind.SUBSCRIBE, session, after)

    def unsubscribe(self, session: SessionRef) -> None:
        """No more of them."""
        self._subscribed.pop((session.workspace, session.agent, session.session_id), None)
        self._say(SubscribeKind.UNSUBSCRIBE, session, None)

    def listen_to(self, wanted: Mapping[Key, SessionRef]) -> None:
        """The messages of these, and of no others, from now on."""
        for key in [key for key in self._subscribed if key not in wanted]:
            self.unsubscribe(self._subscribed[key][0])
        for key in [key for key in wanted if key not in self._subscribed]:
            self.subscribe(wanted[key], None)

    def decoded(self, frame: str | bytes) -> SessionsFrame | None:
        try:
            known = frame_decoder.decode(frame)
        except msgspec.ValidationError:
            if msgspec.json.decode(frame, type=_Kind).type in KINDS:
                raise
            return None  # A newer agent says more than this perry knows.
        if isinstance(known, NewMessages):
            self._remember(known)
            return known
        if isinstance(known, SessionsSnapshot):
            self._epoch = known.epoch
        self._seq = known.seq
        return known

    def _remember(self, messages: NewMessages) -> None:
        """Where to go on after a lost connection: at the last message, which may have grown meanwhile."""
        key = (messages.workspace, messages.agent, messages.session_id)
        if key in self._subscribed and messages.items:
            session, after = self._subscribed[key]
            if after is not None:
                last = max(each.ordinal for each in messages.items)
                self._subscribed[key] = (session, last - 1 if messages.reset else max(after, last - 1))

    def _say(self, kind: SubscribeKind, session: SessionRef, after: int | None) -> None:
        said = Subscribe(
            type=kind, workspace=session.workspace, agent=session.agent, session_id=session.session_id, after=after
        )
        self.send(msgspec.json.encode(said).decode())


class _Kind(msgspec.Struct):
    type: str


def key_of(of: object) -> Key:
    """What a session is known by, in whatever names one."""
    return of.workspace, of.agent, of.session_id  # type: ignore[attr-defined]
