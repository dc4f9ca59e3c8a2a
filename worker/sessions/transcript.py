"""Reads a session that is a file of JSON records, from where the last page ended.

Nothing is remembered between two pages but the cursor. It says where to read on (``seen``), and how things stood where
the oldest message begins that may still grow (``start``, ``state``): from there the file is read again, so that such a
message comes again, whole, under its ordinal. What a page costs is what was appended, and that stretch.

What a file says at one place depends on nothing but the bytes before that place, however it was read: in one go, or in
any pieces while it grew. So ordinals stay.
"""

import copy
import hashlib
import os
from datetime import datetime
from typing import Any, Final, Protocol

import msgspec

from protocol.sessions import Block, Message, MessageRole
from protocol.worker import PAGE_LIMIT
from worker.sessions.blocks import emptied, moment, sendable, weight
from worker.sessions.lines import Line, Unreadable, lines, salvage

OPEN_LIMIT: Final = 4
"""Messages that may still grow, at most: subagents may write into the same file."""

OPEN_SPAN: Final = 4 << 20
"""Bytes behind its beginning where a message grows no more: what an append may cost beside itself."""

SLICE: Final = 32 << 20
"""Bytes that one page looks through, at most."""

MESSAGE_BLOCKS: Final = 1024

HEAD: Final = 512

TAIL: Final = 256


Count = tuple[int, int, int, int]
"""Tokens: input, output, read from a cache, written to one."""


class Open(msgspec.Struct, frozen=True, array_like=True):
    """A message that may still grow: its key, ordinal, the place where it begins, and the tokens counted for it."""

    key: str
    ordinal: int
    offset: int
    tokens: Count = (0, 0, 0, 0)


class State(msgspec.Struct, omit_defaults=True):
    """What is known of a session at one place of its file. Every value is immutable: a copy is as good as a backup."""

    ordinal: int = 0
    open: tuple[Open, ...] = ()
    title: str | None = None
    title_rank: int = -1
    cwd: str | None = None
    model: str | None = None
    parent: str | None = None
    created: str | None = None
    last: str | None = None
    tokens: Count | None = None
    cost: float | None = None
    known: tuple[Open, ...] = ()
    """For formats that write a message again as a whole: the latest, by their ids."""


class Cursor(msgspec.Struct, omit_defaults=True):
    """Where a page ended. ``inside``: within a line that is too long."""

    ino: int
    head: tuple[int, str]
    tail: str
    start: int
    seen: int
    state: State
    inside: bool = False


