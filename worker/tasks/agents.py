"""How each coding agent is started on a task, and what its output means. Pure, but for looking what is installed.

The task reaches an agent byte for byte: on its stdin, or as a file, never as an argument (Linux takes no argument above
128 KiB) and never through a shell. OpenCode works in its server (:mod:`.opencode`), so that it can be watched there.

The flags are those of Claude Code 2.1 and Codex 0.169 (``--help``). A task works unattended, and its workspace is the
fence around it; so these two are told not to ask. OpenCode asks where its own configuration says so.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from worker.tasks.record import Spec

PROGRAMS: Final[Mapping[str, str]] = {
    "opencode": "opencode",
    "claude": "claude",
    "codex": "codex",
    "command": "bash",
}
"""The program of each agent that a task can be given to."""

NAMES: Final[Mapping[str, str]] = {"opencode": "OpenCode", "claude": "Claude Code", "codex": "Codex", "command": "bash"}

SHOWN: Final = 400
"""Characters of a tool's input that the log shows."""


class Told(Protocol):
    """What an agent has told so far."""

    session_id: str | None
    last_message: str | None
    failure: str | None


class Heard(Told, Protocol):
    """The same, of an agent that tells it by its output."""

    def line(self, line: bytes) -> str:
        """What a line of the output means to a person; empty where nothing."""


class Plain:
    """Output that is for people already."""

    session_id: str | None = None
    last_message: str | None = None
    failure: str | None = None

    def line(self, line: bytes) -> str:
        text = line.decode(errors="replace")
        if text.strip():
            self.last_message = text.strip()
        return text


class _Records:
    """Output of JSON records, one a line. What is none is shown as it is."""

    def __init__(self) -> None:
        self.session_id: str | None = None
        self.last_message: str | None = None
        self.failure: str | None = None

    def line(self, line: bytes) -> str:
        try:
            record = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError):
            return line.decode(errors="replace")
        shown = "".join(f"{text}\n" for text in self.shown(record) if text) if isinstance(record, dict) else ""
        return shown

    def shown(self, record: dict[str, Any]) -> list[str]:
        raise NotImplementedError


class Claude(_Records):
    """``--output-format stream-json``."""

    def shown(self, record: dict[str, Any]) -> list[str]:
        if isinstance(session := record.get("session_id"), str):
            self.session_id = session
        match record.get("type"):
            case "assistant":
                return [self._block(block) for block in _list(_dict(record.get("message")).get("content"))]
            case "result":
                result = record.get("result")
                if record.get("is_error"):
                    self.failure = str(result or record.get("subtype") or "Claude Code gave no reason.")
                elif isinstance(result, str):
                    self.last_message = result
        return []

    def _block(self, block: Any) -> str:
        match _dict(block).get("type"):
            case "text":
                self.last_message = str(block.get("text", ""))
                return self.last_message
            case "tool_use":
                return f"→ {block.get('name')} {_short(block.get('input'))}"
        return ""


class Codex(_Records):
    """``codex exec --json``."""

    def shown(self, record: dict[str, Any]) -> list[str]:
        match record.get("type"):
            case "thread.started":
                self.session_id = str(record.get("thread_id"))
            case "item.completed":
                item = _dict(record.get("item"))
                if item.get("type") == "agent_message":
                    self.last_message = str(item.get("text", ""))
                    return [self.last_message]
                if item.get("type") == "command_execution":
                    return [f"→ {_short(item.get('command'))}", str(item.get("aggregated_output", "")).rstrip()]
                if item.get("type") == "file_change":
                    return [f"→ changed {_short(item.get('changes'))}"]
            case "turn.failed":
                self.failure = str(_dict(record.get("error")).get("message") or "Codex gave no reason.")
                return [self.failure]
            case "error":
                self.failure = str(record.get("message") or "Codex gave no reason.")
                return [self.failure]
            case "turn.completed":
                self.failure = None  # What went wrong before was tried again, and went well.
        return []


class Launch(msgspec.Struct, frozen=True):
    """A process for a task. ``stdin`` is whether the task's text stands on it; else nothing does."""

    argv: list[str]
    stdin: bool
    heard: Callable[[], Heard]


def launch(spec: Spec, text: Path) -> Launch:
    """How a task is started; not for OpenCode."""
    model = ["--model", spec.model] if spec.model else []
    match spec.agent:
        case "claude":
            unattended = ["--dangerously-skip-permissions", "--output-format", "stream-json", "--verbose"]
            argv = ["claude", "-p", *unattended, "--session-id", spec.session_id, *model]
            return Launch(argv, stdin=True, heard=Claude)
        case "codex":
            unattended = ["--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check"]
            return Launch(["codex", "exec", "--json", *unattended, *model, "-"], stdin=True, heard=Codex)
        case "command":
            return Launch(["bash", str(text)], stdin=False, heard=Plain)
    raise ValueError(spec.agent)


def missing(agent: str, path: str | None) -> str | None:
    """The sentence where an agent cannot be started here."""
    if agent not in PROGRAMS:
        return f"There is no agent {agent!r} that tasks can be given to; there are {', '.join(PROGRAMS)}."
    if shutil.which(PROGRAMS[agent], path=path) is None:
        return f"{NAMES[agent]} is not installed in this workspace; install it there, or choose another agent."
    return None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode(errors="replace")
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
