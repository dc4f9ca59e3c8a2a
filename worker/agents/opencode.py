"""OpenCode: a SQLite database, ``~/.local/share/opencode/opencode.db``; before version 1.2 a tree of JSON files."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.sessions import Message, SessionStatus, Tokens
from protocol.worker import PAGE_LIMIT, Page, SessionFacts
from worker.agents.opencode_database import PAGE_ROWS, Database, Stamp, Unusable
from worker.agents.opencode_legacy import Legacy
from worker.agents.opencode_messages import Row, asks_since, model_of
from worker.agents.transcripts import STALE_SECONDS, Turn
from worker.sessions import blocks
from worker.sessions.agent import Found, Known, Looked, NotPossible, Place
from worker.sessions.lines import Unreadable, count, plain
from worker.sessions.liveness import Processes

COMMAND_SECONDS: Final = 90

TITLE_LIMIT: Final = 300

ASKED_SECONDS: Final = 3600.0
"""For so long it is believed that somebody is asked, where nothing tells that the process is there that did."""

ASKING_SECONDS: Final = 5.0
"""After a tool that may have to be allowed was called, until that is taken for the reason why it has not begun."""


class Cursor(msgspec.Struct, omit_defaults=True):
    """Where a page ended: ``settled`` messages, up to ``key``, change no more. Of those behind, ``seen`` (counted from
    the first) were told as they were at ``updated``, in milliseconds since 1970."""

    settled: int = 0
    key: tuple[int, str] = (-1, "")
    seen: int = 0
    updated: int = 0


class OpenCode:
    """OpenCode's sessions."""

    name = "opencode"

    def __init__(self, folder: Path, database: Path, processes: Processes) -> None:
        self._folder = folder
        self._path = database
        self._processes = processes
        self._legacy = Legacy(folder / "storage")
        self._database = Database(database)
        self._readers = threading.local()
        self._stamps: dict[str, Stamp] = {}
        self._turns: dict[str, Turn | None] = {}
        self._asking: dict[str, float] = {}
        self._known = False

    def places(self) -> Sequence[Place]:
        return [Place(self._path.parent), Place(self._legacy.sessions, 1)]

    def concerns(self, path: str) -> bool:
        return path in (str(self._path), f"{self._path}-wal") or self._legacy.concerns(path)

    def look(self, paths: Collection[str] | None, known: Known) -> Looked:
        looked = Looked(everything=paths is None)
        try:
            self._look(paths, looked)
            looked.settled = True
        except Unusable as unusable:
            if os.path.exists(self._path) or os.path.exists(f"{self._path}-wal"):
                looked.problem, looked.everything = f"OpenCode's database: {unusable}", False
            elif self._stamps:
                looked.gone += [self._key(stamp) for stamp in self._stamps.values()]
                self._stamps.clear()
        self._legacy.look(paths, self._stamps.keys(), looked)
        return looked

    def read(self, found: Found, cursor: str | None, limit: int) -> Page:
        if found.key.endswith(".json"):
            return self._legacy.read(found, cursor, limit)
        database = self._reader()
        table = found.key.rpartition("#")[2]
        try:
            facts = database.facts(table, found.session_id)
            if facts is None:
                raise FileNotFoundError(found.session_id)
            where = _decode(cursor)
            reset = cursor is not None and (where is None or not self._still_there(database, table, found, where))
            where = Cursor() if where is None or reset else where
            page = self._read(database, table, found, where, limit)
            if page is None:
                reset, page = True, self._read(database, table, found, Cursor(), limit)
                assert page is not None
        except Unusable as unusable:
            raise NotPossible(f"OpenCode's database: {unusable}") from unusable
        messages, after, more, skipped = page
        return Page(
            messages=messages,
            facts=_facts(found.session_id, facts),
            cursor=msgspec.json.encode(after).decode(),
            mark=found.mark,
            more=more,
            reset=reset,
            skipped=skipped,
        )

    def rename(self, found: Found, title: str) -> None:
        if found.key.endswith(".json"):
            raise NotPossible("This session is from before OpenCode 1.2: open it in OpenCode once, then rename it.")
        try:
            Database(self._path).rename(found.key.rpartition("#")[2], found.session_id, title)
        except Unusable as unusable:
            raise NotPossible(f"OpenCode's database: {unusable} Try again in a moment.") from unusable

    def delete(self, found: Found) -> None:
        if not shutil.which("opencode"):
            raise NotPossible("The command opencode is not installed in this workspace, and it has to do that.")
        try:
            # By OpenCode itself: it knows what else belongs to a session, in each of its versions.
            ended = subprocess.run(
                ["opencode", "session", "delete", found.session_id],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=COMMAND_SECONDS,
                cwd=self._folder,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotPossible("The command opencode did not answer: try again in a moment.") from error
        if ended.returncode != 0:
            said = plain(ended.stderr.decode("utf-8", "replace"), 300)
            raise NotPossible(f"OpenCode did not delete the session: {said or 'it does not say why'}.")

    def _look(self, paths: Collection[str] | None, looked: Looked) -> None:
        again = {path.partition("#")[2].partition("#")[0] for path in paths or () if "#" in path}
        if self._database.changed() or not self._known or paths is None:
            stamps = {stamp.session_id: stamp for stamp in self._database.stamps()}
            for id, stamp in stamps.items():
                if self._stamps.get(id) != stamp:
                    last = self._database.last(stamp.table, id)
                    self._turns[id] = turn = last.turn() if last else None
                    self._asking.pop(id, None)
                    if turn is Turn.RUNNING and last and stamp.table == "session":
                        asks = asks_since(self._database.last_parts(last.id))
                        if asks is not None:
                            self._asking[id] = asks
                    again.add(id)
            for id in self._stamps.keys() - stamps.keys():
                looked.gone.append(self._key(self._stamps[id]))
                self._turns.pop(id, None)
                self._asking.pop(id, None)
            self._stamps, self._known = stamps, True
        wanted = self._stamps.values() if paths is None else [self._stamps[id] for id in again if id in self._stamps]
        looked.found += [self._found(stamp) for stamp in wanted]

    def _found(self, stamp: Stamp) -> Found:
        turn, quiet = self._turns.get(stamp.session_id), time.time() - stamp.updated / 1000
        status = SessionStatus.IDLE
        if turn is Turn.FAILED:
            status = SessionStatus.ERROR
        elif turn is Turn.RUNNING:
            # Nobody says which process it is: one that works in its folder, or else any, for a while.
            working = [self._processes.folder_of(pid) for pid in self._processes.named("opencode", "opencode2")]
            asks = self._asking.get(stamp.session_id)
            patience = STALE_SECONDS if asks is None else ASKED_SECONDS
            if working and (abs(quiet) < patience or stamp.directory in working):
                waits = asks is not None and time.time() - asks > ASKING_SECONDS
                status = SessionStatus.WAITING if waits else SessionStatus.BUSY
        mark = f"{stamp.table}:{stamp.updated}:{stamp.sequence}"
        return Found(self._key(stamp), stamp.session_id, mark, status, stamp.updated / 1000)

    def _key(self, stamp: Stamp) -> str:
        return f"{self._path}#{stamp.session_id}#{stamp.table}"

    def _reader(self) -> Database:
        """A connection for this thread."""
        if not hasattr(self._readers, "database"):
            self._readers.database = Database(self._path)
        database: Database = self._readers.database
        return database

    @staticmethod
    def _still_there(database: Database, table: str, found: Found, where: Cursor) -> bool:
        """Whether the messages before a cursor are still those: some go when a person takes steps back."""
        if where.settled == 0:
            return True
        return database.count(table, found.session_id, where.key) == where.settled

    @staticmethod
    def _read(
        database: Database, table: str, found: Found, where: Cursor, limit: int
    ) -> tuple[list[Message], Cursor, bool, int] | None:
        """None where messages are gone that were told but not settled."""
        rows = database.rows(table, found.session_id, where.key)
        more, skipped, size = len(rows) == PAGE_ROWS, 0, 0
        if not more and where.settled + len(rows) < where.seen:
            return None
        messages: list[Message] = []
        told: list[Row] = []
        for index, row in enumerate(rows, where.settled):
            if table == "session":
                database.fill(row)
            if index >= where.seen or row.updated >= where.updated:
                message = row.message(index)
                weight = sum(map(blocks.weight, message.blocks))
                # What only grew does not keep what is new from its turn.
                if size and size + weight > limit:
                    more = True
                    break
                if weight > PAGE_LIMIT:
                    message = _cut(message)
                size += weight if index >= where.seen else 0
                skipped += row.unreadable
                messages.append(message)
            row.parts = []
            told.append(row)
        after = Cursor(where.settled, where.key, max(where.seen, where.settled + len(told)), where.updated)
        answers = [index for index, row in enumerate(rows) if row.is_answer]
        for index, row in enumerate(told):
            # OpenCode gives one answer after the other: one that was never finished is over when the next begins.
            followed = bool(answers) and answers[-1] > index
            if index + 1 >= len(rows) or not (row.is_whole or followed):
                break
            after.settled, after.key = where.settled + index + 1, row.key
        after.updated = max((row.updated for row in told), default=where.updated)
        return messages, after, more, skipped


def _cut(message: Message) -> Message:
    kept, size = [], 0
    for block in message.blocks[:1024]:
        size += blocks.weight(block)
        kept.append(block if size <= PAGE_LIMIT else blocks.emptied(block))
    return msgspec.structs.replace(message, blocks=kept)


def _decode(cursor: str | None) -> Cursor | None:
    try:
        return None if cursor is None else msgspec.json.decode(cursor, type=Cursor)
    except Unreadable:
        return None


def _facts(session_id: str, row: dict[str, Any]) -> SessionFacts:
    model = row["model"]
    if isinstance(model, str) and model.startswith("{"):
        try:
            model = model_of({"model": msgspec.json.decode(model)})
        except Unreadable:
            model = None
    cost = row["cost"]
    return SessionFacts(
        title=plain(row["title"], TITLE_LIMIT),
        cwd=plain(row["directory"], 1024),
        model=plain(model, 128),
        parent=plain(row["parent_id"], 128),
        created=blocks.moment(row["time_created"]),
        last_activity=blocks.moment(row["time_updated"]),
        tokens=Tokens(
            input=count(row["tokens_input"]),
            output=count(row["tokens_output"]) + count(row["tokens_reasoning"]),
            cache_read=count(row["tokens_cache_read"]),
            cache_write=count(row["tokens_cache_write"]),
        )
        if row["tokens_input"] is not None
        else None,
        cost=float(cost) if isinstance(cost, int | float) else None,
        resume=["opencode", "--session", session_id],
    )
