"""Takes wakes out of the spools of workspaces: into the outbox, and only then the spool may forget them."""

import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio
from anyio.abc import TaskGroup

from controlplane.errors import PerryError, TooMany, WorkerError
from controlplane.ports import WorkerLink
from controlplane.wake.message import Message, bounded, clean, mode_of, words_of
from controlplane.wake.rate import Rate
from protocol.worker import Event, TakeWakes, WakeSpooled

log = logging.getLogger(__name__)

HELD: Final = 2_000
"""Wakes of one workspace that are on their way; an honest spool has less."""

TAKEN_AT_ONCE: Final = 200
AGAIN_SECONDS: Final = 5.0
ASK_SECONDS: Final = 20.0

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_TASK: Final = re.compile(r"t-[0-9a-z]{12}")


class Taker(Protocol):
    """Takes wakes for good; see :class:`controlplane.wake.service.WakeService`."""

    async def bring(self, workspace: str, spooled: Message) -> None: ...


class _Spool:
    """One workspace's. ``safe`` are in the outbox, and the spool does not know it yet."""

    def __init__(self) -> None:
        self.link: WorkerLink | None = None
        self.waiting: OrderedDict[str, WakeSpooled] = OrderedDict()
        self.safe: list[str] = []
        self.wanted = anyio.Event()

    @property
    def can_go_on(self) -> bool:
        """Whether there is something to do now. Without a stream, no more are taken than are acknowledged at once."""
        return bool(self.waiting and len(self.safe) < TAKEN_AT_ONCE) or bool(self.safe and self.link)


class Spools:
    """Hears every worker (a ``WorkerFollower``). ``is_at`` knows whether a task is a workspace's."""

    def __init__(
        self, taker: Taker, rate: Rate | None = None, *, is_at: Callable[[str, str], bool] = lambda *_: False
    ) -> None:
        self._taker = taker
        self._is_at = is_at
        self._spools: dict[str, _Spool] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}
        self._rate = rate or Rate(time.monotonic)
        self._tasks: TaskGroup | None = None

    def run_in(self, tasks: TaskGroup) -> None:
        """All taking happens in this task group."""
        self._tasks = tasks

    def attached(self, workspace: str, link: WorkerLink) -> None:
        spool = self._of(workspace)
        spool.link = link
        spool.wanted.set()

    def told(self, workspace: str, event: Event) -> None:
        if not isinstance(event, WakeSpooled):
            return
        spool = self._of(workspace)
        if len(spool.waiting) >= HELD:
            return  # Of a worker that does not keep to its own bounds.
        spool.waiting.setdefault(event.id, event)
        spool.wanted.set()

    def detached(self, workspace: str) -> None:
        if (spool := self._spools.get(workspace)) is not None:
            spool.link = None

    def deleted(self, workspace: str) -> None:
        self._spools.pop(workspace, None)
        if (scope := self._scopes.pop(workspace, None)) is not None:
            scope.cancel()

    def _of(self, workspace: str) -> _Spool:
        spool = self._spools.get(workspace)
        if spool is None:
            assert self._tasks is not None
            spool = self._spools[workspace] = _Spool()
            scope = self._scopes[workspace] = anyio.CancelScope()
            self._tasks.start_soon(self._keep, workspace, spool, scope)
        return spool

    async def _keep(self, workspace: str, spool: _Spool, scope: anyio.CancelScope) -> None:
        with scope:
            while True:
                spool.wanted = anyio.Event()
                try:
                    await self._take(workspace, spool)
                except (PerryError, TimeoutError) as exc:
                    log.debug("wakes of %s wait in its spool: %s", workspace, exc)
                    await anyio.sleep(AGAIN_SECONDS)
                except Exception:
                    log.exception("wakes of %s wait in its spool", workspace)
                    await anyio.sleep(AGAIN_SECONDS)
                if not spool.can_go_on:
                    await spool.wanted.wait()

    async def _take(self, workspace: str, spool: _Spool) -> None:
        try:
            while spool.waiting and len(spool.safe) < TAKEN_AT_ONCE:
                id_, event = next(iter(spool.waiting.items()))
                if (message := message_of(workspace, event, self._is_at)) is not None:
                    if (wait := self._rate.wait(workspace)) > 0:
                        raise TooMany(f"{workspace} wakes too often; the next in {wait:.0f} seconds.")
                    await self._taker.bring(workspace, message)
                del spool.waiting[id_]
                spool.safe.append(id_)
        finally:
            if spool.safe and spool.link is not None:
                await self._forget(spool, spool.link, spool.safe[:TAKEN_AT_ONCE])

    async def _forget(self, spool: _Spool, link: WorkerLink, ids: Sequence[str]) -> None:
        """A spool that does not hear it tells of them anew, and the outbox knows them then."""
        with anyio.move_on_after(ASK_SECONDS):
            try:
                await link.ask(TakeWakes(ids=list(ids)))
            except WorkerError:
                pass
            else:
                del spool.safe[: len(ids)]
                return
        if spool.link is link:
            spool.link = None


def message_of(workspace: str, event: WakeSpooled, is_at: Callable[[str, str], bool]) -> Message | None:
    """A workspace's words, marked as such, within bounds, under an id that no other workspace can have, and of a task
    of its own. None for what is no wake."""
    text = clean(event.text)
    if not text or not _ID.fullmatch(event.id):
        return None
    return Message(
        id=f"{workspace}.{event.id}",
        text=words_of("It", bounded(text)),
        mode=mode_of(event.mode),
        workspace=workspace,
        task=event.task if event.task and _TASK.fullmatch(event.task) and is_at(workspace, event.task) else None,
    )
