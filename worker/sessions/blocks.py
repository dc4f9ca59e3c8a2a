"""Blocks of messages, within the protocol's bounds."""

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from protocol.sessions import Block, Text, Thinking, ToolCall, ToolResult
from protocol.worker import BLOCK_LIMIT

CALL_ID_LIMIT: Final = 256

OVERHEAD: Final = 64
"""Bytes that a block counts for beside its content."""

_encode: Final = msgspec.json.Encoder().encode


def text(value: str) -> Text:
    """What was said."""
    kept, omitted = clipped(value)
    return Text(text=kept, omitted=omitted)


def thinking(value: str) -> Thinking:
    """What was thought aloud."""
    kept, omitted = clipped(value)
    return Thinking(text=kept, omitted=omitted)


def tool_call(call_id: object, name: object, arguments: object) -> ToolCall:
    """A tool that was used. ``arguments`` is JSON as text, or the value itself."""
    if not isinstance(arguments, str):
        arguments = as_json(arguments)
    kept, omitted = clipped(arguments)
    return ToolCall(call_id=_word(call_id), name=_word(name), input=kept, omitted=omitted)


def tool_result(call_id: object, output: str, *, failed: bool = False) -> ToolResult:
    """What a tool gave back."""
    kept, omitted = clipped(output)
    return ToolResult(call_id=_word(call_id), output=kept, failed=failed, omitted=omitted)


def as_json(value: object) -> str:
    """A part of a record, as JSON again."""
    try:
        return _encode(value).decode()
    except (UnicodeEncodeError, RecursionError, TypeError, msgspec.MsgspecError):
        return repr(value)


def clipped(value: str) -> tuple[str, int]:
    """A text that can be sent, and how many characters were cut off its end."""
    omitted = len(value) - BLOCK_LIMIT
    if omitted > 0:
        value = value[:BLOCK_LIMIT]
    else:
        omitted = 0
    return sendable(value), omitted


def sendable(value: str) -> str:
    """Without halves of characters, and without NUL."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            # Halves may belong together: JSON has characters beyond U+FFFF as two.
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value.replace("\0", "\ufffd") if "\0" in value else value


def weight(block: Block) -> int:
    """Bytes that a block counts for, about."""
    if isinstance(block, ToolResult):
        value = block.output
    else:
        value = block.input if isinstance(block, ToolCall) else block.text
    return OVERHEAD + (len(value) if value.isascii() else len(value.encode()))


def emptied(block: Block) -> Block:
    """The same without its content, all of which counts as cut off."""
    match block:
        case Text(text=value) | Thinking(text=value):
            return msgspec.structs.replace(block, text="", omitted=block.omitted + len(value))
        case ToolCall(input=value):
            return msgspec.structs.replace(block, input="", omitted=block.omitted + len(value))
        case ToolResult(output=value):
            return msgspec.structs.replace(block, output="", omitted=block.omitted + len(value))


def parts(content: Any) -> str:
    """The text of a content that is a text, or a list of parts with texts; other parts are named in brackets."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return "" if content is None else as_json(content)
    texts = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            value = part.get("text")
            texts.append(value if isinstance(value, str) else f"[{_word(part.get('type') or 'part')}]")
    return "\n".join(texts)


def moment(value: object) -> datetime | None:
    """A moment as agents write it: ISO 8601, or milliseconds since 1970."""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value[:40])
            return at if at.tzinfo else at.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def _word(value: object) -> str:
    return sendable(value[:CALL_ID_LIMIT]) if isinstance(value, str) else ""
