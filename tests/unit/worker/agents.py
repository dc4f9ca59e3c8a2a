"""What the tests of the coding agents' sessions share: processes that are only said to be, and recorded sessions."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from protocol.sessions import Message
from protocol.worker import Page, SessionFacts
from worker.sessions.agent import CodingAgent, Found
from worker.sessions.index import Index
from worker.sessions.liveness import Processes

RECORDED = Path(__file__).parent / "recorded"
"""By the agents themselves, in a workspace, against a model that says what it is told to. What is long is left out."""

CLAUDE_ID = "11111111-2222-4333-8444-555555555555"

CODEX_ID = "01a1fdbe-b17a-7fe2-8cb5-df2c02c57324"

GEMINI_ID = "2f701aa8-04b7-413d-b1b5-84643b383257"

OPENCODE_ID = "ses_e02411e36ffeNzzyJcLanSWSN4"


class SaidProcesses(Processes):
    """Processes as a test wishes them: when each was started, what it is called, and which files it has open."""

    def __init__(self) -> None:
        super().__init__(Path("/nonexistent"))
        self.starts: dict[int, str] = {}
        self.names: dict[int, str] = {}
        self.open: set[str] = set()
        self.begun: list[float] = []
        """When whoever has a file open has begun something."""

    def start_of(self, pid: int) -> str | None:
        return self.starts.get(pid)

    def named(self, *names: str) -> list[int]:
        return [pid for pid, name in self.names.items() if name in names]

    def folder_of(self, pid: int) -> str | None:
        return None

    def holders(self, path: str, *names: str) -> list[int]:
        return [1] if path in self.open else []

    def has_begun(self, parent: int, since: float) -> bool:
        return any(at > since for at in self.begun)


def put(path: Path, content: bytes | str) -> Path:
    """A file, with the folders that it needs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def claude_session(folder: Path, content: bytes | str | None = None, session_id: str = CLAUDE_ID) -> Path:
    """A session of Claude Code below its folder; the recorded one, unless another content is given."""
    content = (RECORDED / "claude.jsonl").read_bytes() if content is None else content
    return put(folder / "projects/-home-workspace-proj" / f"{session_id}.jsonl", content)


def codex_session(folder: Path, content: bytes | str | None = None, where: str = "sessions/2026/11/21") -> Path:
    """A session of Codex below its folder."""
    content = (RECORDED / "codex.jsonl").read_bytes() if content is None else content
    return put(folder / where / f"rollout-2026-11-21T10-54-55-{CODEX_ID}.jsonl", content)


def gemini_session(root: Path, content: bytes | str | None = None) -> Path:
    """A session of Gemini CLI below its folder ``tmp``."""
    content = (RECORDED / "gemini.jsonl").read_bytes() if content is None else content
    put(root / "proj/.project_root", "/home/workspace/proj")
    return put(root / "proj/chats/session-2026-11-21T11-22-2f701aa8.jsonl", content)


def opencode_database(path: Path) -> sqlite3.Connection:
    """The recorded database of OpenCode, opened as OpenCode has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.executescript((RECORDED / "opencode.sql").read_text())
    return connection


def look(agent: CodingAgent, index: Index | None = None) -> dict[str, Found]:
    """Every session of an agent, by id."""
    looked = agent.look(None, index or Index())
    assert looked.problem is None, looked.problem
    return {found.session_id: found for found in looked.found}


def read_all(agent: CodingAgent, found: Found, limit: int = 1 << 20) -> tuple[dict[int, Message], SessionFacts]:
    """Everything of a session, by pages."""
    reader = Reader(agent, found)
    reader.catch_up(limit)
    assert reader.facts is not None
    return reader.messages, reader.facts


class Reader:
    """Follows one session, as a control plane does."""

    def __init__(self, agent: CodingAgent, found: Found) -> None:
        self.agent = agent
        self.found = found
        self.cursor: str | None = None
        self.messages: dict[int, Message] = {}
        self.facts: SessionFacts | None = None
        self.skipped = 0
        self.resets = 0

    def catch_up(self, limit: int = 1 << 20) -> list[Page]:
        """Read until there is no more."""
        pages = []
        for _ in range(10_000):
            page = self.agent.read(self.found, self.cursor, limit)
            pages.append(page)
            assert len(page.cursor) <= 16384
            if page.reset:
                self.messages.clear()
                self.skipped, self.resets = 0, self.resets + 1
            self.messages.update({message.ordinal: message for message in page.messages})
            self.cursor, self.skipped = page.cursor, self.skipped + page.skipped
            self.facts = getattr(page, "facts", None)
            if not page.more:
                return pages
        raise AssertionError("there is always more")


def shape(messages: Mapping[int, Message]) -> list[tuple[str, list[str]]]:
    """Who said what kind of thing, in order; ordinals without a gap."""
    assert sorted(messages) == list(range(len(messages)))
    return [(messages[i].role.value, [type(block).__name__ for block in messages[i].blocks]) for i in sorted(messages)]
