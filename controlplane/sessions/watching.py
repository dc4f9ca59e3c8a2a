"""What one client hears: the sessions and their changes, and the messages of those that it subscribed to.

Nothing is queued for it. What it has not heard is known by number, and read when it can take more: a slow client gets
larger steps, and costs the others nothing.
"""

from collections.abc import AsyncIterator
from typing import Final

import anyio
import msgspec

from controlplane.errors import InvalidInput
from controlplane.sessions.aggregate import Key
from controlplane.sessions.changes import Changes, Name, News
from controlplane.sessions.service import Sessions
from protocol.sessions import ListSessions, NewMessages, SessionsSnapshot, Subscribe, SubscribeKind

SUBSCRIPTIONS: Final = 100
"""Sessions whose messages one client may want."""

SHOWN: Final = 200
"""Sessions of a snapshot."""

_STEP: Final = 100
"""Changes, or messages, that are told at once."""

_SINGLE: Final = 1_000
"""Ordinals that are remembered one by one; where there are more, all from the least on are read again."""

_encode: Final = msgspec.json.Encoder().encode


class _Wanted:
    """What a client has not heard of a session: ``single`` ordinals, and all from ``floor`` on."""

    def __init__(self, after: int | None) -> None:
        self.single: set[int] = set()
        self.floor = None if after is None else after + 1
        self.reset = False

    @property
    def waits(self) -> bool:
        return self.reset or self.floor is not None or bool(self.single)

    def hear(self, news: News) -> None:
        if news.reset:
            self.single.clear()
            self.reset, self.floor = True, 0
        self.single.update(at for at in news.ordinals if self.floor is None or at < self.floor)
        if len(self.single) > _SINGLE:
            self.floor = min(self.single)
            self.single.clear()


class Watcher:
    """One client, as a context manager. ``ended`` is set when it lost its place (``lost``), or all ends."""

    def __init__(
        self,
        sessions: Sessions,
        changes: Changes,
        workspace: str | None,
        *,
        epoch: str | None = None,
        after: int | None = None,
    ) -> None:
        self._sessions = sessions
        self._changes = changes
        self._workspace = workspace
        self._resumes = changes.has_after(epoch, after)
        self._seq = after if self._resumes and after is not None else 0
        self._wanted: dict[Name, _Wanted] = {}
        self._news = anyio.Event()
        self.ended = anyio.Event()
        self.lost = False

    def __enter__(self) -> "Watcher":
        self._changes.follow(self, self._notify, self._hear)
        self._notify()
        return self

    def __exit__(self, *_: object) -> None:
        self._changes.leave(self)

    def subscribe(self, wanted: Subscribe) -> None:
        """InvalidInput where these are too many."""
        name = Name(wanted.workspace, Key(wanted.agent, wanted.session_id))
        self._wanted.pop(name, None)
        if wanted.type is SubscribeKind.UNSUBSCRIBE:
            return
        if len(self._wanted) >= SUBSCRIPTIONS:
            raise InvalidInput(f"Subscribe to at most {SUBSCRIPTIONS} sessions at once.")
        self._wanted[name] = _Wanted(wanted.after)
        self._news.set()

    async def frames(self) -> AsyncIterator[str]:
        """Frames as JSON, without end; it just stops giving any after ``ended``. NotFound where there is no such
        workspace."""
        if self._workspace is not None:
            await self._sessions.must_know(self._workspace)
        if not self._resumes:
            # What changes while it is read is told after it.
            self._seq = seq = self._changes.seq
            page = await self._sessions.list_(ListSessions(workspace=self._workspace, subagents=True, limit=SHOWN))
            yield _encode(
                SessionsSnapshot(
                    epoch=self._changes.epoch, seq=seq, items=page.items, more=page.next_cursor is not None
                )
            ).decode()
        while True:
            self._news = anyio.Event()
            if not self._changes.has_after(self._changes.epoch, self._seq):
                self.lost = True
                self.ended.set()
            if self.ended.is_set():
                await anyio.sleep_forever()
            told = False
            frames, self._seq = self._changes.after(self._seq, self._workspace, _STEP)
            for frame in frames:
                told = True
                yield frame
            for name, wanted in list(self._wanted.items()):
                if wanted.waits and self._wanted.get(name) is wanted:
                    told = True
                    if (new := await self._messages(name, wanted)) is not None:
                        yield new
            if not told:
                await self._news.wait()

    async def _messages(self, name: Name, wanted: _Wanted) -> str | None:
        """The next of what a client has not heard of a session."""
        reset, wanted.reset = wanted.reset, False
        single, floor = sorted(wanted.single)[:_STEP], None
        if single:
            wanted.single.difference_update(single)
        else:
            # What comes while this is read is remembered one by one.
            floor, wanted.floor = wanted.floor, None
        items, more = await self._sessions.messages_for(name.workspace, name.key, single, floor, _STEP)
        if floor is not None and more and not wanted.reset:
            reached = items[-1].ordinal + 1
            wanted.floor = reached if wanted.floor is None else min(reached, wanted.floor)
        elif more and not wanted.reset:
            wanted.single.update(at for at in single if at > items[-1].ordinal)
        if not items and not reset:
            return None
        return _encode(
            NewMessages(
                workspace=name.workspace,
                agent=name.key.agent,
                session_id=name.key.session_id,
                items=items,
                reset=reset,
            )
        ).decode()

    def _notify(self) -> None:
        if self._changes.closed:
            self.ended.set()
        self._news.set()

    def _hear(self, news: News) -> None:
        wanted = self._wanted.get(news.name)
        if wanted is not None:
            wanted.hear(news)
            self._news.set()
