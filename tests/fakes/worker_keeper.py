"""A keeper of workers that has nothing to do, unless a test says otherwise."""

from collections.abc import Sequence

import anyio

from controlplane.errors import PerryError
from controlplane.ports import ContainerState, File, WorkerKeeper
from protocol.worker import SECRET_FILE
from protocol.workspaces import WorkspaceWorker


class FakeWorkerKeeper:
    """``attended`` has whom it was asked to look after, with the pod's address; ``failing`` makes it fail."""

    def __init__(self) -> None:
        self.attended: list[tuple[str, str | None]] = []
        self.failing: PerryError | None = None
        self.workers: dict[str, WorkspaceWorker] = {}
        self.renewed: str | None = None
        """The version that is brought by ``renew``."""
        self.asked_to_renew: list[str] = []

    def files(self, workspace: str) -> Sequence[File]:
        return [File(path=SECRET_FILE, content=f"secret of {workspace}".encode(), mode=0o400, uid=1000, gid=1000)]

    async def attend(
        self, workspace: str, container: ContainerState, address: str | None, enough: anyio.Event
    ) -> str | None:
        self.attended.append((workspace, address))
        if self.failing is not None:
            raise self.failing
        return None

    async def renew(self, workspace: str, container: str) -> str | None:
        self.asked_to_renew.append(workspace)
        if self.failing is not None:
            raise self.failing
        return self.renewed

    def shown(self, workspace: str) -> WorkspaceWorker | None:
        return self.workers.get(workspace)


_typed: type[WorkerKeeper] = FakeWorkerKeeper
