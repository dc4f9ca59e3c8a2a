"""Shows what sessions do: a list that is redrawn in place on a terminal, a line for each change elsewhere."""

import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Final, Protocol

import msgspec

from cli import output
from cli.redrawing import Redrawn
from cli.sessions import shown, transcript
from cli.sessions.feed import Key, key_of
from cli.sessions.finding import ref, short
from cli.steps import SPINNER
from protocol.sessions import (
    Message,
    MessageRole,
    NewMessages,
    SessionChanged,
    SessionDeleted,
    SessionInfo,
    SessionRef,
    SessionsFrame,
    SessionsSnapshot,
    SessionStatus,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)

FRAME_SECONDS: Final = 0.1
QUIET_SECONDS: Final = 1.0
"""Between two drawings while nothing moves but the time."""
KEPT: Final = 1000
"""Sessions that are known at most; the latest."""
LISTENED: Final = 20
"""Sessions whose words are shown at most: the latest that moved."""


class View(Protocol):
    """Something that shows sessions."""

    @property
    def wanted(self) -> Mapping[Key, SessionRef]:
        """The sessions whose messages it would like to have, from now on."""

    def update(self, frame: SessionsFrame) -> None:
        """What has come."""

    def tick(self) -> None:
        """Time passes."""

    def say(self, text: str | None) -> None:
        """A word about the connection, until it is taken back with None."""

    def close(self) -> None:
        """The end; what is shown stays."""


def view(stream: IO[str], *, as_json: bool, subagents: bool) -> View:
    """The view that fits a stream."""
    if as_json:
        return Lines(stream)
    return Live(stream, subagents=subagents) if output.is_terminal(stream) else Plain(stream, subagents=subagents)


class Lines:
    """Every change of a session as JSON."""

    wanted: Mapping[Key, SessionRef] = {}

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def update(self, frame: SessionsFrame) -> None:
        self._stream.write(msgspec.json.encode(frame).decode() + "\n")
        self._stream.flush()

    def tick(self) -> None:
        """Nothing moves by itself."""

    def say(self, text: str | None) -> None:
        """The data says nothing of it; a new snapshot does."""

    def close(self) -> None:
        """Nothing is left open."""


