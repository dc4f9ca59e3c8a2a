"""Codex' records, as values.

Each line is ``{timestamp, type, payload}``; before October 2025 it was the payload alone. What is said is there several
times, in shapes that change (``user_message``, ``item_completed`` …); the items that go to the model and come back
(``response_item``) are in all versions, so they are what is read: without those of role ``developer``, and without what
Codex itself says to the model as the user.
"""

import re
from typing import Any, Final

import msgspec

from protocol.sessions import Block, MessageRole
from worker.sessions import blocks
from worker.sessions.lines import Unreadable, count, plain
from worker.sessions.transcript import Conversation, State

TITLE_LIMIT: Final = 300

NOT_A_PERSON: Final = (
    "<environment_context>",
    "<user_instructions>",
    "<permissions instructions>",
    "<skills_instructions>",
    "<turn_aborted>",
    "<user_shell_command>",
    "# AGENTS.md instructions",
)
"""How the contents of user messages begin that Codex wrote."""

_ITEMS: Final = frozenset(
    (
        "message",
        "reasoning",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "local_shell_call",
        "web_search_call",
    )
)


_NOT_SAID: Final = frozenset((b"world_state", b"compacted", b"token_usage_record", b"inter_agent_communication"))

_SAID_TWICE: Final = frozenset(
    (
        b"item_completed",
        b"user_message",
        b"agent_message",
        b"agent_reasoning",
        b"exec_command_end",
        b"patch_apply_end",
        b"mcp_tool_call_end",
        b"thread_settings_applied",
    )
)


class Payload(msgspec.Struct):
    """What is read of a payload, of whatever type."""

    type: Any = None
    id: Any = None
    role: Any = None
    content: Any = None
    summary: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    action: Any = None
    call_id: Any = None
    output: Any = None
    info: Any = None
    cwd: Any = None
    model: Any = None
    timestamp: Any = None
    source: Any = None
    status: Any = None


class Record(Payload):
    """A line: a payload with its wrapping, or alone."""

    payload: Payload | None = None