def key_of(id: str) -> str:
    """An id as a cursor can hold it, however long and strange it is."""
    if len(id) <= 64 and id.isascii() and id.isprintable():
        return id
    return hashlib.blake2b(id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Draft:
    """A message as far as it was read."""

    __slots__ = ("at", "before", "blocks", "id", "model", "offset", "ordinal", "role", "size")

    def __init__(self, ordinal: int, id: str, role: MessageRole, offset: int, before: State) -> None:
        self.ordinal = ordinal
        self.id = id
        self.role = role
        self.offset = offset
        self.before = before
        self.blocks: list[Block] = []
        self.size = 0
        self.at: datetime | None = None
        self.model: str | None = None

    def message(self) -> Message:
        return Message(
            ordinal=self.ordinal,
            id=self.id,
            role=self.role,
            blocks=self.blocks,
            at=self.at,
            model=self.model,
        )


class Conversation:
    """What a format writes its records into: the messages of a page, and what is known of the session."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.touched: dict[int, Draft] = {}
        self.size = 0
        self._drafts: dict[str, Draft] = {}
        self._offset = 0
        self._before = state
        self._fresh = True

    def line(self, offset: int, *, fresh: bool) -> None:
        """A line begins. What was told before (not ``fresh``) is only read to go on from it."""
        self._offset = offset
        self._fresh = fresh
        if self.state.open and offset - self.state.open[0].offset > OPEN_SPAN:
            self._close(self.state.open[0].key)
        self._before = copy.copy(self.state)

    def growing(self, key: str, role: MessageRole, id: str, at: object, model: str | None) -> Draft | None:
        """The message of that key: a new one, unless it may still grow. None where it is too long ago to be told."""
        for entry in self.state.open:
            if entry.key == key:
                return self._drafts.get(key)
        if len(self.state.open) >= OPEN_LIMIT:
            self._close(self.state.open[0].key)
        draft = self._new(role, id, at, model)
        self._drafts[key] = draft
        self.state.open += (Open(key, draft.ordinal, self._offset),)
        return draft

    def say(self, role: MessageRole, id: str, blocks: list[Block], at: object = None, model: str | None = None) -> int:
        """A message that does not grow. Its ordinal."""
        draft = self._new(role, id, at, model)
        self.add(draft, blocks)
        return draft.ordinal

    def replace(
        self, ordinal: int, role: MessageRole, id: str, blocks: list[Block], at: object, model: str | None
    ) -> None:
        """Another content for a message that was said before."""
        draft = Draft(ordinal, id, role, self._offset, self._before)
        self._date(draft, at, model)
        self.add(draft, blocks)

    def add(self, draft: Draft, blocks: list[Block]) -> None:
        """More of a message."""
        if self._fresh and draft.ordinal not in self.touched:
            self.size += draft.size + 100
        before = draft.size
        for block in blocks[: max(0, MESSAGE_BLOCKS - len(draft.blocks))]:
            size = weight(block)
            if draft.size + size > PAGE_LIMIT:
                block = emptied(block)
                size = weight(block)
            draft.blocks.append(block)
            draft.size += size
        if self._fresh:
            self.size += draft.size - before
            self.touched[draft.ordinal] = draft

    def settle(self) -> None:
        """No message before here grows any more."""
        self._drafts.clear()
        self.state.open = ()

    def count_tokens(self, key: str, tokens: Count) -> None:
        """The tokens of a growing message: however often it is told, they count once, and the last counts."""
        for index, entry in enumerate(self.state.open):
            if entry.key == key and entry.tokens != tokens:
                self.recount(entry.tokens, tokens)
                entries = list(self.state.open)
                entries[index] = Open(key, entry.ordinal, entry.offset, tokens)
                self.state.open = tuple(entries)

    def recount(self, before: Count, now: Count) -> None:
        """Tokens that were counted as so many are so many."""
        i, o, r, w = self.state.tokens or (0, 0, 0, 0)
        self.state.tokens = (
            i + now[0] - before[0],
            o + now[1] - before[1],
            r + now[2] - before[2],
            w + now[3] - before[3],
        )

    def retitle(self, rank: int, title: str | None) -> None:
        """A title. One of a higher rank, or a later one of the same, counts."""
        if title and rank >= self.state.title_rank:
            self.state.title, self.state.title_rank = title, rank

    def happened(self, at: object) -> datetime | None:
        """Something was recorded at that moment, if it is one."""
        when = moment(at)
        if when is not None and isinstance(at, str):
            if self.state.created is None:
                self.state.created = at[:40]
            self.state.last = at[:40]
        return when

    def oldest_open(self) -> Draft | None:
        """The message from whose beginning on everything has to be read again."""
        drafts = [self._drafts[entry.key] for entry in self.state.open if entry.key in self._drafts]
        return min(drafts, key=lambda draft: draft.offset, default=None)

    def messages(self) -> list[Message]:
        """What is new or has grown, in order."""
        return [self.touched[ordinal].message() for ordinal in sorted(self.touched)]

    def _new(self, role: MessageRole, id: str, at: object, model: str | None) -> Draft:
        draft = Draft(self.state.ordinal, id, role, self._offset, self._before)
        self.state.ordinal += 1
        self._date(draft, at, model)
        return draft

    def _date(self, draft: Draft, at: object, model: str | None) -> None:
        draft.id = sendable(draft.id[:256])
        draft.model = model
        draft.at = self.happened(at)

    def _close(self, key: str) -> None:
        self._drafts.pop(key, None)
        self.state.open = tuple(entry for entry in self.state.open if entry.key != key)


class Format(Protocol):
    """How one coding agent writes its records. Has no state: what it knows is in the conversation."""

    def wants(self, line: bytes) -> bool:
        """Whether a line may be of use. Quick; in doubt yes."""

    def decode(self, line: bytes) -> Any:
        """A line's record; raises one of :data:`worker.sessions.lines.Unreadable`."""

    def convert(self, record: dict[str, Any]) -> Any:
        """The same from a record that was saved from a broken line; raises msgspec.ValidationError."""

    def apply(self, record: Any, conversation: Conversation) -> None:
        """Write a record into the conversation. What it does not know it leaves out."""


class Reading(msgspec.Struct):
    """What was read: a page of messages, what is known of the session by now, and where to go on."""

    messages: list[Message]
    state: State
    cursor: str
    more: bool
    reset: bool
    skipped: int


def read(fd: int, form: Format, cursor: str | None, limit: int, *, ino: int | None = None) -> Reading:
    """A page of an opened file: messages of about ``limit`` bytes, from ``cursor`` on. ``ino`` is what the file is
    known by; its own inode, where it is not said."""
    where = _decode(cursor)
    ino = os.fstat(fd).st_ino if ino is None else ino
    reset = cursor is not None and (where is None or not _still_there(fd, where, ino))
    if where is None or reset:
        where = Cursor(ino=ino, head=(0, ""), tail="", start=0, seen=0, state=State())
    return _read(fd, form, where, limit, reset=reset)


def _read(fd: int, form: Format, where: Cursor, limit: int, *, reset: bool) -> Reading:
    first = where.seen
    talk = Conversation(where.state)
    seen, inside, more, skipped = where.start, where.inside, False, 0
    rest: Line | None = None
    for line in lines(fd, where.start, inside=inside):
        fresh = line.start >= first
        if not line.ended and line.data is not None:
            rest = line
            break
        if fresh and line.start - first >= SLICE:
            more = True
            break
        if line.data is None:
            # Counted where it is first seen, and not again where it ends.
            skipped += not (inside and line.start == where.start)
            talk.settle()
            inside = not line.ended
        elif form.wants(line.data):
            if fresh and talk.size and talk.size + len(line.data) > limit:
                more = True
                break
            talk.line(line.start, fresh=fresh)
            skipped += _take(form, line.data, talk) and fresh
        seen = line.end
    open_since = talk.oldest_open()
    after = Cursor(
        ino=where.ino,
        head=_head(fd, where, seen),
        tail=_hash(fd, max(0, seen - TAIL), seen),
        start=open_since.offset if open_since else seen,
        seen=max(seen, first),
        state=copy.copy(open_since.before if open_since else talk.state),
        inside=inside if seen > where.start else where.inside,
    )
    encoded = msgspec.json.encode(after).decode()
    if rest is not None and rest.data is not None and form.wants(rest.data):
        # Its newline is not there yet, but a record that is whole can be nothing else any more. It comes again then.
        talk.line(rest.start, fresh=True)
        _take(form, rest.data, talk, ended=False)
    return Reading(talk.messages(), talk.state, encoded, more, reset, skipped)


def _take(form: Format, data: bytes, talk: Conversation, *, ended: bool = True) -> bool:
    """True where a line holds nothing that can be read."""
    try:
        form.apply(form.decode(data), talk)
        return False
    except Unreadable:
        found = False
    for saved in salvage(data, ended=ended):
        try:
            form.apply(form.convert(saved), talk)
            found = True
        except msgspec.ValidationError:
            continue
    return not found


def _decode(cursor: str | None) -> Cursor | None:
    if cursor is None:
        return None
    try:
        where = msgspec.json.decode(cursor, type=Cursor)
    except (msgspec.DecodeError, RecursionError):
        return None
    return where if 0 <= where.start <= where.seen else None


def _still_there(fd: int, where: Cursor, ino: int) -> bool:
    """Whether a file is the one that a cursor speaks of, and has only grown since."""
    now = os.fstat(fd)
    return (
        ino == where.ino
        and now.st_size >= where.seen
        and 0 <= where.head[0] <= HEAD
        and _hash(fd, 0, where.head[0]) == where.head[1]
        and _hash(fd, max(0, where.seen - TAIL), where.seen) == where.tail
    )


def _head(fd: int, where: Cursor, seen: int) -> tuple[int, str]:
    size = min(HEAD, seen)
    return where.head if where.head[0] == size else (size, _hash(fd, 0, size))


def _hash(fd: int, start: int, end: int) -> str:
    if end <= start:
        return ""
    return hashlib.blake2b(os.pread(fd, end - start, start), digest_size=8).hexdigest()
