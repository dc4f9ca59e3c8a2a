"""The sessions of coding agents: what a session and its messages are, and what clients ask about them.

The words are the Agent Client Protocol's where it has one (https://agentclientprotocol.com): session, title, cwd,
tool call, and content in blocks. A session is known by its workspace, its agent and its id together.

``/sessions`` and ``/sessions/<name>`` are WebSockets: :class:`SessionsSnapshot`, then changes. A client that also wants
the messages of a session sends :class:`Subscribe`.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from protocol.wire import Moment, Told, Wire
from protocol.workspaces import WorkspaceName

AgentName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
"""``opencode``, ``claude``, ``codex``, ``gemini`` …"""

SessionId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]

Cursor = Annotated[str, msgspec.Meta(max_length=512)]
"""Where a page ended; opaque to clients."""


class SessionStatus(Told):
    """What a session's agent is doing. ``waiting``: for a person, who has to answer or to allow something."""

    BUSY = "busy"
    IDLE = "idle"
    WAITING = "waiting"
    ERROR = "error"
    UNKNOWN = "unknown"


class MessageRole(Told):
    """Who speaks. ``tool`` is what a tool gave back."""

    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    SYSTEM = "system"


class Text(Wire, frozen=True, tag="text", tag_field="type"):
    """What was said. ``omitted`` is the number of characters that were cut off its end."""

    text: str
    omitted: int = 0


class Thinking(Wire, frozen=True, tag="thinking", tag_field="type"):
    """What the model thought aloud."""

    text: str
    omitted: int = 0


class ToolCall(Wire, frozen=True, tag="toolCall", tag_field="type"):
    """A tool that the agent used. ``input`` is JSON, as text."""

    call_id: str
    name: str
    input: str
    omitted: int = 0


class ToolResult(Wire, frozen=True, tag="toolResult", tag_field="type"):
    """What a tool gave back to the call of that id."""

    call_id: str
    output: str
    failed: bool = False
    omitted: int = 0


Block = Text | Thinking | ToolCall | ToolResult


class Message(Wire, frozen=True):
    """A message. ``ordinal`` counts a session's messages from 0 and stays, also when the message grows."""

    ordinal: int
    id: str
    role: MessageRole
    blocks: list[Block]
    at: Moment | None = None
    model: str | None = None


class Tokens(Wire, frozen=True):
    """Tokens that a session has used, as its agent recorded them."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0


class SessionInfo(Wire, frozen=True):
    """A session. ``message_count`` counts messages of user and assistant. ``cost`` is in US dollars.

    ``resume`` is the command that opens it again, to be run in ``cwd``. ``live`` says whether its workspace is followed
    now: where it is not, the rest is what was seen last. ``deleted_workspace`` marks one that was kept by
    ``--keep-sessions``.
    """

    workspace: str
    agent: str
    session_id: str
    title: str
    status: SessionStatus
    message_count: int
    last_activity: datetime
    live: bool
    created: datetime | None = None
    cwd: str | None = None
    model: str | None = None
    parent: str | None = None
    tokens: Tokens | None = None
    cost: float | None = None
    resume: list[str] | None = None
    deleted_workspace: bool = False


class SessionRef(Wire, frozen=True, forbid_unknown_fields=True):
    """One session."""

    workspace: WorkspaceName
    agent: AgentName
    session_id: SessionId


class ListSessions(Wire, frozen=True, forbid_unknown_fields=True):
    """Which sessions: the most recently active first. ``since`` and ``until`` bound the last activity.

    Sessions of subagents are left out unless ``subagents``, or the ``parent`` is named. ``id_prefix``: those whose id
    begins so.
    """

    workspace: WorkspaceName | None = None
    agent: AgentName | None = None
    status: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    parent: SessionId | None = None
    id_prefix: SessionId | None = None
    subagents: bool = False
    cursor: Cursor | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class Sessions(Wire, frozen=True):
    """A page of sessions. ``next_cursor`` is absent on the last."""

    items: list[SessionInfo]
    next_cursor: str | None = None


class ListMessages(SessionRef, frozen=True, forbid_unknown_fields=True):
    """Which messages of a session: those ``after`` an ordinal, oldest first; or those ``before`` one, or without
    either the latest, then the page is the nearest ``limit`` of them, still in their order."""

    after: int | None = None
    before: int | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 100


class Messages(Wire, frozen=True):
    """A page of messages in their order, and whether the session has more on either side."""

    items: list[Message]
    more_before: bool
    more_after: bool


class SearchSessions(Wire, frozen=True, forbid_unknown_fields=True):
    """Full text: all words of ``query``; ``"a phrase"``; a word with ``*`` at its end for a beginning."""

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    workspace: WorkspaceName | None = None
    agent: AgentName | None = None
    cursor: Cursor | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20


class Hit(Wire, frozen=True):
    """A message that was found. ``snippet`` has the words between U+E000 and U+E001 (private use: no text has them)."""

    session: SessionInfo
    ordinal: int
    role: MessageRole
    snippet: str
    at: datetime | None = None


class Hits(Wire, frozen=True):
    """A page of what was found, the best first."""

    items: list[Hit]
    next_cursor: str | None = None


class RenameSession(SessionRef, frozen=True, forbid_unknown_fields=True):
    """Another title, in the agent's own store."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class DeleteSession(SessionRef, frozen=True, forbid_unknown_fields=True):
    """Delete it from the index; with ``in_workspace`` from the agent's own store too, where it is gone for good.

    Without ``in_workspace`` a session that still exists there comes back as soon as it changes.
    """

    in_workspace: bool = False


# --- the WebSockets


class SessionsSnapshot(Wire, frozen=True, tag="snapshot", tag_field="type"):
    """The sessions as they stand after change ``seq``, the most recently active first; ``more`` where older were left
    out (``sessions.list`` has them). ``epoch`` changes with each run of the control plane."""

    epoch: str
    seq: int
    items: list[SessionInfo]
    more: bool


class SessionChanged(Wire, frozen=True, tag="session", tag_field="type"):
    """A session is new or has changed."""

    seq: int
    session: SessionInfo


class SessionDeleted(Wire, frozen=True, tag="sessionDeleted", tag_field="type"):
    """A session is gone."""

    seq: int
    workspace: str
    agent: str
    session_id: str


class NewMessages(Wire, frozen=True, tag="messages", tag_field="type"):
    """Messages of a session that was subscribed to, new or grown. They replace those of the same ordinals; ``reset``
    where all others are void, because the session was rewritten."""

    workspace: str
    agent: str
    session_id: str
    items: list[Message]
    reset: bool = False


SessionsFrame = SessionsSnapshot | SessionChanged | SessionDeleted | NewMessages


class SubscribeKind(StrEnum):
    """Begin or end."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"


class Subscribe(Wire, frozen=True, forbid_unknown_fields=True):
    """A client wants the messages of a session: those ``after`` an ordinal that it has (none: from now on)."""

    type: SubscribeKind
    workspace: WorkspaceName
    agent: AgentName
    session_id: SessionId
    after: int | None = None


frame_decoder: msgspec.json.Decoder[SessionsFrame] = msgspec.json.Decoder(SessionsFrame)
