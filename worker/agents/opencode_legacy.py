"""OpenCode's sessions of before version 1.2: ``storage/session/<project>/<id>.json``, ``message/<id>/``, ``part/…``.

OpenCode takes them into its database when it is started anew; until then they are read here. What is in the database
counts.
"""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.sessions import Message, SessionStatus
from protocol.worker import Page, SessionFacts
from worker.agents.opencode_messages import Row, model_of
from worker.agents.transcripts import missed
from worker.opening import NotRegular, open_below
from worker.sessions import blocks
from worker.sessions.agent import Found, Looked
from worker.sessions.lines import LINE_LIMIT, Unreadable, plain

NAMES_LIMIT: Final = 100_000


class Cursor(msgspec.Struct):
    """How many messages were told, and the last of them: it may have grown."""

    told: int
    last: str


class Legacy:
    """The tree of JSON files."""

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        self.sessions = storage / "session"

    def concerns(self, path: str) -> bool:
        return path.endswith(".json") and path.startswith(f"{self.sessions}/")

    def look(self, paths: Collection[str] | None, replaced: Collection[str], looked: Looked) -> None:
        """As :meth:`worker.sessions.agent.CodingAgent.look`, without those that are in the database."""
        for path in self._files(looked) if paths is None else filter(self.concerns, paths):
            session_id = os.path.basename(path).removesuffix(".json")
            if session_id in replaced:
                looked.gone.append(path)
                continue
            try:
                now = os.stat(path, follow_symlinks=False)
                os.close(open_below(self._storage, path))
            except (FileNotFoundError, NotRegular):
                looked.gone.append(path)
                continue
            except OSError as error:
                missed(looked, path, error)
                continue
            looked.found.append(Found(path, session_id, self._mark(session_id, now), SessionStatus.IDLE, now.st_mtime))

    def read(self, found: Found, cursor: str | None, limit: int) -> Page:
        info = self._object(found.key)
        mark = self._mark(found.session_id, os.stat(found.key, follow_symlinks=False))
        names = self._names(self._storage / "message" / found.session_id)
        try:
            where = msgspec.json.decode(cursor, type=Cursor) if cursor else Cursor(0, "")
        except Unreadable:
            where = Cursor(-1, "")
        first = max(0, where.told - 1)
        reset = where.told < 0 or (where.told > 0 and names[first : first + 1] != [where.last])
        first = 0 if reset else first
        messages: list[Message] = []
        size, more, skipped = 0, False, 0
        for ordinal in range(first, len(names)):
            row = self._row(found.session_id, names[ordinal])
            message = row.message(ordinal)
            weight = sum(map(blocks.weight, message.blocks))
            if size and size + weight > limit:
                more = True
                break
            size += weight if ordinal >= where.told or reset else 0
            skipped += row.unreadable
            messages.append(message)
        told = first + len(messages)
        after = Cursor(told, names[told - 1] if told else "")
        return Page(
            messages=messages,
            facts=_facts(found.session_id, info or {}, messages),
            cursor=msgspec.json.encode(after).decode(),
            mark=mark,
            more=more,
            reset=reset,
            skipped=skipped,
        )

    def _row(self, session_id: str, name: str) -> Row:
        data = self._object(f"{self._storage}/message/{session_id}/{name}.json")
        parts = self._storage / "part" / name
        return Row(
            key=(0, name),
            id=name,
            updated=0,
            kind=str((data or {}).get("role")),
            data=data,
            parts=[self._object(f"{parts}/{part}.json") for part in self._names(parts)],
        )

    def _mark(self, session_id: str, now: os.stat_result) -> str:
        try:
            written = os.stat(self._storage / "message" / session_id).st_mtime_ns
        except OSError:
            written = 0
        return f"{now.st_ino}:{now.st_size}:{now.st_mtime_ns}:{written}"

    def _object(self, path: str) -> dict[str, Any] | None:
        try:
            fd = open_below(self._storage, path)
        except FileNotFoundError:
            if path.startswith(str(self.sessions)):
                raise
            return None
        except OSError:
            return None
        with open(fd, "rb") as file:
            content = file.read(LINE_LIMIT + 1)
        try:
            decoded = msgspec.json.decode(content)
        except Unreadable:
            return None
        return decoded if isinstance(decoded, dict) else None

    @staticmethod
    def _names(folder: Path) -> list[str]:
        """Ids grow with time: their order is that of the messages."""
        try:
            names = sorted(name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json"))
        except OSError:
            return []
        return names[:NAMES_LIMIT]

    def _files(self, looked: Looked) -> Iterator[str]:
        try:
            projects = [entry.path for entry in os.scandir(self.sessions) if entry.is_dir(follow_symlinks=False)]
            for project in projects:
                yield from (entry.path for entry in os.scandir(project) if entry.name.endswith(".json"))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            missed(looked, str(self.sessions), error)


def _facts(session_id: str, info: dict[str, Any], messages: list[Message]) -> SessionFacts:
    times = info.get("time")
    times = times if isinstance(times, dict) else {}
    return SessionFacts(
        title=plain(info.get("title"), 300),
        cwd=plain(info.get("directory"), 1024),
        model=next((message.model for message in reversed(messages) if message.model), model_of(info)),
        parent=plain(info.get("parentID"), 128),
        created=blocks.moment(times.get("created")),
        last_activity=blocks.moment(times.get("updated")),
        resume=["opencode", "--session", session_id],
    )
