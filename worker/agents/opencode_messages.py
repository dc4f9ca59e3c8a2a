"""What OpenCode writes about messages, as messages: values only. Three layouts, from a database or from files.

V1 (as of version 1.18.33, recorded): a message, and its parts each by itself. V2 (from its source: the database cannot
be had yet): a message with its content. The files of before 1.2 hold what the tables of V1 hold.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from protocol.sessions import Block, Message, MessageRole
from worker.agents.transcripts import Turn
from worker.sessions import blocks
from worker.sessions.lines import plain

_SPEAKERS: Final = {
    "user": MessageRole.USER,
    "assistant": MessageRole.ASSISTANT,
    "shell": MessageRole.TOOL,
    "system": MessageRole.SYSTEM,
    "synthetic": MessageRole.SYSTEM,
    "compaction": MessageRole.SYSTEM,
}
"""By the type of a V2 message; other types (a model was switched …) are no messages."""


_ALLOWED_FIRST: Final = frozenset(("bash", "edit", "write", "multiedit", "patch", "apply_patch"))
"""Tools that ask before they begin, and then soon say something, or are done."""


class Row(msgspec.Struct):
    """A message as it is stored: its key (by which messages are in order), and when it or a part of it was written.

    ``data`` and ``parts`` are decoded JSON; None for what could not be read."""

    key: tuple[int, str]
    id: str
    updated: int
    kind: str
    data: dict[str, Any] | None
    parts: list[dict[str, Any] | None] = msgspec.field(default_factory=list)

    @property
    def is_answer(self) -> bool:
        return self.kind == "assistant"

    @property
    def is_whole(self) -> bool:
        """Whether nothing comes to it any more."""
        data = self.data or {}
        return not self.is_answer or bool(data.get("error")) or _time(data, "completed") is not None

    @property
    def unreadable(self) -> int:
        return (self.data is None) + sum(part is None for part in self.parts)

    def turn(self) -> Turn | None:
        """What it says as the last message of a session."""
        data = self.data or {}
        if self.kind in ("user", "shell"):
            return Turn.RUNNING if self.kind == "user" else Turn.DONE
        if not self.is_answer:
            return None
        error = data.get("error")
        if error:
            aborted = isinstance(error, dict) and str(error.get("name") or error.get("type")).endswith("AbortedError")
            return Turn.DONE if aborted else Turn.FAILED
        over = _time(data, "completed") is not None and data.get("finish") not in ("tool-calls", "unknown")
        return Turn.DONE if over else Turn.RUNNING

    def message(self, ordinal: int) -> Message:
        data = self.data or {}
        found: list[Block] = []
        if self.parts or "content" not in data:
            for part in self.parts:
                found += _part(part) if part is not None else [blocks.text("[a part too long to be read]")]
        for part in data["content"] if isinstance(data.get("content"), list) else []:
            found += _part(part) if isinstance(part, dict) else []
        if self.kind == "shell":
            found.append(blocks.tool_call(data.get("callID"), "shell", blocks.as_json(data.get("command"))))
            found.append(blocks.tool_result(data.get("callID"), blocks.parts(data.get("output"))))
        elif text := data.get("text") or data.get("summary"):
            found += [blocks.text(text)] if isinstance(text, str) else []
        if problem := _problem(data.get("error")):
            found.append(blocks.text(problem))
        return Message(
            ordinal=ordinal,
            id=self.id[:256],
            role=_SPEAKERS.get(self.kind, MessageRole.SYSTEM),
            blocks=found,
            at=blocks.moment(_time(data, "created") or self.key[0]),
            model=model_of(data),
        )


def asks_since(parts: Iterable[dict[str, Any]]) -> float | None:
    """Since when a person may be asked for something, in seconds since 1970; None where not. Of an answer's parts.

    Nothing is stored of a question but its tool, which runs until it is answered. A tool that has to be allowed before
    it begins has no ``metadata`` until then (version 1.18.33, tried).
    """
    for part in parts:
        state = part.get("state")
        if part.get("type") != "tool" or not isinstance(state, dict) or state.get("status") != "running":
            continue
        if part.get("tool") == "question":
            return 0.0
        if part.get("tool") in _ALLOWED_FIRST and "metadata" not in state and (start := _time(state, "start")):
            return start / 1000
    return None


def is_message(kind: str) -> bool:
    """Whether a V2 record of that type is a message."""
    return kind in _SPEAKERS


def model_of(data: dict[str, Any]) -> str | None:
    """The model of an answer."""
    inner = data.get("model")
    inner = inner if isinstance(inner, dict) else {}
    return plain(data.get("modelID") or inner.get("id") or inner.get("modelID"), 128)


def _time(data: dict[str, Any], what: str) -> int | None:
    times = data.get("time")
    value = times.get(what) if isinstance(times, dict) else None
    return value if isinstance(value, int) else None


def _problem(error: Any) -> str | None:
    if not isinstance(error, dict):
        return error if isinstance(error, str) else None
    inner = error.get("data")
    message = inner.get("message") if isinstance(inner, dict) else error.get("message")
    name = error.get("name") or error.get("type") or "error"
    return f"[{name}] {message}" if message else f"[{name}]"


def _part(part: dict[str, Any]) -> list[Block]:
    kind, text = part.get("type"), part.get("text")
    if kind == "text" and isinstance(text, str):
        return [] if part.get("ignored") is True else [blocks.text(text)]
    if kind == "reasoning" and isinstance(text, str):
        return [blocks.thinking(text)] if text else []
    if kind == "tool":
        return _tool(part)
    if kind == "file":
        return [blocks.text(f"[{part.get('filename') or 'file'}]")]
    return []


def _tool(part: dict[str, Any]) -> list[Block]:
    state = part.get("state")
    state = state if isinstance(state, dict) else {}
    call_id = part.get("callID") or part.get("id")
    given = state.get("input")
    found: list[Block] = [blocks.tool_call(call_id, part.get("tool") or part.get("name"), given if given else "{}")]
    status = state.get("status")
    if status == "error":
        told = state.get("error")
        told = told.get("message") if isinstance(told, dict) else told
        found.append(blocks.tool_result(call_id, blocks.parts(told), failed=True))
    elif status == "completed":
        output = state.get("output") if "output" in state else state.get("content")
        found.append(blocks.tool_result(call_id, blocks.parts(output)))
    return found
