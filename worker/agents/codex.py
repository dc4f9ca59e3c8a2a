"""Codex: ``~/.codex/sessions/YYYY/MM/DD/rollout-<moment>-<session>.jsonl``, and ``archived_sessions``.

As of version 0.169.0, recorded; what is in the files: ``codex_format.py``. Names that people give to sessions are in
``session_index.jsonl``, the last one counts. Codex' SQLite files are made from these, and not needed.
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

from protocol.sessions import SessionStatus
from protocol.worker import SessionFacts
from worker.agents.codex_format import TITLE_LIMIT, CodexFormat, Record
from worker.agents.transcripts import Transcripts, Turn
from worker.opening import open_below
from worker.sessions import transcript
from worker.sessions.agent import Found, Known, Looked, NotPossible, Place
from worker.sessions.lines import Unreadable, plain
from worker.sessions.liveness import Processes
from worker.sessions.transcript import State
from worker.sessions.unpacking import Unpacked

FILE: Final = re.compile(r"rollout-.+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.jsonl(?:\.zst)?")

NAMES_LIMIT: Final = 8 << 20

ASKING: Final = "request_user_input"
"""The tool by which Codex asks its person."""

TO_BE_ALLOWED: Final = ("require_escalated", "with_escalated_permissions")
"""What a command has among its arguments that is to leave the sandbox: a person is asked, unless a rule allows it."""

BEGINNING_SECONDS: Final = 1.0
"""A command that a rule allows may have begun before its call is in the file."""

COMMAND_SECONDS: Final = 60


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
        self._unpacked = Unpacked()

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
            self._names = self._read_names()
        elif self._names_file in paths:
            before, self._names = self._names, self._read_names()
            renamed = {id for id in before.keys() | self._names.keys() if before.get(id) != self._names.get(id)}
            paths = {*paths, *(key for id in renamed if (key := known.key_of(id)))} - {self._names_file}
        return super().look(paths, known)

    def page_of(self, fd: int, found: Found, cursor: str | None, limit: int) -> transcript.Reading:
        if not found.key.endswith(".zst"):
            return super().page_of(fd, found, cursor, limit)
        unpacked = self._unpacked.open(fd, found.key)
        try:
            reading = transcript.read(unpacked, self.form, cursor, limit, ino=os.fstat(fd).st_ino)
        finally:
            os.close(unpacked)
        if not reading.more:
            self._unpacked.forget()
        return reading

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
        if record.type != "response_item":
            return None
        if payload.type == "function_call":
            # What is answered, or was allowed and has come to its end, is followed by its output.
            if payload.name == ASKING:
                return Turn.ASKING
            if isinstance(payload.arguments, str) and any(word in payload.arguments for word in TO_BE_ALLOWED):
                return Turn.TO_BE_ALLOWED
        return Turn.RUNNING

    def busy(self, path: str, session_id: str, turn: Turn, written: float) -> SessionStatus:
        holders = self.processes.holders(path, "codex")
        if not holders:
            return SessionStatus.IDLE
        if turn is Turn.TO_BE_ALLOWED:
            # Once it is allowed there is a process that does it.
            since = written - BEGINNING_SECONDS
            asks = not any(self.processes.has_begun(pid, since) for pid in holders)
        else:
            asks = turn is Turn.ASKING
        return SessionStatus.WAITING if asks else SessionStatus.BUSY

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
