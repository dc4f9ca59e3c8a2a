"""The use cases of workers: the right one in each workspace, its secret, and how it stands."""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

import anyio

from controlplane.errors import EngineError, NotReady, StepFailed, TookTooLong
from controlplane.ports import ContainerState, Engine, File, WorkerFollower, WorkerLink, Workers
from controlplane.workers.delivery import WORKER_LABEL, Delivery
from controlplane.workers.fleet import Fleet, Place
from controlplane.workers.secrets import WorkerSecrets
from controlplane.workspaces.spec import OWN_FOLDER
from protocol.worker import SECRET_FILE
from protocol.workspaces import WorkerState, Workspace, WorkspaceStatus, WorkspaceWorker

log = logging.getLogger(__name__)

HELD_SECONDS = 5.0
"""The longest that a workspace's worker is left alone while the rest of its start goes on."""

CALM_SECONDS = 0.5
"""From the end of a start until its worker is dialled: whoever waited for it comes by ssh first."""

COMES_UP_SECONDS = 15.0
LOOK_SECONDS = 60.0
RENEWED_SECONDS = 5.0
"""Until a worker that was not heard a moment ago is brought anew: it may still load itself."""

OTHER_COMES_UP_SECONDS = 5.0
NONE_COMES_UP_SECONDS = 1.5
"""Where the image has another version, or none: what was brought into the container before is waited for."""

OPENCODE_FILE = f"{OWN_FOLDER}/opencode-password"
OPENCODE_KEEP_FILE = f"{OWN_FOLDER}/opencode-keep"

USER_ID = 1000
"""Of the user ``workspace``."""


