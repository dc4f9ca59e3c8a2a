"""Follows the workers of all workspaces, and keeps the index in order: full text, what is void, what is damaged."""

import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable
from typing import Final

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from controlplane.errors import PerryError, WorkerError, WorkerUnavailable
from controlplane.ports import WorkerLink
from controlplane.sessions import fulltext, store
from controlplane.sessions.aggregate import Row, info
from controlplane.sessions.changes import Changes
from controlplane.sessions.database import Damaged, SessionsDatabase
from controlplane.sessions.masking import Mask
from controlplane.sessions.pulling import Puller
from protocol.worker import Event

log = logging.getLogger(__name__)

SETTLED_SECONDS: Final = 0.2
"""After a message was stored, until it enters the full text: it may grow."""

GATHER_TIMES: Final = 10
"""So much longer while sessions are read for the first time, unless enough is there: the more enters at once, the less
is merged later."""

MASK_SECONDS: Final = 30.0
"""For so long the secrets that Perry knows are taken for the same."""

_BATCH: Final = 500


class Follower:
    """A :class:`~controlplane.ports.WorkerFollower`.

    ``created`` tells a workspace's creation, by which one of the same name is another. ``secrets`` are values that are
    masked; it may read files.
    """

    def __init__(
        self,
        database: SessionsDatabase,
        changes: Changes,
        *,
        created: Callable[[str], str],
        secrets: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._db = database
        self._changes = changes
        self._created = created
        self._secrets = secrets
        self._mask = (float("-inf"), Mask())
        self._pullers: dict[str, Puller] = {}
        self._links: dict[str, tuple[WorkerLink, anyio.CancelScope]] = {}
        self._tasks: TaskGroup | None = None
        self._work = anyio.Event()
        self._damaged = anyio.Event()
        self._waiting = 0
        self._enough = anyio.Event()

    def run_in(self, tasks: TaskGroup) -> None:
        """Where the work is done; before anything is attached."""
        self._tasks = tasks
        tasks.start_soon(self._keep_in_order)
        tasks.start_soon(self._mend)
        tasks.start_soon(self._db.keep_short)
        self._work.set()

    async def end_others(self, there: Iterable[tuple[str, str]], unsure: Collection[str]) -> None:
        """Let go of workspaces that were deleted while nobody followed. ``there`` are names and creations of all.

        Those in ``unsure`` that are not among them are left alone.
        """
        known = {*there, *((name, self._pullers[name].created) for name in self._links)}
        left = set(unsure) - {name for name, _ in known}
        rows = await self._db.write(lambda db: store.end_others(db, known, left))
        await self._tell_ended(rows)

    # --- what the fleet tells

    @property
    def live(self) -> Collection[str]:
        """Names of the workspaces that are followed now."""
        return self._links.keys()

    def link(self, workspace: str) -> WorkerLink:
        """To its worker. WorkerUnavailable where none is followed."""
        found = self._links.get(workspace)
        if found is None:
            raise WorkerUnavailable(
                f"The workspace {workspace!r} is not followed now; `perry start {workspace}` starts it, then ask again."
            )
        return found[0]

    def puller(self, workspace: str) -> Puller | None:
        return self._pullers.get(workspace)

    def attached(self, workspace: str, link: WorkerLink) -> None:
        self._let_go(workspace)
        created = self._created(workspace)
        puller = self._pullers.get(workspace)
        if puller is None or puller.created != created:
            puller = Puller(workspace, created, self._db, self._changes, self._current_mask, self._stored)
            self._pullers[workspace] = puller
        puller.attach(link)
        self._start(workspace, puller, link)

    def told(self, workspace: str, event: Event) -> None:
        if workspace in self._links:
            self._pullers[workspace].tell(event)

    def detached(self, workspace: str) -> None:
        if self._let_go(workspace):
            self._running().start_soon(self._tell_detached, workspace)

    def deleted(self, workspace: str) -> None:
        self._let_go(workspace)
        self._pullers.pop(workspace, None)
        self._running().start_soon(self._delete, workspace)

    def tidy(self) -> None:
        """Something is void, and may be taken away."""
        self._work.set()

    def _stored(self, size: int) -> None:
        """Messages wait for their turn to enter the full text, or are void."""
        self._waiting += size
        if self._waiting >= fulltext.BATCH_BYTES:
            self._enough.set()
        self._work.set()

    def damaged(self) -> None:
        """Somebody found the index to be."""
        self._damaged.set()

    # --- one workspace

    def _start(self, workspace: str, puller: Puller, link: WorkerLink) -> None:
        scope = anyio.CancelScope()
        self._links[workspace] = link, scope
        self._running().start_soon(self._follow, puller, scope)

    async def _follow(self, puller: Puller, scope: anyio.CancelScope) -> None:
        pause = 0.5
        with scope:
            while True:
                try:
                    await puller.run()
                except Exception as exc:
                    if _among(exc, WorkerUnavailable):
                        return  # Who holds the stream says so too.
                    if _among(exc, Damaged):
                        self._damaged.set()
                        return
                    # What one workspace's worker says must not end the others.
                    log.warning("workspace %s is read again in %.0f s", puller.name, pause, exc_info=exc)
                await anyio.sleep(pause)
                pause = min(pause * 2, 60)

    def _let_go(self, workspace: str) -> bool:
        found = self._links.pop(workspace, None)
        if found is not None:
            found[1].cancel()
        return found is not None

    async def _tell_detached(self, workspace: str) -> None:
        try:
            rows = await self._db.read(lambda db: store.of_name(db, workspace))
        except PerryError:
            return
        await self._tell(rows)

    async def _delete(self, workspace: str) -> None:
        try:
            await self._tell_ended(await self._db.write(lambda db: store.end_workspace(db, workspace)))
        except PerryError as exc:
            log.warning("sessions of %s, which is deleted, go at the next start: %s", workspace, exc)

    async def _tell_ended(self, before: list[Row]) -> None:
        """Those that are gone, and those that were kept."""
        ids = {row.id for row in before}
        kept = await self._db.read(lambda db: [row for at in ids if (row := store.get(db, at)) is not None])
        for row in before:
            self._changes.deleted(row.workspace, row.key)
        await self._tell(kept)
        self.tidy()

    async def _tell(self, rows: list[Row]) -> None:
        for number, row in enumerate(rows):
            if not row.forgotten:
                self._changes.changed(info(row, live=row.workspace in self._links))
            if number % _BATCH == _BATCH - 1:
                await anyio.lowlevel.checkpoint()

    # --- the index

    async def _keep_in_order(self) -> None:
        pause = 0.5
        while True:
            await self._work.wait()
            self._work = anyio.Event()
            await self._gather()
            try:
                while await self._db.write(self._put_in) | await self._db.write(fulltext.clear_doomed):
                    pass
                while not self._work.is_set() and await self._db.write(fulltext.merge):
                    pass
                pause = 0.5
            except Damaged:
                self._damaged.set()
            except PerryError as exc:
                log.warning("what was said is not to be searched yet: %s", exc)
                await anyio.sleep(pause)
                pause = min(pause * 2, 60)
                self._work.set()

    def _put_in(self, db: sqlite3.Connection) -> bool:
        return fulltext.put_in(db, lambda: self._db.hurried)

    async def _gather(self) -> None:
        for _ in range(GATHER_TIMES):
            with anyio.move_on_after(SETTLED_SECONDS):
                await self._enough.wait()
            if self._enough.is_set() or not self._first_reading():
                break
        self._waiting, self._enough = 0, anyio.Event()

    def _first_reading(self) -> bool:
        return any(self._pullers[name].reads_first for name in self._links)

    async def _mend(self) -> None:
        """Begin anew with an index that is damaged, and read again what is followed."""
        while True:
            await self._damaged.wait()
            followed = {name: link for name, (link, _) in self._links.items()}
            for name in followed:
                self._let_go(name)
            try:
                await self._db.replace()
            except (PerryError, OSError) as exc:
                log.error("the index of sessions is damaged, and cannot be made anew: %s", exc)
                await anyio.sleep(30)
                continue
            finally:
                self._damaged = anyio.Event()
            for name, puller in self._pullers.items():
                puller.start_over()
                if name in followed and name not in self._links:
                    self._start(name, puller, followed[name])

    def _current_mask(self) -> Mask:
        since, mask = self._mask
        if time.monotonic() - since > MASK_SECONDS:
            try:
                mask = Mask(self._secrets())
            except PerryError as exc:
                log.warning("secrets are masked as they were before: %s", exc)
            self._mask = time.monotonic(), mask
        return mask

    def _running(self) -> TaskGroup:
        if self._tasks is None:
            raise WorkerError("The control plane does not follow sessions yet; ask again in a moment.")
        return self._tasks


def _among(exc: BaseException, kind: type[Exception]) -> bool:
    """Whether it is of a kind, or one of those of a task group is."""
    return isinstance(exc, kind) or (isinstance(exc, BaseExceptionGroup) and exc.subgroup(kind) is not None)
