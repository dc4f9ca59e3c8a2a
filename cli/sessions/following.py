"""New messages of one session as they come, for ``perry sessions messages --follow``."""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from cli import output
from cli.client import Client
from cli.sessions.feed import Feed, key_of
from cli.sessions.finding import ref
from cli.sessions.printing import Show
from protocol.sessions import (
    Message,
    NewMessages,
    SessionChanged,
    SessionDeleted,
    SessionInfo,
    SessionsSnapshot,
    SessionStatus,
    Text,
    Thinking,
)

SETTLED_SECONDS: Final = 0.7
"""A message that has not grown for so long is shown: what was shown cannot be taken back."""
TICK_SECONDS: Final = 0.2


def follow(client: Client, session: SessionInfo, show: Show, last: int) -> None:
    """Until ctrl-C, or until the session is deleted. ``last`` is the ordinal that was shown last, -1 for none."""
    settling = Settling(show, last)
    with Feed(client, ref(session).workspace) as feed:
        # The last one may be growing while it is shown.
        feed.subscribe(ref(session), last)
        away = False
        while True:
            frame = feed.receive(TICK_SECONDS)
            if feed.away != away:
                away = feed.away
                output.note("The agent does not answer; trying again …" if away else "It answers again.")
            if isinstance(frame, NewMessages) and key_of(frame) == key_of(session):
                settling.add(frame)
            elif isinstance(frame, SessionChanged) and key_of(frame.session) == key_of(session):
                settling.busy = frame.session.status is SessionStatus.BUSY
            elif isinstance(frame, SessionDeleted) and key_of(frame) == key_of(session):
                settling.flush()
                output.note("The session was deleted.")
                return
            elif isinstance(frame, SessionsSnapshot) and not frame.more:
                there = {key_of(each) for each in frame.items}
                if not session.parent and key_of(session) not in there:
                    output.note("The session was deleted.")
                    return
            settling.tick()


class Settling:
    """Holds the last message back until it has its end, or has not grown for a moment."""

    def __init__(self, show: Show, last: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock = clock
        self._last = last
        """Ordinal of the last message that was shown."""
        self._shown: Message | None = None
        self._held: Message | None = None
        self._since = 0.0
        self.busy = False

    def add(self, new: NewMessages) -> None:
        if new.reset:
            self.flush()
            self._last, self._shown = min((each.ordinal for each in new.items), default=0) - 1, None
            output.note("\nThe session was rewritten; it is now:")
        for message in new.items:
            if self._held is not None and message.ordinal > self._held.ordinal:
                self.flush()
            grown = self._shown is not None and message.ordinal == self._shown.ordinal
            if (message.ordinal > self._last or grown) and message != self._held:
                self._held, self._since = message, self._clock()

    def tick(self) -> None:
        if self._held is not None and self._clock() - self._since >= SETTLED_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Show what is held."""
        message, self._held = self._held, None
        if message is None:
            return
        before = self._shown
        if before is not None and before.ordinal == message.ordinal:
            if rest := _added(before, message):
                self._show.more(message, rest)
        else:
            self._show(message)
        self._shown, self._last = message, message.ordinal


def _added(before: Message, after: Message) -> Message | None:
    """What a message has more than before; all of it where something that was there is another."""
    blocks = list(after.blocks)
    for old in before.blocks:
        if not blocks:
            return None
        new = blocks.pop(0)
        if new == old:
            continue
        if isinstance(new, Text | Thinking) and isinstance(old, Text | Thinking) and new.text.startswith(old.text):
            blocks.insert(0, msgspec.structs.replace(new, text=new.text[len(old.text) :]))
            break
        return after
    return msgspec.structs.replace(after, blocks=blocks) if blocks else None
