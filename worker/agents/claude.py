"""Claude Code: ``~/.claude/projects/<folder>/<session>.jsonl``, and its subagents in a folder beside it.

As of version 2.1.329, recorded. A line holds one block; the lines of a message have its id, and each repeats its usage.
Of dozens of kinds of records a few are conversation; which others there are changes, and they are passed over. The
folder's name is made from the working directory and cannot be read back. While Claude Code runs, it says in
``~/.claude/sessions/<pid>.json`` what it is doing; beside it there are keys, which are nobody's business.
"""

import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.sessions import Block, MessageRole, SessionStatus, Text, ToolCall, ToolResult
from protocol.worker import SessionFacts
from worker.agents.transcripts import Transcripts, Turn
from worker.sessions import blocks
from worker.sessions.agent import Found, Known, Looked, NotPossible, Place
from worker.sessions.lines import Unreadable, count, plain, word
from worker.sessions.liveness import Processes
from worker.sessions.opening import open_below, open_to_append
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
            conversation.add(draft, _blocks(said.content))

    def _user(self, record: Record, said: Said, conversation: Conversation) -> None:
        found = _blocks(said.content)
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


def _blocks(content: Any) -> list[Block]:
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


class Live(msgspec.Struct, rename="camel"):
    """What a running Claude Code says of itself."""

    pid: int
    session_id: str
    proc_start: str | None = None
    status: str | None = None
    waiting_for: Any = None


class Claude(Transcripts):
    """Claude Code's sessions."""

    name = "claude"
    form = ClaudeFormat()
    depth = 4

    def __init__(self, folder: Path, processes: Processes) -> None:
        super().__init__(folder / "projects", processes)
        self._running = folder / "sessions"
        self._live: dict[str, Live] = {}

    def places(self) -> Sequence[Place]:
        return [*super().places(), Place(self._running)]

    def concerns(self, path: str) -> bool:
        return super().concerns(path) or (path.endswith(".json") and path.startswith(f"{self._running}/"))

    def session_of(self, path: str) -> str | None:
        folders = os.path.relpath(path, self.root).split(os.sep)
        id, ending = os.path.splitext(folders[-1])
        is_session = len(folders) == 2 or (len(folders) > 3 and folders[2] == "subagents" and id.startswith("agent-"))
        return id if is_session and ending == ".jsonl" else None

    def look(self, paths: Collection[str] | None, known: Known) -> Looked:
        before, self._live = self._live, self._read_live()
        if paths is not None:
            changed = {id for id in before.keys() | self._live.keys() if before.get(id) != self._live.get(id)}
            transcripts = {key for id in changed if (key := known.key_of(id))}
            paths = transcripts | {path for path in paths if not path.startswith(f"{self._running}/")}
        return super().look(paths, known)

    def status(self, path: str, session_id: str, turn: Turn | None, written: float) -> SessionStatus:
        live = self._live_of(session_id)
        if live is None:
            return super().status(path, session_id, turn, written)
        if live.status == "waiting" or live.waiting_for:
            return SessionStatus.WAITING
        if live.status == "busy":
            return SessionStatus.BUSY
        return SessionStatus.ERROR if turn is Turn.FAILED else SessionStatus.IDLE

    def busy(self, path: str, session_id: str, turn: Turn, written: float) -> SessionStatus:
        parts = os.path.relpath(path, self.root).split(os.sep)
        if len(parts) > 3:
            parent = self._live_of(parts[1])
            if parent is not None:
                return SessionStatus.BUSY if parent.status == "busy" else SessionStatus.IDLE
        return super().busy(path, session_id, turn, written)

    def turn(self, record: Record) -> Turn | None:
        if record.type == "assistant" and record.message:
            if record.is_api_error_message:
                return Turn.FAILED
            if record.message.stop_reason is None:
                return (
                    Turn.RUNNING if any(isinstance(b, ToolCall) for b in _blocks(record.message.content)) else Turn.DONE
                )
            return Turn.RUNNING if record.message.stop_reason in ("tool_use", "pause_turn") else Turn.DONE
        if record.type == "user" and record.message:
            text = blocks.parts(record.message.content)
            if text.startswith("[Request interrupted by user"):
                return Turn.DONE
            return None if record.is_meta or text.startswith("<local-command-") else Turn.RUNNING
        return None

    def resume(self, session_id: str) -> list[str] | None:
        return None if session_id.startswith("agent-") else ["claude", "--resume", session_id]

    def facts(self, found: Found, state: State) -> SessionFacts:
        facts = super().facts(found, state)
        if not found.session_id.startswith("agent-"):
            return msgspec.structs.replace(facts, parent=None)
        return msgspec.structs.replace(facts, title=self._description(found.key) or facts.title)

    def rename(self, found: Found, title: str) -> None:
        if found.session_id.startswith("agent-"):
            raise NotPossible("A subagent of Claude Code has no title of its own: rename the session that started it.")
        record = {"type": "custom-title", "customTitle": title, "sessionId": found.session_id}
        fd = open_to_append(self.root, found.key)
        try:
            size = os.fstat(fd).st_size
            torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
            # In one call, as Claude Code does it: nothing of another writer comes between.
            os.write(fd, (b"\n" if torn else b"") + msgspec.json.encode(record) + b"\n")
        finally:
            os.close(fd)

    def delete(self, found: Found) -> None:
        self._live = self._read_live()
        if self._live_of(found.session_id):
            raise NotPossible(
                "This session is open in a Claude Code that runs, which would write it again: end it first."
            )
        os.close(open_below(self.root, found.key))
        os.unlink(found.key)
        if not found.session_id.startswith("agent-"):
            shutil.rmtree(found.key.removesuffix(".jsonl"), ignore_errors=True)

    def _live_of(self, session_id: str) -> Live | None:
        """What the process says that has a session open; None where there is none, or it is gone."""
        live = self._live.get(session_id)
        if live is None:
            return None
        start = self.processes.start_of(live.pid)
        return live if start is not None and live.proc_start in (None, start) else None

    def _read_live(self) -> dict[str, Live]:
        found: dict[str, Live] = {}
        try:
            names = [name for name in os.listdir(self._running) if name.removesuffix(".json").isdigit()]
        except OSError:
            return found
        for name in names[:1000]:
            try:
                fd = open_below(self._running, f"{self._running}/{name}")
            except OSError:
                continue
            try:
                live = msgspec.json.decode(os.read(fd, 64 << 10), type=Live)
            except (OSError, *Unreadable):
                continue
            finally:
                os.close(fd)
            if live.session_id not in found or self.processes.start_of(live.pid) == live.proc_start:
                found[live.session_id] = live
        return found

    def _description(self, path: str) -> str | None:
        """What a subagent was started for."""
        try:
            fd = open_below(self.root, path.removesuffix(".jsonl") + ".meta.json")
        except OSError:
            return None
        try:
            meta = msgspec.json.decode(os.read(fd, 64 << 10))
        except (OSError, *Unreadable):
            return None
        finally:
            os.close(fd)
        return plain(meta.get("description"), TITLE_LIMIT) if isinstance(meta, dict) else None
