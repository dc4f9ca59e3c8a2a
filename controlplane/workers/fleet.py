"""A stream to the worker of every workspace that runs. What a worker does harms only its own workspace's view."""

import logging
import time
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskGroup

from controlplane.errors import PerryError, WorkerBroke, WorkerRefusesSecret, WorkerUnavailable
from controlplane.ports import WorkerFollower, WorkerLink, Workers
from controlplane.workers.pace import BROKEN_PAUSE, pause
from protocol.worker import Event, SnapshotEnd

log = logging.getLogger(__name__)

LOOK_AGAIN = 5
"""Tries at one address before it is asked for again: a pod that was started anew may have another."""

SECRETS_GIVEN = 3
"""Times in a row that a worker is given its secret anew."""


class Place:
    """One workspace's stream, and what is known of its worker."""

    def __init__(self, calm: float = 0.0) -> None:
        self.calm = calm
        self.scope = anyio.CancelScope()
        self.address: str | None = None
        self.link: WorkerLink | None = None
        self.version: str | None = None
        self.error: str | None = None
        """Why there is no stream, once it has failed for longer than a worker takes to come up."""
        self.news = anyio.Event()
        self.dial_now = anyio.Event()
        # Where it goes on after a break: only what was told whole can be resumed.
        self.epoch: str | None = None
        self.after: int | None = None