class CodexFormat:
    """Codex' records."""

    _decoder = msgspec.json.Decoder(Record)

    def wants(self, line: bytes) -> bool:
        # The type comes within the first few fields, and what is not wanted is long.
        at = line.find(b'"type":"', 0, 160)
        if at < 0 or line.find(b'"payload"', 0, at) >= 0:
            return True
        kind = line[at + 8 : line.find(b'"', at + 8)]
        if kind == b"event_msg":
            inner = line.find(b'"payload":{"type":"', at, 240)
            return inner < 0 or line[inner + 19 : line.find(b'"', inner + 19)] not in _SAID_TWICE
        return kind not in _NOT_SAID

    def decode(self, line: bytes) -> Record:
        return self._decoder.decode(line)

    def convert(self, record: dict[str, Any]) -> Record:
        return msgspec.convert(record, Record)

    def apply(self, record: Record, conversation: Conversation) -> None:
        payload = record.payload or record
        match record.type:
            case "session_meta":
                self._meta(payload, conversation.state)
                conversation.happened(payload.timestamp)
            case "turn_context":
                conversation.state.model = plain(payload.model, 128) or conversation.state.model
                conversation.state.cwd = conversation.state.cwd or plain(payload.cwd, 1024)
            case "event_msg":
                self._event(payload, conversation.state)
            case "response_item":
                self._item(payload, record.timestamp, conversation)
            case None if record.id and record.timestamp:
                self._meta(payload, conversation.state)
                conversation.happened(record.timestamp)
            case str() if record.payload is None and record.type in _ITEMS:
                self._item(record, record.timestamp, conversation)

    def _meta(self, payload: Payload, state: State) -> None:
        state.cwd = state.cwd or plain(payload.cwd, 1024)
        if isinstance(payload.source, dict) and isinstance(payload.source.get("subagent"), dict):
            spawn = payload.source["subagent"].get("thread_spawn")
            if isinstance(spawn, dict):
                state.parent = plain(spawn.get("parent_thread_id"), 128)

    def _event(self, payload: Payload, state: State) -> None:
        usage = payload.info.get("total_token_usage") if isinstance(payload.info, dict) else None
        if payload.type == "token_count" and isinstance(usage, dict):
            cached = count(usage.get("cached_input_tokens"))
            state.tokens = (
                max(0, count(usage.get("input_tokens")) - cached),
                count(usage.get("output_tokens")),
                cached,
                count(usage.get("cache_write_input_tokens")),
            )

    def _item(self, item: Payload, at: Any, conversation: Conversation) -> None:
        id = next((value for value in (item.id, item.call_id) if isinstance(value, str)), "")
        kind = item.type if isinstance(item.type, str) else ""
        if kind == "message" and item.role == "user":
            self._user(item, id, at, conversation)
        elif kind in ("function_call_output", "custom_tool_call_output"):
            conversation.settle()
            conversation.say(MessageRole.TOOL, id, [_output(item)], at)
        elif kind in _ITEMS and not (kind == "message" and item.role != "assistant"):
            # What comes between two answers of tools, or two words of a person, is one message.
            found = _blocks(kind, item)
            conversation.happened(at)
            if not found:
                return
            opened = conversation.state.open
            key = opened[0].key if opened else f"{conversation.state.ordinal}"
            draft = conversation.growing(key, MessageRole.ASSISTANT, id, at, conversation.state.model)
            if draft:
                conversation.add(draft, found)

    def _user(self, item: Payload, id: str, at: Any, conversation: Conversation) -> None:
        content = item.content if isinstance(item.content, list) else [item.content]
        texts = [text for part in content if (text := blocks.parts([part]))]
        kept = [text for text in texts if not text.startswith(NOT_A_PERSON)]
        if not kept:
            return
        conversation.settle()
        if conversation.state.title is None:
            conversation.retitle(0, plain(kept[0], TITLE_LIMIT))
        conversation.say(MessageRole.USER, id, [blocks.text(text) for text in kept], at)


def _blocks(kind: str, item: Payload) -> list[Block]:
    match kind:
        case "message":
            return [blocks.text(blocks.parts(item.content))]
        case "reasoning":
            thought = "\n\n".join(text for text in (_texts(item.summary), _texts(item.content)) if text)
            return [blocks.thinking(thought)] if thought else []
        case "function_call":
            return [blocks.tool_call(item.call_id, item.name, item.arguments)]
        case "custom_tool_call":
            return [blocks.tool_call(item.call_id, item.name, blocks.as_json(item.input))]
        case "local_shell_call" | "web_search_call":
            return [blocks.tool_call(item.call_id or item.id, kind.removesuffix("_call"), blocks.as_json(item.action))]
    return []


def _texts(content: Any) -> str:
    return blocks.parts(content) if isinstance(content, list) else ""


def _output(item: Payload) -> Block:
    """What a tool gave back: a text, JSON in a text with its exit code, or parts."""
    output, failed = item.output, False
    if isinstance(output, str) and output.startswith('{"output":'):
        try:
            inner = msgspec.json.decode(output)
        except Unreadable:
            inner = None
        if isinstance(inner, dict) and isinstance(inner.get("output"), str):
            output, failed = inner["output"], _exit_code(inner.get("metadata")) != 0
    elif isinstance(output, str):
        exited = re.search(r"^Process exited with code (\d+)$", output[:1000], re.MULTILINE)
        failed = exited is not None and exited[1] != "0"
    elif isinstance(output, dict):
        failed = output.get("success") is False
        output = output.get("content")
    return blocks.tool_result(item.call_id, blocks.parts(output), failed=failed)


def _exit_code(metadata: Any) -> int:
    return count(metadata.get("exit_code")) if isinstance(metadata, dict) else 0
