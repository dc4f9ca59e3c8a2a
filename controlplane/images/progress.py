"""Shows a build to a person: what happens now, and no more; everything is in a file.

A build says some thousand lines. On a terminal the last one stands at the bottom, over the one before; in a pipe there
are Docker's steps.
"""

import re
import shutil
from pathlib import Path
from typing import TextIO

from controlplane.images.service import BuildReport

STEP = re.compile(r"Step \d+/\d+ : ")
PIPE_WIDTH = 110


class Progress:
    """Writes reports to ``out`` and to the file ``log``, which it begins anew with the first report."""

    def __init__(self, out: TextIO, log: Path) -> None:
        self._out = out
        self._log = log
        self._file: TextIO | None = None
        self._live = out.isatty()

    def __call__(self, said: BuildReport) -> None:
        text = f"{said.image:<14} {said.text}".rstrip()
        if self._file is None:
            self._log.parent.mkdir(exist_ok=True)
            self._file = self._log.open("w")
        self._file.write(text + "\n")
        self._file.flush()
        if said.kind != "line":
            self._out.write(f"\r\x1b[K{text}\n" if self._live else text + "\n")
        elif self._live:
            shown = "".join(c for c in text if c.isprintable())[: shutil.get_terminal_size().columns - 1]
            self._out.write(f"\r\x1b[K\x1b[2m{shown}\x1b[0m")
        elif STEP.match(said.text):
            self._out.write(text[:PIPE_WIDTH] + "\n")
        self._out.flush()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            self._out.write("\r\x1b[K")
            self._out.flush()
        if self._file is not None:
            self._file.close()
