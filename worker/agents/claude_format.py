"""Claude Code's records, as values.

A line holds one block; the lines of a message have its id, and each repeats its usage. Of dozens of kinds of records a
few are conversation; which others there are changes, and they are passed over.
"""

import re
from typing import Any, Final

import msgspec

from protocol.sessions import Block, MessageRole, Text, ToolResult
from worker.sessions import blocks
from worker.sessions.lines import count, plain, word
from worker.sessions.transcript import Conversation, State, key_of

TITLE_LIMIT: Final = 300

SHORT: Final = 4096
"""Records that are longer are no titles."""

NOT_A_PERSON: Final = (
    "<command-name>",
    "<command-message>",
    "<local-command-",
    "<bash-",
    "<task-notification>",
    "<system-reminder>",
    "<user-memory-input>",
    "Caveat: The messages below",
)
"""How the contents of user records begin that no person wrote."""

_TITLES: Final = {"summary": 1, "ai-title": 2, "custom-title": 3}

_KNOWN_FIRST: Final = frozenset((b"user", b"assistant", b"cost-state", b"summary", b"ai-title", b"custom-title"))


_ATTACHMENT: Final = re.compile(
    rb'\{"parentUuid":(?:null|"[0-9a-f-]{36}"),"isSidechain":(?:true|false)'
    rb'(?:,"(?:promptId|agentId)":"[^"\\]*")*,"attachment":\{'
)
"""How most of what is no conversation begins; no message has that key."""


class Said(msgspec.Struct):
    """The message inside of a record."""

    id: Any = None
    model: Any = None
    content: Any = None
    usage: Any = None
    stop_reason: Any = None


class Record(msgspec.Struct, rename="camel"):
    """What is read of a record; the rest is not even decoded."""

    type: Any = None
    message: Said | None = None
    uuid: Any = None
    timestamp: Any = None
    cwd: Any = None
    session_id: Any = None
    is_sidechain: Any = None
    is_meta: Any = None
    is_compact_summary: Any = None
    is_api_error_message: Any = None
    custom_title: Any = None
    ai_title: Any = None
    summary: Any = None
    total_cost: Any = msgspec.field(default=None, name="totalCostUSD")


class ClaudeFormat:
    """Claude Code's records."""

    _decoder = msgspec.json.Decoder(Record)

    def wants(self, line: bytes) -> bool:
        if _ATTACHMENT.match(line):
            return False
        if line.startswith(b'{"type":"'):
            return line[9 : line.find(b'"', 9)] in _KNOWN_FIRST
        if b'"assistant"' in line or b'"user"' in line:
            return True
        return len(line) < SHORT and (b'-title"' in line or b'"summary"' in line or b'"cost-state"' in line)

    def decode(self, line: bytes) -> Record:
        return self._decoder.decode(line)

    def convert(self, record: dict[str, Any]) -> Record:
        return msgspec.convert(record, Record)

    def apply(self, record: Record, conversation: Conversation) -> None:
        match record.type:
            case "assistant" if record.message:
                self._facts(record, conversation.state)
                self._assistant(record, record.message, conversation)
            case "user" if record.message:
                self._facts(record, conversation.state)
                self._user(record, record.message, conversation)
            case "custom-title" | "ai-title" | "summary":
                title = record.custom_title or record.ai_title or record.summary
                conversation.retitle(_TITLES[record.type], plain(title, TITLE_LIMIT))
            case "cost-state" if isinstance(record.total_cost, int | float) and record.total_cost >= 0:
                conversation.state.cost = float(record.total_cost)

    def _facts(self, record: Record, state: State) -> None:
        if record.cwd and state.cwd is None:
            state.cwd = plain(record.cwd, 1024)
        if record.session_id and state.parent is None:
            state.parent = plain(record.session_id, 128)

    def _assistant(self, record: Record, said: Said, conversation: Conversation) -> None:
        id = said.id if isinstance(said.id, str) and said.id else str(record.uuid)
        model = word(said.model) if isinstance(said.model, str) and said.model != "<synthetic>" else None
        key = key_of(id)
        draft = conversation.growing(key, MessageRole.ASSISTANT, id, record.timestamp, model)
        if model:
            conversation.state.model = model
        if isinstance(said.usage, dict) and model:
            usage = said.usage
            conversation.count_tokens(
                key,
                (
                    count(usage.get("input_tokens")),
                    count(usage.get("output_tokens")),
                    count(usage.get("cache_read_input_tokens")),
                    count(usage.get("cache_creation_input_tokens")),
                ),
            )
        if draft:
            conversation.add(draft, blocks_of(said.content))

    def _user(self, record: Record, said: Said, conversation: Conversation) -> None:
        found = blocks_of(said.content)
        id = record.uuid if isinstance(record.uuid, str) else ""
        if any(isinstance(block, ToolResult) for block in found):
            conversation.say(MessageRole.TOOL, id, found, record.timestamp)
            return
        first = next((block.text for block in found if isinstance(block, Text)), "")
        if record.is_meta or record.is_compact_summary or first.startswith(NOT_A_PERSON):
            conversation.say(MessageRole.SYSTEM, id, found, record.timestamp)
            return
        if not record.is_sidechain:
            conversation.settle()
        if conversation.state.title_rank < 0:
            conversation.retitle(0, plain(first, TITLE_LIMIT))
        conversation.say(MessageRole.USER, id, found, record.timestamp)


def blocks_of(content: Any) -> list[Block]:
    """The blocks of a message. What is not known is named."""
    if isinstance(content, str):
        return [blocks.text(content)]
    found: list[Block] = []
    for part in content if isinstance(content, list) else []:
        if not isinstance(part, dict):
            continue
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            found.append(blocks.text(part["text"]))
        elif kind == "thinking" and isinstance(part.get("thinking"), str):
            if part["thinking"]:
                found.append(blocks.thinking(part["thinking"]))
        elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            found.append(blocks.tool_call(part.get("id"), part.get("name"), part.get("input", {})))
        elif isinstance(kind, str) and kind.endswith("tool_result"):
            output = blocks.parts(part.get("content"))
            found.append(blocks.tool_result(part.get("tool_use_id"), output, failed=part.get("is_error") is True))
        elif isinstance(kind, str) and kind != "redacted_thinking":
            found.append(blocks.text(f"[{kind[:64]}]"))
    return found