class WorkerService:
    """The port :class:`~controlplane.ports.WorkerKeeper`, and who is told of workspaces."""

    def __init__(
        self,
        engine: Engine,
        *,
        workers: Workers,
        secrets: WorkerSecrets,
        delivery: Delivery,
        address: Callable[[str], Awaitable[str | None]],
        container: Callable[[str], str],
        changed: Callable[[str], None],
        keep_opencode: float | str,
    ) -> None:
        """``address`` is a workspace's pod's, ``container`` the name of its container. ``keep_opencode`` is how many
        seconds OpenCode's server stays in a workspace where nobody uses it, or ``always``."""
        self._engine = engine
        self._secrets = secrets
        self._delivery = delivery
        self._container = container
        self._changed = changed
        self._keep_opencode = keep_opencode
        self._wanted: str | None = None
        self.fleet = Fleet(workers, secret=secrets.of, address=address, renew_secret=self._put_secret, changed=changed)

    async def run(self) -> None:
        """Look now and then which version workspaces should have: images are built beside the control plane."""
        while True:
            before = self._wanted
            with contextlib.suppress(EngineError):
                await self.learn_version()
            if self._wanted != before:
                for name in self.fleet.followed:
                    self._changed(name)
            await anyio.sleep(LOOK_SECONDS)

    async def learn_version(self) -> None:
        """Look which version workspaces should have; EngineError where Docker does not say."""
        self._wanted = await self._delivery.version()

    def register(self, follower: WorkerFollower) -> None:
        self.fleet.register(follower)

    def link(self, workspace: str) -> WorkerLink:
        """The stream to its worker. WorkerUnavailable where none stands."""
        return self.fleet.link(workspace)

    # --- at a start

    def files(self, workspace: str) -> Sequence[File]:
        contents = {
            SECRET_FILE: self._secrets.of(workspace),
            OPENCODE_FILE: self._secrets.opencode(workspace),
            OPENCODE_KEEP_FILE: str(self._keep_opencode),
        }
        return [
            File(path=path, content=content.encode(), mode=0o400, uid=USER_ID, gid=USER_ID)
            for path, content in contents.items()
        ]

    def door_password(self, workspace: str) -> str:
        """What the workspace's sidecar is given, whose door to OpenCode says it."""
        return self._secrets.opencode(workspace)

    async def attend(
        self, workspace: str, container: ContainerState, address: str | None, enough: anyio.Event
    ) -> str | None:
        await self.learn_version()
        wanted, has = self._wanted, container.labels.get(WORKER_LABEL) or None
        if wanted is None and has is None:
            raise StepFailed("There is no image perry/worker to take it from; `perry agent build` makes it.")
        if wanted is None or has == wanted:
            # To be dialled has it load itself (worker/waiting.py), beside what somebody waits for.
            with anyio.move_on_after(HELD_SECONDS):
                await enough.wait()
        self.fleet.follow(workspace, address, calm=CALM_SECONDS if enough.is_set() else 0.0)
        if wanted is None or has == wanted:
            place = await self._connected(workspace, COMES_UP_SECONDS, enough)
            if place is None and enough.is_set():
                return "It is coming up."
        else:
            # The right one may have been brought before: then it says so as soon as it is up.
            place = await self._connected(workspace, OTHER_COMES_UP_SECONDS if has else NONE_COMES_UP_SECONDS)
        if wanted is not None and (place is None or place.version != wanted):
            place = await self._deliver(workspace, container.id, wanted)
        if place is None:
            raise TookTooLong(f"{workspace!r} runs, but its worker is not heard. {self._why_not(workspace)}")
        return None if place.version == wanted else "It is an older one; `perry sync` renews it."

    # --- when somebody asks

    async def renew(self, workspace: str, container: str) -> str | None:
        """Bring the right version into a workspace that runs; that version, None where it ran already."""
        await self.learn_version()
        wanted = self._wanted
        if wanted is None:
            raise NotReady("There is no image perry/worker to take the worker from; `perry agent build` makes it.")
        self.fleet.follow(workspace)
        if (place := self.fleet.place(workspace)) is not None and place.link is None:
            # After a start it is left alone for a moment.
            self.fleet.dial_now(workspace)
        place = await self._connected(workspace, RENEWED_SECONDS)
        if place is not None and place.version == wanted:
            return None
        await self._put_secret(workspace)
        place = await self._deliver(workspace, container, wanted)
        if place is None or place.version != wanted:
            raise TookTooLong(f"The new worker of {workspace!r} does not answer. {self._why_not(workspace)}")
        return wanted

    def shown(self, workspace: str) -> WorkspaceWorker | None:
        place = self.fleet.place(workspace)
        if place is None:
            return None
        state = WorkerState.CONNECTED if place.link else WorkerState.FAILED if place.error else WorkerState.CONNECTING
        return WorkspaceWorker(
            state=state,
            version=place.version,
            outdated=self._outdated(place) or None,
            error=place.error if place.link is None else None,
        )

    # --- what is told of workspaces (controlplane.workspaces.service.Announcer)

    def workspace_changed(self, workspace: Workspace) -> None:
        """Keep streams to those that run, and to no others. A start says by itself when its worker can be dialled."""
        if workspace.deleting or workspace.status in (WorkspaceStatus.STOPPED, WorkspaceStatus.ERROR):
            self.fleet.detach(workspace.name)
        elif workspace.status is WorkspaceStatus.RUNNING:
            self.fleet.follow(workspace.name)

    def workspace_deleted(self, name: str) -> None:
        self.fleet.forget(name)

    # --- inside

    async def _deliver(self, workspace: str, container: str, version: str) -> Place | None:
        log.info("bringing worker %s into %s", version, workspace)
        await self._delivery.deliver(container, version)
        self.fleet.dial_now(workspace)
        # The one before may be heard for a moment yet.
        heard = await self.fleet.wait(
            workspace, lambda place: place.link is not None and place.version == version, COMES_UP_SECONDS
        )
        return self.fleet.place(workspace) if heard else await self._connected(workspace, 0.1)

    async def _connected(self, workspace: str, seconds: float, enough: anyio.Event | None = None) -> Place | None:
        heard = await self.fleet.wait(workspace, lambda place: place.link is not None, seconds, enough)
        return self.fleet.place(workspace) if heard else None

    def _why_not(self, workspace: str) -> str:
        place = self.fleet.place(workspace)
        why = (place.error if place else None) or "It does not answer."
        return f"{why} `perry logs {workspace}` may say more, `perry sync {workspace}` brings it anew."

    def _outdated(self, place: Place) -> bool:
        return place.version is not None and self._wanted is not None and place.version != self._wanted

    async def _put_secret(self, workspace: str) -> None:
        await self._engine.put_files(self._container(workspace), self.files(workspace))
