"""Gemini CLI: ``~/.gemini/tmp/<project>/chats/session-<moment>-<part of the id>.jsonl``.

As of version 0.61.0, recorded. First comes a header with the session's id; then messages, of which one with the id of
an earlier one takes its place; and ``{"$set": {…}}``, which changes what is known of the session. After a session is
resumed, the header comes again, and all messages in a ``$set``, told more briefly: of those only new ones count.
"""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.sessions import Block, MessageRole, ToolResult
from protocol.worker import SessionFacts
from worker.agents.transcripts import Transcripts, Turn
from worker.opening import open_below, open_to_append
from worker.sessions import blocks
from worker.sessions.agent import Found, NotPossible
from worker.sessions.lines import Unreadable, count, plain, word
from worker.sessions.transcript import Conversation, Open, State, key_of

TITLE_LIMIT: Final = 300

KNOWN_LIMIT: Final = 64
"""Messages that can still be written again, at most."""

HEADER_LIMIT: Final = 4096
BLANK_LIMIT: Final = 64 << 10
"""Bytes of a file, at most, in which nobody has said anything."""

NOT_A_PERSON: Final = ("<session_context>",)


class Record(msgspec.Struct, rename="camel"):
    """What is read of a record: a header, a message, or a change."""

    id: Any = None
    type: Any = None
    timestamp: Any = None
    content: Any = None
    thoughts: Any = None
    tool_calls: Any = None
    tokens: Any = None
    model: Any = None
    session_id: Any = None
    start_time: Any = None
    change: Any = msgspec.field(default=None, name="$set")


