"""The spool of signals: a folder with a file for each, which the agents' hooks fill (``images/worker/hooks/signal``).

A file is there whole (it is renamed into place), and stays until the control plane has taken what it says.
"""

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import inotify_simple
import msgspec

from protocol.worker import AgentSignal, Done, Request, TakeSignals
from worker.hooks.meaning import meaning
from worker.opening import open_below
from worker.ports import UNNUMBERED, Handler, Told

log = logging.getLogger(__name__)

KEPT: Final = 1_000
"""Signals that wait for a control plane; of more the oldest go."""

SIZE_LIMIT: Final = 1 << 20
"""Bytes of one; Codex puts all that it was asked into it."""

NAME: Final = re.compile(r"^(?P<agent>[a-z]{1,32})-(?P<id>[A-Za-z0-9.]{1,48})\.json$")


class Signals:
    """The signals of one home folder, as a part of the worker (:class:`worker.ports.Part`)."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, AgentSignal] = {}
        self._looked = asyncio.Event()

    async def run(self, told: Told) -> None:
        """Tell what is there, and what comes; for ever."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        news = asyncio.Event()
        loop = asyncio.get_running_loop()
        with inotify_simple.INotify(nonblocking=True) as heard:
            heard.add_watch(str(self._folder), inotify_simple.flags.MOVED_TO)
            loop.add_reader(heard.fileno(), news.set)
            try:
                while True:
                    news.clear()
                    heard.read(timeout=0)
                    self._look(told)
                    self._looked.set()
                    await news.wait()
            finally:
                loop.remove_reader(heard.fileno())

    async def looked(self) -> None:
        await self._looked.wait()

    def seen(self) -> Sequence[AgentSignal]:
        return list(self._seen.values())

    def handlers(self) -> Mapping[type[Request], Handler]:
        return {TakeSignals: self.take}

    async def take(self, request: TakeSignals) -> Done:
        """Forget these."""
        for id_ in request.ids:
            if (signal := self._seen.pop(id_, None)) is not None:
                (self._folder / f"{signal.agent}-{id_}.json").unlink(missing_ok=True)
        return Done()

    def _look(self, told: Told) -> None:
        files = sorted((each for each in os.scandir(self._folder) if NAME.fullmatch(each.name)), key=_age)
        for entry in files[:-KEPT]:
            self._drop(Path(entry.path))
        for entry in files[-KEPT:]:
            match = NAME.fullmatch(entry.name)
            if match is None or match["id"] in self._seen:
                continue
            signal = self._read(entry.name, match["agent"], match["id"])
            if signal is None:
                self._drop(Path(entry.path))
                continue
            self._seen[signal.id] = signal
            told(signal)

    def _drop(self, path: Path) -> None:
        if (match := NAME.fullmatch(path.name)) is not None:
            self._seen.pop(match["id"], None)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def _read(self, name: str, agent: str, id_: str) -> AgentSignal | None:
        """None where it says nothing that means something."""
        try:
            handle = open_below(self._folder, str(self._folder / name))
        except OSError:
            return None
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if about.st_size > SIZE_LIMIT:
                return None
            data = file.read(SIZE_LIMIT)
        try:
            found = meaning(agent, msgspec.json.decode(data, strict=False))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None
        if found is None:
            return None
        return AgentSignal(
            seq=UNNUMBERED,
            id=id_,
            agent=agent,
            session_id=found.session_id,
            what=found.what,
            text=found.text,
            at=datetime.fromtimestamp(about.st_mtime, UTC),
        )


def _age(entry: "os.DirEntry[str]") -> tuple[int, str]:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns, entry.name
    except FileNotFoundError:
        return 0, entry.name
