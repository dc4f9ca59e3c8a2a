"""What a start looks like while it goes on."""

import io

import pytest

from cli.redrawing import HIDE_CURSOR, SHOW_CURSOR
from cli.steps import Live, Plain
from controlplane.workspaces import state
from controlplane.workspaces.state import StepId
from protocol.workspaces import StepStatus

BEGUN = state.begun(None)
CLONE = [step.id for step in BEGUN.steps].index(StepId.CLONE)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_slow_step_is_mentioned_once_in_a_pipe() -> None:
    stream, clock = io.StringIO(), Clock()
    plain = Plain(stream, clock)
    plain.update(state.with_step(BEGUN, StepId.CLONE, StepStatus.RUNNING, None, None))
    plain.tick()
    assert stream.getvalue() == ""
    clock.now = 4
    for percent in ("10%", "20%"):
        plain.update(state.with_step(BEGUN, StepId.CLONE, StepStatus.RUNNING, percent, None))
        plain.tick()
    plain.update(state.with_step(BEGUN, StepId.CLONE, StepStatus.DONE, None, 4.2))
    assert stream.getvalue() == "running Clone the repository: 10%\ndone    Clone the repository (4.2 s)\n"


def test_the_agent_being_away_is_said_once_in_a_pipe() -> None:
    stream = io.StringIO()
    plain = Plain(stream)
    for text in ("away", "away", None, None, "away"):
        plain.say(text)
    assert stream.getvalue() == "away\naway\n"


def screen(written: str) -> list[str]:
    """What a terminal shows of it: enough of one for what :class:`Live` writes."""
    lines, row, i = [""], 0, 0
    while i < len(written):
        if written.startswith("\033[", i):
            end = next(j for j in range(i + 2, len(written)) if written[j].isalpha())
            number, action = written[i + 2 : end], written[end]
            if action == "A":
                row -= int(number)
            elif action == "K":
                lines[row] = ""
            elif action == "J":
                del lines[row:]
                lines.append("")
            i = end + 1
            continue
        if written[i] == "\n":
            row += 1
            if row == len(lines):
                lines.append("")
        elif written[i] != "\r":
            lines[row] += written[i]
        i += 1
    return lines


@pytest.fixture
def small_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "30")


@pytest.mark.usefixtures("small_terminal")
def test_the_live_list_is_redrawn_in_place() -> None:
    stream, clock = io.StringIO(), Clock()
    live = Live(stream, clock)
    running = state.with_step(BEGUN, StepId.CLONE, StepStatus.RUNNING, "Receiving objects: 12% of many", None)
    live.update(running)
    clock.now = 2.04
    live.tick()
    live.say("The agent does not answer; trying again …")
    clock.now = 3.04
    live.tick()
    shown = screen(stream.getvalue())
    assert len(shown) == len(BEGUN.steps) + 2
    assert shown[CLONE].startswith("  ⠋ Clone the repository: Receiving")
    assert all(len(line) <= 40 for line in shown)
    assert shown[-2].startswith("  The agent does not answer")
    live.update(state.with_step(running, StepId.CLONE, StepStatus.DONE, None, 3.0))
    live.close()
    shown = screen(stream.getvalue())
    assert shown[CLONE] == "  ✓ Clone the repository (3.0 s)"
    assert len(shown) == len(BEGUN.steps) + 1
    assert stream.getvalue().startswith(HIDE_CURSOR)
    assert stream.getvalue().endswith(SHOW_CURSOR)


def test_a_low_terminal_shows_the_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "4")
    stream = io.StringIO()
    live = Live(stream)
    live.update(BEGUN)
    live.update(BEGUN)
    assert len(screen(stream.getvalue())) == 4
