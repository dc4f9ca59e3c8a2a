"""The use cases of sessions."""

import re
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from controlplane.errors import InvalidInput, NotFound
from controlplane.sessions import fulltext, listing, messages, query, store
from controlplane.sessions.aggregate import ORDINALS, TITLE, Key, Row, info, line, moment
from controlplane.sessions.changes import Changes
from controlplane.sessions.database import Damaged, SessionsDatabase
from controlplane.sessions.follower import Follower
from controlplane.sessions.fulltext import Place, Scope
from protocol.sessions import (
    DeleteSession,
    Hit,
    Hits,
    ListMessages,
    ListSessions,
    Message,
    MessageRole,
    Messages,
    RenameSession,
    SearchSessions,
    SessionInfo,
    SessionRef,
)
from protocol.sessions import Sessions as Page
from protocol.worker import DeleteInStore, RenameInStore

T = TypeVar("T")

PAGE_BYTES: Final = 4 << 20
"""Of messages in one answer, but for a single one; a page has fewer than were asked for where they are large."""

TOLD_BYTES: Final = 1 << 20
"""Of messages in one frame."""

_PLACE = re.compile(r"([01])\.(\d{1,18})")


class Sessions:
    """All sessions of all workspaces. ``exists`` says whether there is a workspace of a name."""

    def __init__(
        self, database: SessionsDatabase, changes: Changes, follower: Follower, exists: Callable[[str], bool]
    ) -> None:
        self._db = database
        self._changes = changes
        self._follower = follower
        self._exists = exists

    async def list_(self, wanted: ListSessions) -> Page:
        """A page of those that are asked for."""
        if wanted.workspace is not None:
            await self.must_know(wanted.workspace)
        rows, cursor = await self._read(lambda db: listing.page(db, wanted))
        return Page(items=[self._info(row) for row in rows], next_cursor=cursor)

    async def must_know(self, workspace: str) -> None:
        """NotFound where there is no workspace of that name, and none left sessions."""
        if not self._exists(workspace) and not await self._read(lambda db: listing.of_name(db, workspace)):
            raise NotFound(f"There is no workspace {workspace!r}, and no sessions of one; `perry list` shows all.")

    async def get(self, wanted: SessionRef) -> SessionInfo:
        return self._info(await self._row(wanted))

    async def messages(self, wanted: ListMessages) -> Messages:
        """A page of its messages."""
        if wanted.after is not None and wanted.before is not None:
            raise InvalidInput("Ask for messages after one, or before one, and not for both.")
        body = (await self._row(wanted)).body
        first = 0 if wanted.after is None else min(max(wanted.after + 1, 0), ORDINALS)
        last = ORDINALS - 1 if wanted.before is None else min(wanted.before, ORDINALS) - 1

        def work(db: sqlite3.Connection) -> Messages:
            items = messages.between(db, body, first, last, wanted.limit, PAGE_BYTES, backwards=wanted.after is None)
            begin, end = (items[0].ordinal, items[-1].ordinal) if items else (first, first - 1)
            if not items and wanted.after is None:
                begin, end = last + 1, last
            return Messages(
                items=items,
                more_before=messages.has_any(db, body, 0, begin - 1),
                more_after=messages.has_any(db, body, end + 1, ORDINALS - 1),
            )

        return await self._read(work)

    async def messages_for(
        self, workspace: str, key: Key, single: Sequence[int], floor: int | None, limit: int
    ) -> tuple[list[Message], bool]:
        """For those who follow: the messages of some ordinals, or else all from ``floor`` on; and whether not all
        of what was asked for was given."""

        def work(db: sqlite3.Connection) -> tuple[list[Message], bool]:
            row = store.find_named(db, workspace, key)
            if row is None:
                return [], False
            if floor is not None:
                items = messages.between(db, row.body, floor, ORDINALS - 1, limit, TOLD_BYTES)
                return items, bool(items) and messages.has_any(db, row.body, items[-1].ordinal + 1, ORDINALS - 1)
            return messages.at(db, row.body, single, TOLD_BYTES)

        return await self._read(work)

    async def search(self, wanted: SearchSessions) -> Hits:
        """Full text; the best first."""
        expression = query.expression(wanted.query)
        place = None
        if wanted.cursor is not None:
            found_place = _PLACE.fullmatch(wanted.cursor)
            if found_place is None:
                raise InvalidInput("The cursor is none that a page ended with; leave it out to begin anew.")
            place = Place(int(found_place[1]), int(found_place[2]))
        if wanted.workspace is not None:
            await self.must_know(wanted.workspace)

        def work(db: sqlite3.Connection) -> tuple[list[fulltext.Found], dict[int, Row]]:
            numbers = None if wanted.workspace is None else listing.of_name(db, wanted.workspace)
            if numbers is not None and not numbers:
                return [], {}
            found = fulltext.search(db, expression, Scope(numbers, wanted.agent), place, wanted.limit + 1)
            return found, {body: store.of_body(db, body) for body in {hit.body for hit in found}}

        found, rows = await self._read(work)
        hits = [
            Hit(
                session=self._info(rows[hit.body]),
                ordinal=hit.ordinal,
                role=MessageRole(hit.role),
                snippet=hit.snippet,
                at=None if hit.at is None else moment(hit.at),
            )
            for hit in found[: wanted.limit]
        ]
        if len(found) <= wanted.limit:
            return Hits(items=hits)
        last = found[wanted.limit - 1].place
        return Hits(items=hits, next_cursor=f"{last.part}.{last.doc}")

    async def rename(self, wanted: RenameSession) -> SessionInfo:
        """In the agent's own store, and at once here too."""
        title = line(wanted.title, TITLE)
        if title is None:
            raise InvalidInput("A title has at least one printable character; give another.")
        row = await self._row(wanted)
        link = self._follower.link(_workspace(row))
        await link.ask(RenameInStore(agent=row.agent, session_id=row.session_id, title=title))
        after = await self._write(lambda db: store.set_title(db, row.id, title)) or row
        self._changes.changed(self._info(after))
        return self._info(after)

    async def delete(self, wanted: DeleteSession) -> None:
        """From the index, and if asked for from the agent's own store, where it is gone for good."""
        row = await self._row(wanted)
        puller = None if row.deleted_workspace else self._follower.puller(row.workspace)
        if wanted.in_workspace:
            link = self._follower.link(_workspace(row))
            await link.ask(DeleteInStore(agent=row.agent, session_id=row.session_id))
        if wanted.in_workspace or row.deleted_workspace:
            await self._write(lambda db: store.remove(db, [row.id]))
            if puller is not None:
                puller.drop(row.key)
        else:
            await self._write(lambda db: store.forget(db, row.id))
            if puller is not None:
                puller.forget(row.key)
        self._changes.deleted(row.workspace, row.key)
        self._follower.tidy()

    async def keep(self, workspace: str, keep: bool) -> None:
        """What shall become of its sessions when a workspace is deleted; to be said before it is."""
        await self._write(lambda db: store.set_keep(db, workspace, keep))

    async def _row(self, wanted: SessionRef) -> Row:
        key = Key(wanted.agent, wanted.session_id)
        row = await self._read(lambda db: store.find_named(db, wanted.workspace, key))
        if row is None:
            raise NotFound(
                f"There is no session {wanted.session_id!r} of {wanted.agent} in {wanted.workspace!r}; "
                "`perry sessions list` shows all."
            )
        return row

    def _info(self, row: Row) -> SessionInfo:
        return info(row, live=row.workspace in self._follower.live)

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._db.read(work)
        except Damaged:
            self._follower.damaged()
            raise

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._db.write(work)
        except Damaged:
            self._follower.damaged()
            raise


def _workspace(row: Row) -> str:
    """Whose agent's store is asked. NotFound where it is gone."""
    if row.deleted_workspace:
        raise NotFound(
            f"The workspace {row.workspace!r} of this session was deleted, and the agent's store with it: what was "
            "said can be read, or deleted from the index (without `--in-workspace`)."
        )
    return row.workspace
