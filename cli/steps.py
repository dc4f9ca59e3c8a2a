"""Shows a start, step by step: a live list on a terminal, plain lines elsewhere."""

import shutil
import time
from collections.abc import Callable
from typing import IO, Final, Protocol

from cli.output import clean, cut, is_terminal, styled
from cli.redrawing import Redrawn
from protocol.workspaces import Startup, Step, StepStatus

SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAME_SECONDS: Final = 0.1
SLOW_SECONDS: Final = 3.0
"""A step that takes longer than this is mentioned in a pipe before it has ended."""

MARKS: Final = {
    StepStatus.PENDING: ("·", "dim"),
    StepStatus.DONE: ("✓", "green"),
    StepStatus.FAILED: ("✗", "red"),
    StepStatus.SKIPPED: ("-", "dim"),
}


UNKNOWN: Final = ("?", "dim")
"""For a status that a newer agent has."""


class View(Protocol):
    """Something that shows a start."""

    def update(self, startup: Startup) -> None:
        """The start as it stands now."""

    def tick(self) -> None:
        """Time passes: at least ten times a second."""

    def say(self, text: str | None) -> None:
        """A word about the connection, until it is taken back with None."""

    def close(self) -> None:
        """The end; what is shown stays."""


def view(stream: IO[str]) -> View:
    """The view that fits a stream."""
    return Live(stream) if is_terminal(stream) else Plain(stream)


class Plain:
    """A line for each step that ends."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._shown: set[str] = set()
        self._running: dict[str, tuple[float, Step]] = {}
        self._said: str | None = None

    def update(self, startup: Startup) -> None:
        for step in startup.steps:
            if step.status is StepStatus.RUNNING:
                began = self._running[step.id][0] if step.id in self._running else self._clock()
                self._running[step.id] = (began, step)
            elif step.status is not StepStatus.PENDING and step.id not in self._shown:
                self._shown.add(step.id)
                self._running.pop(step.id, None)
                if step.status is not StepStatus.SKIPPED or step.detail:
                    self._line(line_of(step))

    def tick(self) -> None:
        for key, (began, step) in self._running.items():
            if key not in self._shown and self._clock() - began > SLOW_SECONDS:
                self._running[key] = (float("inf"), step)
                self._line(line_of(step))

    def say(self, text: str | None) -> None:
        if text is not None and text != self._said:
            self._line(text)
        self._said = text

    def close(self) -> None:
        self._running.clear()

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class Live:
    """All steps, redrawn in place, with a spinner at those that run."""

    def __init__(self, stream: IO[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._startup: Startup | None = None
        self._began: dict[str, float] = {}
        self._said: str | None = None
        self._redrawn = Redrawn(stream)
        self._drawn_at = 0.0

    def update(self, startup: Startup) -> None:
        self._startup = startup
        for step in startup.steps:
            if step.status is StepStatus.RUNNING:
                self._began.setdefault(step.id, self._clock())
        self._draw()

    def tick(self) -> None:
        if self._clock() - self._drawn_at >= FRAME_SECONDS:
            self._draw()

    def say(self, text: str | None) -> None:
        self._said = text

    def close(self) -> None:
        self._said = None
        self._draw()
        self._redrawn.close()

    def _draw(self) -> None:
        self._drawn_at = self._clock()
        columns, rows = shutil.get_terminal_size()
        lines = [self._line(step, columns) for step in self._startup.steps] if self._startup else []
        if self._said:
            lines.append(styled(cut(f"  {self._said}", columns), "yellow", self._stream))
        # What has scrolled away cannot be redrawn: on a low terminal only the last lines are shown.
        lines = lines[-max(rows - 1, 1) :]
        self._redrawn.draw(lines)

    def _line(self, step: Step, columns: int) -> str:
        if step.status is StepStatus.RUNNING:
            mark, style = SPINNER[int(self._clock() / FRAME_SECONDS) % len(SPINNER)], "yellow"
            text = f"{_text(step)} {self._clock() - self._began.get(step.id, self._clock()):.0f}s"
        else:
            mark, style = MARKS.get(step.status, UNKNOWN)
            text = _text(step)
        text = cut(text, columns - 4)
        dim = step.status in (StepStatus.PENDING, StepStatus.SKIPPED)
        return f"  {styled(mark, style, self._stream)} {styled(text, 'dim', self._stream) if dim else text}"


def line_of(step: Step) -> str:
    """A step as one plain line."""
    return f"{step.status.value:8}{_text(step)}"


def _text(step: Step) -> str:
    text = clean(step.title)
    if step.detail:
        text += f": {clean(step.detail)}"
    if step.seconds is not None and step.status in (StepStatus.DONE, StepStatus.FAILED):
        text += f" ({step.seconds:.1f} s)"
    return text
