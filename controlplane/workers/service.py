"""The use cases of workers: the right one in each workspace, its secret, and how it stands."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from controlplane.errors import StepFailed, TookTooLong
from controlplane.ports import ContainerState, Engine, File, WorkerFollower, WorkerLink, Workers
from controlplane.workers.delivery import WORKER_LABEL, Delivery
from controlplane.workers.fleet import Fleet, Place
from controlplane.workers.secrets import WorkerSecrets
from protocol.worker import SECRET_FILE
from protocol.workspaces import WorkerState, Workspace, WorkspaceStatus, WorkspaceWorker

log = logging.getLogger(__name__)

COMES_UP_SECONDS = 15.0
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
    ) -> None:
        """``address`` is a workspace's pod's, ``container`` the name of its container."""
        self._engine = engine
        self._secrets = secrets
        self._delivery = delivery
        self._container = container
        self._wanted: str | None = None
        self.fleet = Fleet(workers, secret=secrets.of, address=address, renew_secret=self._put_secret, changed=changed)

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
        content = self._secrets.of(workspace).encode()
        return [File(path=SECRET_FILE, content=content, mode=0o400, uid=USER_ID, gid=USER_ID)]

    async def attend(self, workspace: str, container: ContainerState, address: str | None) -> str | None:
        self.fleet.follow(workspace, address)
        await self.learn_version()
        wanted, has = self._wanted, container.labels.get(WORKER_LABEL)
        if wanted is None and has is None:
            raise StepFailed("There is no image perry/worker to take it from; `perry agent build` makes it.")
        if has is None and wanted is not None:
            # Unless it was brought before: then it is coming up, and says so.
            if await self._connected(workspace, 1.0) is None:
                await self._deliver(workspace, container.id, wanted)
        elif has != wanted or self._outdated(workspace):
            place = await self._connected(workspace, 3.0)
            if wanted is not None and (place is None or place.version != wanted):
                await self._deliver(workspace, container.id, wanted)
        if await self._connected(workspace, COMES_UP_SECONDS) is None:
            place = self.fleet.place(workspace)
            why = (place.error if place else None) or f"It did not answer within {COMES_UP_SECONDS:g} s."
            raise TookTooLong(
                f"{workspace!r} runs, but its worker is not heard: {why.rstrip('.')}; `perry logs {workspace}` may say "
                f"more, and `perry sync {workspace}` brings it anew."
            )
        return f"version {self._version_of(workspace)}"

    # --- when somebody asks

    async def renew(self, workspace: str, container: str) -> bool:
        """Bring the right version into a workspace that runs; whether it had to be."""
        await self.learn_version()
        wanted = self._wanted
        if wanted is None:
            return False
        self.fleet.follow(workspace)
        place = await self._connected(workspace, 2.0)
        if place is not None and place.version == wanted:
            return False
        await self._put_secret(workspace)
        await self._deliver(workspace, container, wanted)
        if await self._connected(workspace, COMES_UP_SECONDS) is None:
            raise TookTooLong(
                f"The new worker of {workspace!r} does not answer yet; `perry logs {workspace}` may say why."
            )
        return True

    def shown(self, workspace: str) -> WorkspaceWorker | None:
        place = self.fleet.place(workspace)
        if place is None:
            return None
        state = WorkerState.CONNECTED if place.link else WorkerState.FAILED if place.error else WorkerState.CONNECTING
        return WorkspaceWorker(
            state=state,
            version=place.version,
            outdated=self._outdated(workspace) or None,
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

    async def _deliver(self, workspace: str, container: str, version: str) -> None:
        log.info("bringing worker %s into %s", version, workspace)
        await self._delivery.deliver(container, version)
        self.fleet.dial_now(workspace)
        await self.fleet.wait(workspace, lambda place: place.link is not None and place.version == version, 10)

    async def _connected(self, workspace: str, seconds: float) -> Place | None:
        heard = await self.fleet.wait(workspace, lambda place: place.link is not None, seconds)
        return self.fleet.place(workspace) if heard else None

    def _version_of(self, workspace: str) -> str | None:
        place = self.fleet.place(workspace)
        return place.version if place else None

    def _outdated(self, workspace: str) -> bool:
        version = self._version_of(workspace)
        return version is not None and self._wanted is not None and version != self._wanted

    async def _put_secret(self, workspace: str) -> None:
        await self._engine.put_files(self._container(workspace), self.files(workspace))
