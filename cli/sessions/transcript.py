"""A session's messages as people read them. Values in, text out; nothing in it moves a cursor."""

import json
import textwrap
from collections.abc import Iterator
from typing import Any, Final

from cli import output
from protocol.sessions import Block, Message, MessageRole, Text, Thinking, ToolCall, ToolResult

SPEAKERS: Final = {MessageRole.USER: "you", MessageRole.TOOL: "tool", MessageRole.SYSTEM: "system"}
ROLE_STYLES: Final[dict[str, output.Style]] = {MessageRole.USER: "cyan", MessageRole.ASSISTANT: "bold"}
TELLING: Final = ("command", "cmd", "file_path", "filePath", "path", "pattern", "query", "url", "prompt", "description")
"""What a tool was given that says most about what it did, the best first."""
FOLDED: Final = 200
"""Characters of a folded line where there is no terminal to cut it."""
INDENT: Final = "  "


def lines(message: Message, agent: str, *, full: bool, columns: int | None) -> Iterator[str]:
    """A message, with its heading. ``columns`` None: nothing is wrapped. Without ``full`` tools and thoughts take one
    line each."""
    blocks = [line for block in message.blocks for line in block_lines(block, full=full, columns=columns)]
    if message.role is MessageRole.TOOL and not full and all(isinstance(each, ToolResult) for each in message.blocks):
        # Belongs to the call above.
        yield from blocks
        return
    if message.role is MessageRole.SYSTEM and not full:
        # What agents tell their models aside; people seldom want to know.
        texts = " ".join(block.text for block in message.blocks if isinstance(block, Text | Thinking))
        yield _folded(f"· #{message.ordinal} system: ", texts, "dim", columns)
        return
    yield ""
    yield heading(message, agent)
    yield from blocks or [INDENT + output.styled("(nothing)", "dim")]


def heading(message: Message, agent: str) -> str:
    """Who, which message, when."""
    who = output.clean(SPEAKERS.get(message.role, agent))
    facts = [f"#{message.ordinal}"]
    if message.at is not None:
        facts.append(f"{message.at.astimezone():%Y-%m-%d %H:%M:%S}")
    if message.model and message.role is not MessageRole.USER:
        facts.append(output.clean(message.model))
    return output.styled(who, ROLE_STYLES.get(message.role, "dim")) + output.styled(f"  {'  '.join(facts)}", "dim")


def block_lines(block: Block, *, full: bool, columns: int | None) -> Iterator[str]:
    """A block, in lines that are indented."""
    match block:
        case Text(text, omitted):
            yield from _wrapped(text, columns)
            yield from _omitted(omitted)
        case Thinking(text, omitted) if full:
            yield from _styled("dim", _wrapped(text, columns))
            yield from _omitted(omitted)
        case Thinking(text):
            yield _folded("… ", text, "dim", columns)
        case ToolCall(_, name, given, omitted) if full:
            yield INDENT + output.styled(f"▸ {output.clean(name)}", "yellow")
            yield from _wrapped(_pretty(given), columns, INDENT * 2)
            yield from _omitted(omitted)
        case ToolCall(_, name, given):
            yield _folded("▸ ", f"{name}  {telling(given)}", "yellow", columns)
        case ToolResult(_, text, failed, omitted) if full:
            yield from _styled("red" if failed else "dim", _wrapped(text, columns, f"{INDENT}│ "))
            yield from _omitted(omitted)
        case ToolResult(_, text, failed):
            text = _without_preamble(text)
            rest = len(text.strip().splitlines()) - 1
            more = f"  (+{rest} line{'' if rest == 1 else 's'})" if rest > 0 else ""
            first = text.strip().partition("\n")[0] or "(nothing)"
            yield _folded("  ✗ " if failed else "  ↳ ", first, "red" if failed else "dim", columns, more)


def telling(given: str) -> str:
    """One line that says what a tool was asked to do."""
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return given
    if isinstance(value, dict):
        for key in TELLING:
            if value.get(key):
                return _plain(value[key])
        return ", ".join(f"{key}={_plain(each)}" for key, each in value.items())
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return " ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _without_preamble(text: str) -> str:
    """Codex puts how a command went before what it printed."""
    head, found, output_ = text[:400].partition("\nOutput:\n")
    return output_ + text[400:] if found and head.startswith("Chunk ID:") else text


def _pretty(given: str) -> str:
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return given
    if not isinstance(value, dict):
        return json.dumps(value, indent=2, ensure_ascii=False)
    # Line breaks in a command or a file are to be read as such.
    parts = []
    for key, each in value.items():
        text = _plain(each) if isinstance(each, str | list) else json.dumps(each, ensure_ascii=False)
        parts.append(f"{key}:\n{textwrap.indent(text, INDENT)}" if "\n" in text else f"{key}: {text}")
    return "\n".join(parts)


def _folded(mark: str, text: str, style: output.Style, columns: int | None, more: str = "") -> str:
    room = FOLDED if columns is None else columns - len(INDENT) - len(mark) - len(more)
    flat = " ".join(output.clean(text[: FOLDED * 4]).split())
    return INDENT + output.styled(mark + output.cut(flat, max(room, 10)) + more, style)


def _wrapped(text: str, columns: int | None, indent: str = INDENT) -> Iterator[str]:
    """Its own lines, each wrapped to the terminal."""
    for line in output.clean_lines(text.strip("\n")):
        if columns is None or output.columns(line) <= columns - len(indent):
            yield f"{indent}{line}".rstrip()
        else:
            for each in output.wrapped(line, max(columns - len(indent), 20)):
                yield indent + each


def _styled(style: output.Style, of: Iterator[str]) -> Iterator[str]:
    for line in of:
        yield output.styled(line, style)


def _omitted(count: int) -> Iterator[str]:
    if count:
        yield INDENT + output.styled(f"({count:,} characters were left out)", "dim")
