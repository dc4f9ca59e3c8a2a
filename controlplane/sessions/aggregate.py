"""From what a worker tells to what is kept and shown. Values in, values out.

A worker may be anybody's: everything of it is cut to a size, moved into a range, or left out. Times are milliseconds
since 1970, UTC.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from protocol.sessions import (
    Block,
    Message,
    MessageRole,
    SessionInfo,
    SessionStatus,
    Text,
    Thinking,
    Tokens,
    ToolCall,
    ToolResult,
)
from protocol.worker import BLOCK_LIMIT, SessionFacts, SessionGone, SessionSeen

ORDINALS: Final = 1 << 24
"""Messages of a session, at most."""

BLOCKS: Final = 2_000
"""Blocks of a message, at most."""

TEXT_LIMIT: Final = 2 << 30
"""Bytes of messages that are kept of one workspace."""

TITLE: Final = 200
_LINE: Final = 1_024
_ID: Final = 256
_RESUME: Final = 4_096
_COUNT: Final = 1 << 53

EARLIEST: Final = 946_684_800_000
"""The year 2000: a time before it is a clock that was not set."""

_AGENT = re.compile(r"[a-z][a-z0-9-]{0,31}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")
"""Controls, also those that turn the direction of writing: they could show a person something else."""
_SPACE = re.compile(r"\s+")
_STATUSES: Final = frozenset(SessionStatus)
_ROLES: Final = frozenset(MessageRole)


class Mask(Protocol):
    """Takes secrets out of texts: :class:`controlplane.sessions.masking.Mask`."""

    reach: int

    def __call__(self, text: str) -> str: ...

    def beginning(self, text: str) -> str: ...


class Key(msgspec.Struct, frozen=True, order=True):
    """A session within its workspace."""

    agent: str
    session_id: str


class Facts(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a session beside what is looked for. ``named`` is false where the title is made of a prompt."""

    created: int | None = None
    cwd: str | None = None
    model: str | None = None
    tokens: Tokens | None = None
    cost: float | None = None
    resume: list[str] | None = None
    named: bool = False


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is kept. ``number`` is its workspace's."""

    id: int
    number: int
    workspace: str
    agent: str
    session_id: str
    status: str
    last_activity: int
    parent: str | None
    title: str
    facts: Facts
    body: int
    messages: int
    deleted_workspace: bool
    forgotten: bool

    @property
    def key(self) -> Key:
        return Key(self.agent, self.session_id)


def key_of(event: SessionSeen | SessionGone) -> Key | None:
    """None where no agent or no session could be called so."""
    session_id = event.session_id
    if not _AGENT.fullmatch(event.agent) or not 0 < len(session_id) <= _ID or _UNPRINTABLE.search(session_id):
        return None
    return Key(event.agent, session_id)


def status_of(status: str) -> str:
    return status if status in _STATUSES else SessionStatus.UNKNOWN.value


def millis(at: datetime | None, now: int) -> int | None:
    """A time within bounds: none before 2000 and none in the future."""
    if at is None:
        return None
    try:
        found = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    except (OverflowError, ValueError):
        return None
    return min(found, now) if found >= EARLIEST else None


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at / 1000, UTC)


def line(text: str | None, limit: int = _LINE) -> str | None:
    """One printable line; None where nothing is left of it."""
    if text is None:
        return None
    if len(text) <= limit and text.isascii() and text.isprintable() and "  " not in text:
        return text.strip() or None  # As nearly all are.
    # What is cut off is not looked at, be it ever so long.
    return _SPACE.sub(" ", _UNPRINTABLE.sub(" ", text[: limit * 4])).strip()[:limit].strip() or None


def facts_of(told: SessionFacts, before: Facts, mask: Callable[[str], str], now: int) -> Facts:
    """What is known after a page. What it does not say stays as it was."""
    cost = told.cost
    return Facts(
        created=_or(millis(told.created, now), before.created),
        cwd=_or(line(told.cwd), before.cwd),
        model=_or(line(told.model, _ID), before.model),
        tokens=before.tokens if told.tokens is None else _tokens(told.tokens),
        cost=before.cost if cost is None or not math.isfinite(cost) else min(max(cost, 0.0), 1e9),
        resume=_or(_resume(told.resume, mask), before.resume),
        named=before.named or line(told.title) is not None,
    )