class Fleet:
    """``address`` finds a workspace's pod, ``renew_secret`` puts its secret into it, ``changed`` is told of news."""

    def __init__(
        self,
        workers: Workers,
        *,
        secret: Callable[[str], str],
        address: Callable[[str], Awaitable[str | None]],
        renew_secret: Callable[[str], Awaitable[None]],
        changed: Callable[[str], None],
    ) -> None:
        self._workers = workers
        self._secret = secret
        self._address = address
        self._renew_secret = renew_secret
        self._changed = changed
        self._followers: list[WorkerFollower] = []
        self._places: dict[str, Place] = {}
        self._heard: dict[str, tuple[str, int]] = {}
        self._tasks: TaskGroup | None = None

    def register(self, follower: WorkerFollower) -> None:
        """From the next stream on it hears what workers tell."""
        self._followers.append(follower)

    def run_in(self, tasks: TaskGroup) -> None:
        """All following happens in this task group."""
        self._tasks = tasks

    # --- which workspaces

    def follow(self, workspace: str, address: str | None = None, *, calm: float = 0.0) -> None:
        """It runs: keep a stream to its worker. Safe to call again; another address than before is dialled anew.

        ``calm`` is how many seconds a workspace that was not followed is left alone before it is dialled.
        """
        assert self._tasks is not None
        place = self._places.get(workspace)
        if place is not None:
            if address is not None and address != place.address:
                place.address = address
                place.dial_now.set()
            return
        place = Place(calm)
        place.address = address
        if (heard := self._heard.get(workspace)) is not None:
            place.epoch, place.after = heard
        self._places[workspace] = place
        self._tasks.start_soon(self._keep, workspace, place)

    def detach(self, workspace: str) -> None:
        """It stops. What was heard is remembered, for when it runs again."""
        place = self._places.pop(workspace, None)
        if place is not None:
            # Said at once, so that it is never said after the next stream's beginning.
            self._let_go(workspace, place)
            place.scope.cancel()
            place.news.set()

    def forget(self, workspace: str) -> None:
        """It is gone for good."""
        self.detach(workspace)
        self._heard.pop(workspace, None)
        self._tell(lambda follower: follower.deleted(workspace))

    # --- what there is

    @property
    def followed(self) -> list[str]:
        """Names of the workspaces whose workers are followed, heard or not."""
        return list(self._places)

    def link(self, workspace: str) -> WorkerLink:
        """The stream to its worker. WorkerUnavailable where none stands."""
        place = self._places.get(workspace)
        if place is None:
            raise WorkerUnavailable(f"{workspace!r} does not run; `perry start {workspace}` starts it.")
        if place.link is None:
            why = place.error or "It is being dialled; try again in a moment."
            raise WorkerUnavailable(f"The worker of {workspace!r} cannot be reached now. {why}")
        return place.link

    def place(self, workspace: str) -> Place | None:
        """How it stands with one that is followed."""
        return self._places.get(workspace)

    def dial_now(self, workspace: str) -> None:
        """It has a reason to answer now: do not wait for the next try."""
        if (place := self._places.get(workspace)) is not None:
            place.error = None
            place.dial_now.set()

    async def wait(
        self, workspace: str, wanted: Callable[[Place], bool], seconds: float, enough: anyio.Event | None = None
    ) -> bool:
        """Whether its stream came to be as wanted within that time, and before there was ``enough``."""
        with anyio.move_on_after(seconds):
            async with anyio.create_task_group() as waiting:
                if enough is not None:
                    waiting.start_soon(_end_with, enough, waiting.cancel_scope)
                while (place := self._places.get(workspace)) is not None and not wanted(place):
                    await place.news.wait()
                waiting.cancel_scope.cancel()
        place = self._places.get(workspace)
        return place is not None and wanted(place)

    # --- one workspace

    async def _keep(self, workspace: str, place: Place) -> None:
        failures = refusals = 0
        with place.scope:
            with anyio.move_on_after(place.calm):
                await place.dial_now.wait()
            while True:
                place.dial_now = anyio.Event()
                wait = pause(failures)
                try:
                    if place.address is None or failures % LOOK_AGAIN == LOOK_AGAIN - 1:
                        place.address = await self._address(workspace) or place.address
                    if place.address is None:
                        raise WorkerUnavailable("Its pod has no address yet.")
                    began = time.monotonic()
                    try:
                        await self._converse(workspace, place)
                    finally:
                        if place.version is not None and time.monotonic() - began > 1:
                            failures = refusals = 0
                except WorkerRefusesSecret as exc:
                    refusals += 1
                    self._note(workspace, place, exc.message)
                    if refusals <= SECRETS_GIVEN:
                        await self._give_secret(workspace)
                except WorkerBroke as exc:
                    wait = BROKEN_PAUSE
                    self._note(workspace, place, f"{exc.message} It is listened to again in a minute.")
                except WorkerUnavailable as exc:
                    # A worker that is coming up is no news.
                    if failures > 12:
                        self._note(workspace, place, exc.message)
                except PerryError as exc:
                    wait = pause(30)
                    self._note(workspace, place, exc.message)
                except Exception:
                    log.exception("the stream to the worker of %s crashed", workspace)
                    wait = BROKEN_PAUSE
                failures += 1
                with anyio.move_on_after(wait):
                    await place.dial_now.wait()

    async def _converse(self, workspace: str, place: Place) -> None:
        assert place.address is not None
        dial = self._workers.dial(place.address, self._secret(workspace), epoch=place.epoch, after=place.after)
        async with dial as link:
            hello = link.hello
            if not hello.resumed:
                # What was heard before counts no more, and what is told now only when it was told whole.
                place.epoch = place.after = None
                self._heard.pop(workspace, None)
            place.link, place.version, place.error = link, hello.version, None
            self._tell(lambda follower: follower.attached(workspace, link))
            self._announce(workspace, place)
            try:
                await self._hear(workspace, place, link)
            finally:
                self._let_go(workspace, place)
                self._announce(workspace, place)

    def _let_go(self, workspace: str, place: Place) -> None:
        if place.link is not None:
            place.link = None
            self._tell(lambda follower: follower.detached(workspace))

    async def _hear(self, workspace: str, place: Place, link: WorkerLink) -> None:
        whole = link.hello.resumed
        async for event in link.events():
            self._pass_on(workspace, event)
            whole = whole or isinstance(event, SnapshotEnd)
            if whole:
                place.epoch, place.after = link.hello.epoch, event.seq
                self._heard[workspace] = (link.hello.epoch, event.seq)

    def _pass_on(self, workspace: str, event: Event) -> None:
        self._tell(lambda follower: follower.told(workspace, event))

    def _tell(self, what: Callable[[WorkerFollower], None]) -> None:
        for follower in self._followers:
            try:
                what(follower)
            except Exception:
                # What one feature makes of one workspace's worker must not end the others.
                log.exception("%s failed at what a worker told", type(follower).__name__)

    async def _give_secret(self, workspace: str) -> None:
        try:
            await self._renew_secret(workspace)
        except PerryError as exc:
            log.warning("the worker of %s could not be given its secret: %s", workspace, exc.message)

    def _note(self, workspace: str, place: Place, error: str) -> None:
        if place.error != error:
            log.warning("the worker of %s: %s", workspace, error)
            place.error = error
            self._announce(workspace, place)

    def _announce(self, workspace: str, place: Place) -> None:
        place.news.set()
        place.news = anyio.Event()
        if self._places.get(workspace) is place:
            self._changed(workspace)


async def _end_with(enough: anyio.Event, scope: anyio.CancelScope) -> None:
    await enough.wait()
    scope.cancel()
