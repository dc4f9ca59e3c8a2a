"""Processes: whether one is still the same, what a session has in its environment, and ending a whole tree."""

import contextlib
import ctypes
import os
import re
import signal
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

PR_SET_CHILD_SUBREAPER: Final = 36
"""From linux/prctl.h: orphans below become our children, and not init's."""

SESSION_FILES: Final = (Path("/etc/environment"), Path.home() / ".perry" / "credentials" / "environment")
"""What sessions of ssh and cron have in their environment, in this order (images/workspace: pam)."""

_NAME: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_SIZE_LIMIT: Final = 4 << 20


def started(pid: int) -> int | None:
    """When a process began, in clock ticks since boot (field 22 of proc_pid_stat(5)); None where there is none.

    A pid and this together name one process for as long as the machine runs.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def adopt_orphans() -> None:
    """Be the parent of what processes below leave behind, so that it can be found and ended."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def usage(pids: Iterable[int]) -> tuple[int, int, float]:
    """How many of these and all below them there are, how many of them a signal has stopped, and their CPU seconds,
    those of children that have ended included."""
    count, stopped, ticks = 0, 0, 0
    for pid in {each for parent in pids for each in (parent, *descendants(parent))}:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            count += fields[0] != "Z"
            stopped += fields[0] in ("T", "t")
            ticks += sum(int(field) for field in fields[11:15])
    return count, stopped, ticks / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """All processes below one, as they are now."""
    children: dict[int, list[int]] = {}
    for each, parent in _parents():
        children.setdefault(parent, []).append(each)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += below
    return found


def has_terminal(pid: int) -> bool:
    """Whether a process has a controlling terminal (field 7 of proc_pid_stat(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text.rpartition(")")[2].split()[4] != "0"


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                text = Path(entry.path, "stat").read_text(errors="replace")
                yield int(entry.name), int(text.rpartition(")")[2].split()[1])


def signal_all(group: int, number: signal.Signals) -> None:
    """A signal to a process group, and to what is below us and has left the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def session_environment(home: str, files: tuple[Path, ...] = SESSION_FILES) -> dict[str, str]:
    """The variables that a session of the person has."""
    variables = {"HOME": home, "USER": "workspace", "LOGNAME": "workspace", "SHELL": "/bin/bash", "TERM": "dumb"}
    for file in files:
        variables |= _variables(file)
    return variables


def _variables(file: Path) -> Mapping[str, str]:
    try:
        with file.open("rb") as opened:
            text = opened.read(_SIZE_LIMIT).decode(errors="replace")
    except OSError:
        return {}
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and _NAME.fullmatch(name) and "\0" not in value:
            # /etc/environment may have quotes around a value; what is brought never has them around all of it.
            quoted = file.parent == Path("/etc") and len(value) > 1 and value[0] == value[-1] == '"'
            found[name] = value[1:-1] if quoted else value
    return found


def out_of_memory_kills() -> int:
    """How often the kernel has ended a process in this container for want of memory."""
    for path, name in (
        ("/sys/fs/cgroup/memory.events", "oom_kill"),
        ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
    ):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == name:
                    return int(value)
    return 0
