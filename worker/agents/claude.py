"""Claude Code: ``~/.claude/projects/<folder>/<session>.jsonl``, and its subagents in a folder beside it.

As of version 2.1.329, recorded; what is in the files: ``claude_format.py``. The folder's name is made from the working
directory and cannot be read back. While Claude Code runs, it says in ``~/.claude/sessions/<pid>.json`` what it is
doing; beside it there are keys, which are nobody's business.
"""

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from protocol.sessions import SessionStatus, ToolCall
from protocol.worker import SessionFacts
from worker.agents.claude_format import TITLE_LIMIT, ClaudeFormat, Record, blocks_of
from worker.agents.transcripts import Transcripts, Turn
from worker.opening import open_below, open_to_append
from worker.sessions import blocks
from worker.sessions.agent import Found, Known, Looked, NotPossible, Place
from worker.sessions.lines import Unreadable, plain
from worker.sessions.liveness import Processes
from worker.sessions.transcript import State


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
                    Turn.RUNNING
                    if any(isinstance(b, ToolCall) for b in blocks_of(record.message.content))
                    else Turn.DONE
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