def title_of(
    told: SessionFacts, messages: Sequence[Message], before: str, named: bool, mask: Callable[[str], str]
) -> str:
    """The agent's title; else what a person said first; else empty. ``messages`` are masked."""
    if (title := line(told.title)) is not None:
        return mask(title)[:TITLE].strip()
    if before or named:
        return before
    for message in messages:
        if message.role is MessageRole.USER:
            for block in message.blocks:
                if isinstance(block, Text) and (found := line(block.text, TITLE)) is not None:
                    return found
    return ""


def message_of(told: Message, mask: Mask, now: int) -> Message | None:
    """A message within bounds and without secrets; None where its ordinal is out of them."""
    if not 0 <= told.ordinal < ORDINALS:
        return None
    at = millis(told.at, now)
    return Message(
        ordinal=told.ordinal,
        id=line(told.id, _ID) or str(told.ordinal),
        role=told.role if told.role in _ROLES else MessageRole.SYSTEM,
        blocks=[_block(block, mask) for block in told.blocks[:BLOCKS]],
        at=None if at is None else moment(at),
        model=line(told.model, _ID),
    )


def counts(role: str) -> bool:
    """Whether a message is a turn of user or assistant."""
    return role in (MessageRole.USER, MessageRole.ASSISTANT)


def info(row: Row, *, live: bool) -> SessionInfo:
    """As it is shown."""
    facts = row.facts
    return SessionInfo(
        workspace=row.workspace,
        agent=row.agent,
        session_id=row.session_id,
        title=row.title or row.session_id,
        status=SessionStatus(row.status),
        message_count=row.messages,
        last_activity=moment(row.last_activity),
        live=live and not row.deleted_workspace,
        created=None if facts.created is None else moment(facts.created),
        cwd=facts.cwd,
        model=facts.model,
        parent=row.parent,
        tokens=facts.tokens,
        cost=facts.cost,
        resume=facts.resume,
        deleted_workspace=row.deleted_workspace,
    )


def _block(block: Block, mask: Mask) -> Block:
    if isinstance(block, Text):
        text, omitted = _text(block.text, block.omitted, mask)
        return Text(text=text, omitted=omitted)
    if isinstance(block, Thinking):
        text, omitted = _text(block.text, block.omitted, mask)
        return Thinking(text=text, omitted=omitted)
    call_id = line(block.call_id, _ID) or ""
    if isinstance(block, ToolCall):
        text, omitted = _text(block.input, block.omitted, mask)
        return ToolCall(call_id=call_id, name=line(block.name, _ID) or "", input=text, omitted=omitted)
    text, omitted = _text(block.output, block.omitted, mask)
    return ToolResult(call_id=call_id, output=text, failed=block.failed, omitted=omitted)


def _text(text: str, omitted: int, mask: Mask) -> tuple[str, int]:
    """Within bounds and without secrets, and how much is left out. Of a secret that reaches across a bound, be it ours
    or the worker's own (who has ``omitted`` so much), nothing is left either."""
    if omitted <= 0 and len(text) <= BLOCK_LIMIT:
        return mask(text), 0
    omitted = min(max(omitted, 0), _COUNT)
    known = text[: BLOCK_LIMIT + mask.reach]
    if omitted == 0 and len(known) == len(text):
        return mask(text)[:BLOCK_LIMIT], len(text) - BLOCK_LIMIT
    masked = mask.beginning(known)[:BLOCK_LIMIT]
    return masked, omitted + max(len(text) - len(masked), 0)


def _tokens(told: Tokens) -> Tokens:
    return Tokens(
        input=_count(told.input),
        output=_count(told.output),
        cache_read=_count(told.cache_read),
        cache_write=_count(told.cache_write),
    )


def _count(number: int) -> int:
    return min(max(number, 0), _COUNT)


def _resume(command: Sequence[str] | None, mask: Callable[[str], str]) -> list[str] | None:
    """A command that is cut would be another one: it is there as a whole, or not at all."""
    if not command or len(command) > 32 or sum(map(len, command)) > _RESUME:
        return None
    return None if any(_UNPRINTABLE.search(word) or mask(word) != word for word in command) else list(command)


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
