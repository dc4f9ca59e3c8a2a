"""Whether processes live, as /proc says."""

import os
import time
from pathlib import Path
from typing import Final

NAMED_SECONDS: Final = 0.5
"""How old the list of processes of a name may be: it is asked for each of thousands of sessions in a row."""


class Processes:
    """The processes that this one can see. Every answer is of this moment, unless it says otherwise."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._named: dict[tuple[str, ...], tuple[float, list[int]]] = {}

    def start_of(self, pid: int) -> str | None:
        """When a process was started, in ticks since the machine was; with its pid it names one process for good.
        None where there is no such process, or only what is left of it."""
        try:
            with open(f"{self._proc}/{pid}/stat", "rb") as file:
                content = file.read()
        except OSError:
            return None
        # The second field is a name in parentheses, which may hold anything.
        fields = content[content.rfind(b")") + 2 :].split()
        if len(fields) < 20 or fields[0] in (b"Z", b"X"):
            return None
        return fields[19].decode("ascii", "replace")

    def named(self, *names: str) -> list[int]:
        """The processes whose program has one of these names, or is a script of that name that an interpreter runs; as
        it was within NAMED_SECONDS."""
        at, known = self._named.get(names, (-NAMED_SECONDS, []))
        if time.monotonic() - at < NAMED_SECONDS:
            return known
        found = self._look_for(names)
        self._named[names] = (time.monotonic(), found)
        return found

    def _look_for(self, names: tuple[str, ...]) -> list[int]:
        wanted = {name.encode() for name in names}
        found = []
        for entry in os.listdir(self._proc):
            if not entry.isdigit():
                continue
            try:
                with open(f"{self._proc}/{entry}/cmdline", "rb") as file:
                    words = file.read(4096).split(b"\0")[:4]
            except OSError:
                continue
            if any(os.path.basename(word) in wanted for word in words):
                found.append(int(entry))
        return found

    def folder_of(self, pid: int) -> str | None:
        """The folder that a process works in; None where it is gone, or somebody else's."""
        try:
            return os.readlink(f"{self._proc}/{pid}/cwd")
        except OSError:
            return None

    def hold_open(self, path: str, *names: str) -> bool:
        """Whether a process of one of these names has a file open."""
        return bool(self.holders(path, *names))

    def holders(self, path: str, *names: str) -> list[int]:
        """The processes of one of these names that have a file open."""
        found: list[int] = []
        try:
            wanted = os.stat(path)
        except OSError:
            return found
        for pid in self.named(*names):
            folder = f"{self._proc}/{pid}/fd"
            try:
                descriptors = os.listdir(folder)
            except OSError:
                continue
            for descriptor in descriptors:
                try:
                    opened = os.stat(f"{folder}/{descriptor}")
                except OSError:
                    continue
                if (opened.st_dev, opened.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(pid)
                    break
        return found

    def has_begun(self, parent: int, since: float) -> bool:
        """Whether a process has a child that began after a moment, in seconds since 1970."""
        ticks = os.sysconf("SC_CLK_TCK")
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        for entry in os.listdir(self._proc):
            if not entry.isdigit():
                continue
            try:
                with open(f"{self._proc}/{entry}/stat", "rb") as file:
                    content = file.read()
            except OSError:
                continue
            fields = content[content.rfind(b")") + 2 :].split()
            lives = len(fields) >= 20 and fields[0] not in (b"Z", b"X")
            if lives and int(fields[1]) == parent and boot + int(fields[19]) / ticks > since:
                return True
        return False
