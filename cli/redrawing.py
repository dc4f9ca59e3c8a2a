"""Lines on a terminal that are drawn again in place."""

from collections.abc import Sequence
from typing import IO

HIDE_CURSOR, SHOW_CURSOR = "\033[?25l", "\033[?25h"


class Redrawn:
    """The cursor is hidden from the first moment until ``close``. ``stream`` is a terminal."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._height = 0
        stream.write(HIDE_CURSOR)

    def draw(self, lines: Sequence[str]) -> None:
        """These, each as it is, in the place of the last ones."""
        self._stream.write(self._up() + "".join(f"\r\033[K{line}\n" for line in lines) + "\033[J")
        self._stream.flush()
        self._height = len(lines)

    def close(self, *, clear: bool = False) -> None:
        """What was drawn last stays, unless it is to be cleared away."""
        gone = self._up() + "\r\033[J" if clear and self._height else ""
        self._stream.write(gone + SHOW_CURSOR)
        self._stream.flush()

    def _up(self) -> str:
        return f"\033[{self._height}A" if self._height else ""
