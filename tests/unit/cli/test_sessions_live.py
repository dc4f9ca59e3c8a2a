"""``perry sessions watch`` and ``messages --follow``: what they show while agents work, and after a lost connection."""

import io
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from cli import output
from cli.client import Client
from cli.redrawing import HIDE_CURSOR, SHOW_CURSOR
from cli.sessions import live
from cli.sessions.feed import Feed, key_of
from cli.sessions.finding import ref
from cli.sessions.following import SETTLED_SECONDS, Settling, follow
from cli.sessions.printing import Show
from protocol.sessions import (
    Message,
    MessageRole,
    NewMessages,
    SessionChanged,
    SessionDeleted,
    SessionInfo,
    SessionsFrame,
    SessionsSnapshot,
    SessionStatus,
    Text,
    ToolCall,
    ToolResult,
)
from tests.unit.cli.agent import FakeAgent
from tests.unit.cli.test_sessions import CLAUDE, ESCAPE, message, session


def snapshot(*sessions: SessionInfo) -> SessionsSnapshot:
    return SessionsSnapshot(epoch="e1", seq=1, items=list(sessions), more=False)


def changed(of: SessionInfo) -> SessionChanged:
    return SessionChanged(seq=2, session=of)


def said(of: SessionInfo, *messages: Message, reset: bool = False) -> NewMessages:
    items = list(messages)
    return NewMessages(workspace=of.workspace, agent=of.agent, session_id=of.session_id, items=items, reset=reset)


def gone(of: SessionInfo) -> SessionDeleted:
    return SessionDeleted(seq=3, workspace=of.workspace, agent=of.agent, session_id=of.session_id)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


# --- watch


def plain(*frames: SessionsFrame, subagents: bool = False) -> list[str]:
    stream = io.StringIO()
    view = live.Plain(stream, subagents=subagents, clock=lambda: datetime(2026, 1, 2, 3, 4, 5))
    for frame in frames:
        view.update(frame)
    view.close()
    return [line.removeprefix("03:04:05  ") for line in stream.getvalue().splitlines()]


def test_in_a_pipe_each_change_is_a_line() -> None:
    one, other = session(status=SessionStatus.IDLE), session("beta", "b" * 12)
    grown = msgspec.structs.replace(one, message_count=13, status=SessionStatus.BUSY)
    later = msgspec.structs.replace(grown, last_activity=datetime.now(UTC))
    assert plain(snapshot(one, other), changed(grown), changed(later), gone(other)) == [
        "alpha  claude  91c567b7  idle  12 messages  Fix the login",
        "beta  claude  bbbbbbbb  busy  12 messages  Fix the login",
        "alpha  claude  91c567b7  busy  13 messages  Fix the login",
        f"beta  claude  deleted  {'b' * 12}",
    ]


def test_after_a_lost_connection_only_what_has_changed_is_told() -> None:
    one, other = session(), session("beta", "b" * 12)
    grown = msgspec.structs.replace(other, message_count=13)
    assert len(plain(snapshot(one, other), snapshot(one, grown))) == 3


def test_subagents_are_shown_when_wanted() -> None:
    child = session(session_id="child", parent=CLAUDE)
    assert len(plain(snapshot(session()), changed(child))) == 1
    assert "└ Fix the login" in plain(snapshot(session()), changed(child), subagents=True)[-1]


def test_what_comes_from_workspaces_is_harmless_there() -> None:
    bad = session(title=f"a{ESCAPE}", agent=f"x{ESCAPE}")
    assert all(line.isprintable() for line in plain(snapshot(bad), changed(bad), gone(bad)))


