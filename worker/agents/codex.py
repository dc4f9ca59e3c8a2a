"""Codex: ``~/.codex/sessions/YYYY/MM/DD/rollout-<moment>-<session>.jsonl``, and ``archived_sessions``.

As of version 0.169.0, recorded. Each line is ``{timestamp, type, payload}``; before October 2025 it was the payload
alone. What is said is there several times, in shapes that change (``user_message``, ``item_completed`` …); the items
that go to the model and come back (``response_item``) are in all versions, so they are what is read: without those of
role ``developer``, and without what Codex itself says to the model as the user. Names that people give to sessions are
in ``session_index.jsonl``, the last one counts. Codex' SQLite files are made from these, and not needed.
"""

import contextlib
import os
import re
import shutil
import subprocess
import threading
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.sessions import Block, MessageRole, SessionStatus
from protocol.worker import SessionFacts
from worker.agents.transcripts import Transcripts, Turn
from worker.sessions import blocks
from worker.sessions.agent import Found, Known, Looked, NotPossible, Place
from worker.sessions.lines import Unreadable, count, plain
from worker.sessions.liveness import Processes
from worker.sessions.opening import open_below
from worker.sessions.transcript import Conversation, State

TITLE_LIMIT: Final = 300

FILE: Final = re.compile(r"rollout-.+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl")

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

COMPRESSED: Final = "some of its sessions are compressed (.jsonl.zst), and are not read."

NAMES_LIMIT: Final = 8 << 20

COMMAND_SECONDS: Final = 60

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


class Codex(Transcripts):
    """Codex' sessions."""

    name = "codex"
    form = CodexFormat()
    depth = 5

    def __init__(self, folder: Path, processes: Processes) -> None:
        # Both folders of sessions are looked through from here; nothing else below it is.
        super().__init__(folder, processes)
        self._folders = (folder / "sessions", folder / "archived_sessions")
        self._names_file = str(folder / "session_index.jsonl")
        self._names: dict[str, str] = {}
        self._compressed: set[str] = set()

    def places(self) -> Sequence[Place]:
        return [Place(self.root), Place(self._folders[0], 3), Place(self._folders[1], 3)]

    def concerns(self, path: str) -> bool:
        return path == self._names_file or (
            path.startswith(tuple(f"{folder}/" for folder in self._folders)) and path.endswith((".jsonl", ".jsonl.zst"))
        )

    def enters(self, folder: str, depth: int) -> bool:
        return depth > 0 or Path(folder) in self._folders

    def session_of(self, path: str) -> str | None:
        matched = FILE.fullmatch(os.path.basename(path))
        return matched[1] if matched else None

    def look(self, paths: Collection[str] | None, known: Known) -> Looked:
        if paths is None:
            self._compressed.clear()
            self._names = self._read_names()
        elif self._names_file in paths:
            before, self._names = self._names, self._read_names()
            renamed = {id for id in before.keys() | self._names.keys() if before.get(id) != self._names.get(id)}
            paths = {*paths, *(key for id in renamed if (key := known.key_of(id)))} - {self._names_file}
        looked = super().look(paths, known)
        if self._compressed and looked.problem is None:
            looked.problem = f"In {str(self.root)!r} {COMPRESSED}"
        return looked

    def glance(self, path: str, looked: Looked) -> None:
        if path.endswith(".zst"):
            if os.path.exists(path):
                self._compressed.add(path)
            else:
                self._compressed.discard(path)
            return
        super().glance(path, looked)

    def mark(self, session_id: str, now: os.stat_result) -> str:
        name = self._names.get(session_id)
        return super().mark(session_id, now) + (f":{zlib.crc32(name.encode()):x}" if name else "")

    def turn(self, record: Record) -> Turn | None:
        payload = record.payload or record
        if record.type == "event_msg":
            match payload.type:
                case "task_complete" | "turn_complete" | "turn_aborted":
                    return Turn.DONE
                case "task_started" | "turn_started":
                    return Turn.RUNNING
                case "error" | "stream_error":
                    return Turn.FAILED
        return Turn.RUNNING if record.type == "response_item" else None

    def busy(self, path: str, session_id: str, turn: Turn, written: float) -> SessionStatus:
        return SessionStatus.BUSY if self.processes.hold_open(path, "codex") else SessionStatus.IDLE

    def resume(self, session_id: str) -> list[str] | None:
        return ["codex", "resume", session_id]

    def facts(self, found: Found, state: State) -> SessionFacts:
        facts = super().facts(found, state)
        return msgspec.structs.replace(facts, title=self._names.get(found.session_id) or facts.title)

    def rename(self, found: Found, title: str) -> None:
        # Codex' server for programs locks and writes the file of names.
        with self._codex("app-server") as process:
            self._ask(process, 1, "initialize", {"clientInfo": {"name": "perry", "version": "1"}})
            self._ask(process, 2, "thread/name/set", {"threadId": found.session_id, "name": title})

    def delete(self, found: Found) -> None:
        if self.processes.hold_open(found.key, "codex"):
            raise NotPossible("This session is open in a running Codex, which would write it again: end it first.")
        os.close(open_below(self.root, found.key))
        if shutil.which("codex"):
            with self._codex("delete", "--force", found.session_id):
                pass
        # Without the command, or with one that does not know how: Codex does without what is gone.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(found.key)

    @contextlib.contextmanager
    def _codex(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """A command of Codex, which is ended after COMMAND_SECONDS at the latest."""
        try:
            process = subprocess.Popen(
                ["codex", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self.root,
                env={**os.environ, "CODEX_HOME": str(self.root)},
            )
        except OSError as error:
            raise NotPossible("The command codex is not installed in this workspace, and it has to do that.") from error
        watchdog = threading.Timer(COMMAND_SECONDS, process.kill)
        watchdog.start()
        try:
            with process:
                yield process
                process.communicate()
        finally:
            watchdog.cancel()

    @staticmethod
    def _ask(process: "subprocess.Popen[bytes]", number: int, method: str, parameters: dict[str, Any]) -> None:
        assert process.stdin is not None and process.stdout is not None
        question = msgspec.json.encode({"id": number, "method": method, "params": parameters})
        try:
            process.stdin.write(question + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        for line in process.stdout:
            try:
                answer = msgspec.json.decode(line)
            except Unreadable:
                continue
            if isinstance(answer, dict) and answer.get("id") == number:
                if "result" in answer:
                    return
                break
        raise NotPossible("Codex did not rename the session: try it in Codex itself.")

    def _read_names(self) -> dict[str, str]:
        """The names that people gave; at most of the latest part of an enormous file."""
        names: dict[str, str] = {}
        try:
            fd = open_below(self.root, self._names_file)
        except OSError:
            return names
        try:
            size = os.fstat(fd).st_size
            content = os.pread(fd, NAMES_LIMIT, max(0, size - NAMES_LIMIT))
        except OSError:
            return names
        finally:
            os.close(fd)
        for line in content.splitlines():
            try:
                record = msgspec.json.decode(line)
            except Unreadable:
                continue
            if isinstance(record, dict) and isinstance(record.get("id"), str):
                name = plain(record.get("thread_name"), TITLE_LIMIT)
                if name:
                    names[record["id"]] = name
                else:
                    names.pop(record["id"], None)
        return names