class GeminiFormat:
    """Gemini CLI's records."""

    _decoder = msgspec.json.Decoder(Record)

    def wants(self, line: bytes) -> bool:
        return not line.startswith(b'{"$set":{"lastUpdated"')

    def decode(self, line: bytes) -> Record:
        return self._decoder.decode(line)

    def convert(self, record: dict[str, Any]) -> Record:
        return msgspec.convert(record, Record)

    def apply(self, record: Record, conversation: Conversation) -> None:
        if isinstance(record.id, str) and isinstance(record.type, str):
            self._message(record, conversation)
        elif isinstance(record.change, dict):
            conversation.retitle(1, plain(record.change.get("summary"), TITLE_LIMIT))
            self._again(record.change.get("messages"), conversation)
        elif record.session_id:
            conversation.happened(record.start_time)

    def _again(self, messages: Any, conversation: Conversation) -> None:
        """All messages once more: what comes after the last that is known."""
        told = [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []
        known = {entry.key for entry in conversation.state.known}
        old = [
            index
            for index, message in enumerate(told)
            if key_of(str(message.get("id")).removesuffix("_response")) in known
        ]
        for message in told[old[-1] + 1 if old else 0 :]:
            try:
                record = self.convert(message)
            except msgspec.ValidationError:
                continue
            if isinstance(record.id, str) and isinstance(record.type, str):
                self._message(record, conversation)

    def _message(self, record: Record, conversation: Conversation) -> None:
        found = _blocks(record)
        role = _role(record, found)
        if role is None or not found:
            return
        key, id, model = key_of(record.id), record.id, None
        if isinstance(record.model, str):
            model = word(record.model)
        state = conversation.state
        entry = next((entry for entry in state.known if entry.key == key), None)
        tokens = _tokens(record.tokens)
        if model:
            state.model = model
        if role is MessageRole.USER and state.title is None:
            conversation.retitle(0, plain(blocks.parts(record.content), TITLE_LIMIT))
        if entry is None:
            ordinal = conversation.say(role, id, found, record.timestamp, model)
            state.known = (*state.known, Open(key, ordinal, 0, tokens))[-KNOWN_LIMIT:]
        else:
            conversation.replace(entry.ordinal, role, id, found, record.timestamp, model)
            changed = msgspec.structs.replace(entry, tokens=tokens)
            state.known = tuple(changed if other is entry else other for other in state.known)
        before = entry.tokens if entry else (0, 0, 0, 0)
        if tokens != before:
            conversation.recount(before, tokens)


def _role(record: Record, found: list[Block]) -> MessageRole | None:
    match record.type:
        case "user":
            if any(isinstance(block, ToolResult) for block in found):
                return MessageRole.TOOL
            return None if blocks.parts(record.content).startswith(NOT_A_PERSON) else MessageRole.USER
        case "gemini":
            return MessageRole.ASSISTANT
        case "info" | "warning" | "error":
            return MessageRole.SYSTEM
    return None


def _blocks(record: Record) -> list[Block]:
    found: list[Block] = []
    for thought in record.thoughts if isinstance(record.thoughts, list) else []:
        if isinstance(thought, dict):
            told = [thought.get("subject"), thought.get("description")]
            found.append(blocks.thinking("\n".join(text for text in told if isinstance(text, str) and text)))
    for part in record.content if isinstance(record.content, list) else [record.content]:
        if isinstance(part, str):
            found += [blocks.text(part)] if part else []
        elif isinstance(part, dict):
            found += _part(part)
    for call in record.tool_calls if isinstance(record.tool_calls, list) else []:
        if isinstance(call, dict):
            found.append(blocks.tool_call(call.get("id"), call.get("name"), call.get("args", {})))
    return found


def _part(part: dict[str, Any]) -> list[Block]:
    text, call, response = part.get("text"), part.get("functionCall"), part.get("functionResponse")
    if isinstance(text, str):
        return [blocks.thinking(text) if part.get("thought") else blocks.text(text)]
    if isinstance(call, dict):
        return [blocks.tool_call(call.get("id"), call.get("name"), call.get("args", {}))]
    if isinstance(response, dict):
        told = response.get("response")
        failed = isinstance(told, dict) and "error" in told
        output = (told.get("error") if failed else told.get("output")) if isinstance(told, dict) else told
        return [blocks.tool_result(response.get("id"), blocks.parts(output), failed=failed)]
    return [blocks.text("[file]")]


def _tokens(usage: Any) -> tuple[int, int, int, int]:
    if not isinstance(usage, dict):
        return (0, 0, 0, 0)
    cached = count(usage.get("cached"))
    answered = count(usage.get("output")) + count(usage.get("thoughts"))
    return (max(0, count(usage.get("input")) - cached), answered, cached, 0)


def _is_blank(content: bytes) -> bool:
    """Whether nobody has said anything in a file. Gemini CLI makes such a one each time that it opens a session again,
    with its id and a newer date, and goes on in the first; without this it would be taken for the session."""
    if len(content) > BLANK_LIMIT:
        return False
    for line in content.splitlines()[1:]:
        try:
            record = msgspec.json.decode(line, type=_Patched)
        except msgspec.DecodeError:
            return False
        said = record.set.get("messages") if record.set is not None else None
        if record.id is not None or (isinstance(said, list) and len(said) > 1):
            return False
    return True


class _Patched(msgspec.Struct):
    id: Any = None
    set: dict[str, Any] | None = msgspec.field(default=None, name="$set")


class Gemini(Transcripts):
    """Gemini CLI's sessions."""

    name = "gemini"
    form = GeminiFormat()
    depth = 3

    def enters(self, folder: str, depth: int) -> bool:
        return depth != 1 or os.path.basename(folder) == "chats"

    def concerns(self, path: str) -> bool:
        return super().concerns(path) and "/chats/" in path

    def session_of(self, path: str) -> str | None:
        folders = os.path.relpath(path, self.root).split(os.sep)
        if len(folders) not in (3, 4) or folders[1] != "chats" or not path.endswith(".jsonl"):
            return None
        fd = open_below(self.root, path)
        try:
            head = os.pread(fd, BLANK_LIMIT + 1, 0)
            header = self.form.decode(head[:HEADER_LIMIT].partition(b"\n")[0])
        except Unreadable:
            return None
        finally:
            os.close(fd)
        if not isinstance(header.session_id, str) or _is_blank(head):
            return None
        return header.session_id

    def turn(self, record: Record) -> Turn | None:
        match record.type:
            case "gemini":
                return Turn.RUNNING if record.tool_calls else Turn.DONE
            case "user":
                return None if blocks.parts(record.content).startswith(NOT_A_PERSON) else Turn.RUNNING
            case "error":
                return Turn.FAILED
        return None

    def programs(self) -> tuple[str, ...]:
        return ("gemini", "gemini.js")

    def resume(self, session_id: str) -> list[str] | None:
        return ["gemini", "--resume", session_id]

    def facts(self, found: Found, state: State) -> SessionFacts:
        facts = super().facts(found, state)
        folders = os.path.relpath(found.key, self.root).split(os.sep)
        parent = folders[2] if len(folders) == 4 else None
        return msgspec.structs.replace(
            facts, cwd=self._project(folders[0]), parent=parent, resume=None if parent else facts.resume
        )

    def rename(self, found: Found, title: str) -> None:
        fd = open_to_append(self.root, found.key)
        try:
            os.write(fd, msgspec.json.encode({"$set": {"summary": title}}) + b"\n")
        finally:
            os.close(fd)

    def delete(self, found: Found) -> None:
        if self.processes.hold_open(found.key, *self.programs()):
            raise NotPossible("This session is open in a running Gemini CLI, which would write it again: end it first.")
        os.close(open_below(self.root, found.key))
        os.unlink(found.key)
        for blank in Path(found.key).parent.glob(f"session-*-{found.session_id[:8]}.jsonl"):
            with contextlib.suppress(OSError):
                if blank.is_file() and blank.stat().st_size <= BLANK_LIMIT and _is_blank(blank.read_bytes()):
                    blank.unlink()
        shutil.rmtree(Path(found.key).parent / found.session_id, ignore_errors=True)

    def _project(self, name: str) -> str | None:
        """The folder that a project is, as Gemini CLI notes it there."""
        try:
            fd = open_below(self.root, f"{self.root}/{name}/.project_root")
        except OSError:
            return None
        try:
            return plain(os.pread(fd, 4096, 0).decode("utf-8", "replace"), 1024)
        finally:
            os.close(fd)