class Terminal:
    """A live view and what it has drawn last."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, columns: int, rows: int = 24) -> None:
        size = os.terminal_size((columns, rows))
        monkeypatch.setattr("cli.sessions.live.shutil.get_terminal_size", lambda: size)
        self.columns = columns
        self.stream = io.StringIO()
        self.clock = Clock()
        self.view = live.Live(self.stream, subagents=False, clock=self.clock)

    def drawn(self, *frames: SessionsFrame) -> list[str]:
        for frame in frames:
            self.view.update(frame)
        self.clock.now += 1
        self.stream.truncate(0)
        self.stream.seek(0)
        self.view.tick()
        lines = [line.rpartition("\033[K")[2] for line in self.stream.getvalue().split("\n")[:-1]]
        assert all(output.columns(line) <= self.columns and line.isprintable() for line in lines), lines
        return lines


def test_on_a_terminal_it_fits_and_shows_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, 120)
    assert terminal.drawn() == ["Asking the agent …"]
    assert terminal.drawn(snapshot()) == ["No coding agent has a session yet."]
    one = session(title=f"Fix{ESCAPE} " + "漢字" * 60, last_activity=datetime.now(UTC))
    other = session("beta", "b" * 12, status=SessionStatus.WAITING, live=True)
    head, first, second = terminal.drawn(snapshot(one, other))
    assert head.startswith("SESSION") and "busy" in first and first.endswith("…") and "? waiting" in second
    call = ToolCall(call_id="1", name=f"Bash{ESCAPE}", input='{"command": "make\\ntest"}')
    _, _, words, _ = terminal.drawn(said(one, message(5, call)))
    assert words.strip().startswith("▸ Bash") and words.endswith("  make test")
    _, _, words, _ = terminal.drawn(said(one, message(6, ToolResult(call_id="1", output="a\nok", failed=True))))
    assert words.strip() == "✗ ok"
    assert len(terminal.drawn(gone(other))) == 3


def test_on_a_narrow_terminal_titles_have_their_own_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, 80)
    first = terminal.drawn(snapshot(session("a-workspace-with-a-name"), session("beta", "ses_0123456789ab")))
    assert first[2].strip() == "Fix the login"


def test_on_a_low_terminal_the_latest_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [session(session_id=f"{i:08x}", last_activity=datetime.now(UTC) - timedelta(hours=i)) for i in range(50)]
    lines = Terminal(monkeypatch, 120, rows=10).drawn(snapshot(*many))
    assert len(lines) == 8 and lines[1].startswith("00000000") and lines[7].startswith("00000006")


def test_rows_that_work_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, 120)
    one, other = session(session_id="1" * 8), session(session_id="2" * 8)
    orders = set()
    for i in range(4):
        moved = msgspec.structs.replace((one, other)[i % 2], last_activity=datetime.now(UTC), message_count=i)
        lines = terminal.drawn(*([snapshot(one, other)] if i == 0 else []), changed(moved))
        orders.add(tuple(line[:8] for line in lines[1:]))
    assert len(orders) == 1


def test_it_asks_for_the_words_of_what_moved_last(monkeypatch: pytest.MonkeyPatch) -> None:
    view = Terminal(monkeypatch, 120).view
    idle, busy = session(session_id="1" * 8, status=SessionStatus.IDLE), session(session_id="2" * 8)

    def wanted() -> list[str]:
        return [each.session_id for each in view.wanted.values()]

    view.update(snapshot(idle, busy))
    assert wanted() == [busy.session_id]
    view.update(changed(msgspec.structs.replace(idle, message_count=99)))
    assert wanted() == [busy.session_id, idle.session_id]
    many = [session(session_id=f"{i:08x}") for i in range(live.LISTENED)]
    for each in many:
        view.update(changed(each))
    assert wanted() == [each.session_id for each in many]
    view.update(gone(many[0]))
    assert wanted() == [each.session_id for each in many[1:]]


def test_what_nothing_works_on_is_drawn_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, 120)
    idle, busy = session(status=SessionStatus.IDLE), session()

    def draws(seconds: float) -> bool:
        terminal.clock.now += seconds
        before = terminal.stream.tell()
        terminal.view.tick()
        return terminal.stream.tell() > before

    terminal.drawn(snapshot(idle))
    assert not draws(0.2) and draws(1.0)
    terminal.view.update(changed(busy))
    assert draws(0.2) and draws(0.2)
    terminal.view.update(changed(idle))
    assert draws(0.2) and not draws(0.2)


def test_the_cursor_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal(monkeypatch, 80)
    assert HIDE_CURSOR in terminal.stream.getvalue()
    terminal.view.say("away")
    assert terminal.drawn(snapshot())[-1] == "away"
    terminal.view.close()
    assert terminal.stream.getvalue().endswith(SHOW_CURSOR)


# --- the feed


def test_messages_are_listened_to_as_long_as_they_are_wanted(agent: FakeAgent) -> None:
    one, other = ref(session()), ref(session("beta"))
    with Feed(Client()) as feed:
        for wanted in ((one,), (one, other), (other,)):
            feed.listen_to({key_of(each): each for each in wanted})
        agent.wait_for_wanted_messages(3)
    assert [(each.type.value, each.workspace) for each in agent.wanted_messages] == [
        ("subscribe", "alpha"),
        ("subscribe", "beta"),
        ("unsubscribe", "alpha"),
    ]


def test_what_was_subscribed_to_stays_so_after_a_lost_connection(agent: FakeAgent) -> None:
    agent.sessions = [session()]
    with Feed(Client(), "alpha") as feed:
        assert isinstance(feed.receive(10), SessionsSnapshot)
        feed.subscribe(ref(session()), 3)
        agent.wait_for_wanted_messages(1)
        agent.tell(said(session(), message(7, Text(text="seven"))))
        assert isinstance(feed.receive(10), NewMessages)
        agent.drop_connections()
        frames: list[Any] = []
        while not any(isinstance(each, SessionsSnapshot) for each in frames):
            frames.append(feed.receive(10))
        agent.wait_for_wanted_messages(2)
        # The last one may have grown meanwhile.
        assert [each.after for each in agent.wanted_messages] == [3, 6]
    assert agent.subscriptions == ["", "epoch=e1&after=0"]


# --- messages --follow


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    lines: list[str] = []
    monkeypatch.setattr(output, "line", lambda text="", now=False: lines.append(text))
    monkeypatch.setattr(output, "note", lines.append)
    yield lines


def test_a_message_is_shown_when_it_has_settled(printed: list[str]) -> None:
    clock = Clock()
    settling = Settling(Show(session(), full=False, as_json=False), 3, clock)
    one = session()
    settling.add(said(one, message(2, Text(text="old")), message(4, Text(text="It is"))))
    settling.tick()
    assert printed == []
    settling.add(said(one, message(4, Text(text="It is done"))))
    clock.now += SETTLED_SECONDS
    settling.tick()
    assert printed == ["", "claude  #4", "  It is done"]
    printed.clear()
    call = ToolCall(call_id="1", name="Bash", input='{"command": "ls"}')
    settling.add(said(one, message(4, Text(text="It is done, and"), call)))
    settling.add(said(one, message(5, Text(text="More"), role=MessageRole.USER)))
    assert printed == ["  , and", "  ▸ Bash ls"]
    settling.flush()
    assert printed[2:] == ["", "you  #5", "  More"]


def test_a_session_that_is_rewritten_is_shown_anew(printed: list[str]) -> None:
    settling = Settling(Show(session(), full=False, as_json=False), 9)
    settling.add(said(session(), message(0, Text(text="Anew")), reset=True))
    settling.flush()
    assert "rewritten" in printed[0] and printed[1:] == ["", "claude  #0", "  Anew"]


def test_following_goes_on_after_what_was_shown_and_ends_with_the_session(agent: FakeAgent, printed: list[str]) -> None:
    one = session()
    agent.sessions = [one]
    thread = threading.Thread(target=follow, args=(Client(), one, Show(one, full=False, as_json=False), 3))
    thread.start()
    agent.wait_for_wanted_messages(1)
    assert agent.wanted_messages[0].after == 3
    agent.tell(said(one, message(4, Text(text="Four"))))
    agent.tell(said(session("beta"), message(5, Text(text="Of another"))))
    agent.tell(gone(one))
    thread.join(20)
    assert not thread.is_alive()
    assert printed == ["", "claude  #4", "  Four", "The session was deleted."]
