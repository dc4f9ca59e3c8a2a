"""What the documentation shows of a terminal: the commands that are typed, and what is seen then. Pure.

In a block of the kind ``console`` a line that begins with ``$`` is a command; it goes on in the next line where it ends
with a backslash or within quotes, as in a shell. What follows until the next command are lines of its output, in their
order: others may stand between them, and ``…`` is anything within a line.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Command(NamedTuple):
    """``typed`` is for a shell, without what is said behind ``#``; ``shown`` are the lines of output."""

    typed: str
    shown: tuple[str, ...]

    def missing(self, output: str) -> str | None:
        """The first line that is shown and that the output does not have there; None where all are as shown."""
        printed = iter([_narrow(line) for line in output.splitlines()])
        for line in self.shown:
            if not any(re.fullmatch(_pattern(line), each) for each in printed):
                return line
        return None


def blocks(page: Path, kind: str) -> list[str]:
    """Contents of the page's blocks of a kind."""
    return [content for found, content in _BLOCK.findall(page.read_text()) if found == kind]


def commands(page: Path) -> list[Command]:
    """All that are typed on a page, in order."""
    return [command for block in blocks(page, "console") for command in _commands(block)]


def prose(page: Path) -> str:
    """The page without its blocks."""
    return _BLOCK.sub("", page.read_text())


def _commands(block: str) -> list[Command]:
    found: list[tuple[str, list[str]]] = []
    typing = ""
    for line in block.splitlines():
        if typing or line.startswith("$ "):
            typing = f"{typing}\n{line}" if typing else line.removeprefix("$ ")
            if _is_whole(typing):
                found.append((_without_remark(typing), []))
                typing = ""
        elif found:
            found[-1][1].append(line)
    assert not typing, f"a command that does not end: {typing}"
    return [Command(typed, tuple(shown)) for typed, shown in found]


def _is_whole(typed: str) -> bool:
    try:
        shlex.split(typed, comments=True)
    except ValueError:
        return False
    return not typed.endswith("\\")


def _without_remark(typed: str) -> str:
    """Remarks stand at the end, behind two spaces at least; what is within quotes is none."""
    before = re.sub(r"\s{2,}# .*$", "", typed)
    return before if _is_whole(before) else typed


def _pattern(line: str) -> str:
    return ".*".join(map(re.escape, _narrow(line).split("…")))


def _narrow(line: str) -> str:
    """Columns are as wide as they have to be."""
    return re.sub(r" +", " ", line.rstrip())