class Known:
    """The sessions, as far as has been told."""

    def __init__(self, *, subagents: bool) -> None:
        self._subagents = subagents
        self._sessions: dict[Key, SessionInfo] = {}

    def take(self, frame: SessionsFrame) -> list[SessionInfo]:
        """What a frame tells; those that are new or other by it, but for those of the first snapshot."""
        match frame:
            case SessionsSnapshot(items=items):
                before, self._sessions = self._sessions, {}
                for each in items:
                    self._keep(each)
                return [each for key, each in self._sessions.items() if before and before.get(key) != each]
            case SessionChanged(session=session):
                same = self._sessions.get(key_of(session)) == session
                return [session] if self._keep(session) and not same else []
            case SessionDeleted():
                self._sessions.pop(key_of(frame), None)
        return []

    def get(self, key: Key) -> SessionInfo | None:
        return self._sessions.get(key)

    def latest(self) -> list[SessionInfo]:
        """The most recently active first."""
        return sorted(self._sessions.values(), key=lambda each: (each.last_activity, key_of(each)), reverse=True)

    def _keep(self, session: SessionInfo) -> bool:
        if session.parent and not self._subagents:
            return False
        self._sessions[key_of(session)] = session
        if len(self._sessions) > KEPT:
            for each in self.latest()[KEPT // 2 :]:
                del self._sessions[key_of(each)]
        return True


class Plain:
    """A line for each change that says something."""

    wanted: Mapping[Key, SessionRef] = {}

    def __init__(self, stream: IO[str], *, subagents: bool, clock: Callable[[], datetime] = datetime.now) -> None:
        self._stream = stream
        self._clock = clock
        self._known = Known(subagents=subagents)
        self._lines: dict[Key, str] = {}
        self._first = True
        self._said: str | None = None

    def update(self, frame: SessionsFrame) -> None:
        changed = self._known.take(frame)
        if isinstance(frame, SessionsSnapshot) and self._first:
            self._first = False
            changed = self._known.latest()[::-1]
        for session in changed:
            self._changed(session)
        if isinstance(frame, SessionDeleted) and self._lines.pop(key_of(frame), None) is not None:
            self._line(f"{frame.workspace}  {frame.agent}  deleted  {frame.session_id}")

    def tick(self) -> None:
        """Nothing moves by itself."""

    def say(self, text: str | None) -> None:
        if text is not None and text != self._said:
            self._line(text)
        self._said = text

    def close(self) -> None:
        """What is shown stays."""

    def _changed(self, session: SessionInfo) -> None:
        text = "  ".join(
            (
                *(session.workspace, session.agent, short([session])[0], shown.state(session)),
                *(shown.count(session.message_count, "message"), shown.title(session)),
            )
        )
        if self._lines.get(key_of(session)) != text:
            self._lines[key_of(session)] = text
            self._line(text)

    def _line(self, text: str) -> None:
        self._stream.write(f"{self._clock():%H:%M:%S}  {output.clean(text)}\n")
        self._stream.flush()


class Live:
    """The list, with a spinner at what works, and below it what was said last since one looks."""

    def __init__(self, stream: IO[str], *, subagents: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._known = Known(subagents=subagents)
        self._words: dict[Key, str] = {}
        self._working: dict[Key, int] = {}
        """What is at work, in the order in which it began: rows that changed places all the time could not be read."""
        self.wanted: dict[Key, SessionRef] = {}
        self._began = False
        self._said: str | None = None
        self._redrawn = Redrawn(stream)
        self._drawn_at = 0.0
        self._moved = True

    def update(self, frame: SessionsFrame) -> None:
        self._moved = True
        if isinstance(frame, NewMessages):
            for message in frame.items:
                if text := words(message):
                    self._words[key_of(frame)] = text
            return
        changed = self._known.take(frame)
        if isinstance(frame, SessionsSnapshot):
            self._began = True
            changed += [each for each in self._known.latest()[::-1] if works(each)]
        for session in changed:
            key = key_of(session)
            if works(session):
                self._working.setdefault(key, max(self._working.values(), default=0) + 1)
            self.wanted.pop(key, None)
            self.wanted[key] = ref(session)
        for key in [key for key in self._working if (known := self._known.get(key)) is None or not works(known)]:
            del self._working[key]
        for key in [key for key in self.wanted if self._known.get(key) is None] + list(self.wanted)[:-LISTENED]:
            self.wanted.pop(key, None)
            self._words.pop(key, None)

    def tick(self) -> None:
        pause = FRAME_SECONDS if self._moved or self._working else QUIET_SECONDS
        if self._clock() - self._drawn_at >= pause:
            self._draw()

    def say(self, text: str | None) -> None:
        self._moved |= text != self._said
        self._said = text

    def close(self) -> None:
        self._said = None
        self._draw()
        self._redrawn.close()

    def _draw(self) -> None:
        self._drawn_at, self._moved = self._clock(), False
        columns, rows = shutil.get_terminal_size()
        lines = self._lines(columns, max(rows - 2, 3))
        if self._said:
            lines.append(output.styled(output.cut(self._said, columns), "yellow", self._stream))
        self._redrawn.draw(lines)

    def _lines(self, columns: int, most: int) -> list[str]:
        """So many lines at most: the latest sessions, each with its words where it has any."""
        every = sorted(self._known.latest(), key=lambda each: -self._working.get(key_of(each), 0))
        if not every:
            text = "No coding agent has a session yet." if self._began else "Asking the agent …"
            return [output.styled(text, "dim", self._stream)]
        latest = every[:most]
        marks = [self._mark(each) for each in latest]
        head, rows = shown.listed(latest, columns, now=datetime.now(UTC), marks=marks)
        lines = [head]
        for each, row in zip(latest, rows, strict=True):
            if said := self._words.get(key_of(each)):
                row = [*row, output.styled(output.cut(f"    {said}", columns), "dim", self._stream)]
            if len(lines) + len(row) > most:
                break
            lines += row
        return lines

    def _mark(self, session: SessionInfo) -> str:
        if not session.live:
            return "·"
        if works(session):
            return SPINNER[int(self._clock() / FRAME_SECONDS) % len(SPINNER)]
        return {SessionStatus.WAITING: "?", SessionStatus.ERROR: "✗"}.get(session.status, "·")


def works(session: SessionInfo) -> bool:
    """Whether its agent is at work now."""
    return session.live and session.status is SessionStatus.BUSY


def words(message: Message) -> str:
    """The end of a message on a line; empty where it says nothing."""
    for block in reversed(message.blocks):
        match block:
            case Text(text) if text.strip():
                return _line("you: " if message.role is MessageRole.USER else "", text)
            case Thinking(text) if text.strip():
                return _line("… ", text)
            case ToolCall(_, name, given):
                return _line(f"▸ {name}  ", " ".join(transcript.telling(given).split()))
            case ToolResult(_, text, failed) if text.strip():
                return _line("✗ " if failed else "↳ ", text)
    return ""


def _line(mark: str, text: str) -> str:
    """Its last line: that is where it moves."""
    last = text.strip().rpartition("\n")[2]
    return f"{output.clean(mark)}{' '.join(output.clean(last).split())}"
