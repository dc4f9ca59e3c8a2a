"""The procedures of workspaces, and the uploads that they take."""

from collections.abc import Sequence
from typing import Any, Protocol

from litestar import Request, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from controlplane.auth.guards import needs
from controlplane.auth.policy import Right
from controlplane.procedures import Group
from controlplane.workspaces.uploads import UploadFolder
from protocol.workspaces import (
    CloneWorkspace,
    DeleteWorkspace,
    ExecCommand,
    ExecResult,
    ListeningPorts,
    LogLines,
    StartWorkspace,
    StopWorkspace,
    Workspace,
    WorkspaceLogs,
    WorkspaceRef,
)


class Workspaces(Protocol):
    """The use cases that are served here; see :class:`controlplane.workspaces.service.Workspaces`."""

    async def list(self) -> list[Workspace]: ...

    async def get(self, name: str) -> Workspace: ...

    async def create(self, wanted: StartWorkspace) -> Workspace: ...

    async def start(self, wanted: StartWorkspace) -> Workspace: ...

    async def clone(self, wanted: CloneWorkspace) -> Workspace: ...

    async def stop(self, name: str) -> Workspace: ...

    async def restart(self, name: str) -> Workspace: ...

    async def delete(self, wanted: DeleteWorkspace) -> None: ...

    async def exec(self, wanted: ExecCommand) -> ExecResult: ...

    async def logs(self, wanted: WorkspaceLogs) -> LogLines: ...

    async def ports(self, name: str) -> ListeningPorts: ...

    def last_seen(self) -> Sequence[Workspace]: ...


group = Group("workspaces", Workspaces)  # type: ignore[type-abstract]  # a group only compares it


@group.procedure("list")
async def list_(workspaces: Workspaces) -> list[Workspace]:
    """Every workspace, by name."""
    return await workspaces.list()


@group.procedure("get")
async def get(workspaces: Workspaces, wanted: WorkspaceRef) -> Workspace:
    """One workspace. NOT_FOUND where there is none of that name."""
    return await workspaces.get(wanted.name)


@group.procedure("create")
async def create(workspaces: Workspaces, wanted: StartWorkspace) -> Workspace:
    """A new workspace. CONFLICT where one of that name exists."""
    return await workspaces.create(wanted)


@group.procedure("start")
async def start(workspaces: Workspaces, wanted: StartWorkspace) -> Workspace:
    """Create what is missing and start it; returns when it runs, unless `wait` is false."""
    return await workspaces.start(wanted)


@group.procedure("clone")
async def clone(workspaces: Workspaces, wanted: CloneWorkspace) -> Workspace:
    """A copy of a workspace, under another name; returns when it runs, unless `wait` is false. CONFLICT where the new
    name is taken."""
    return await workspaces.clone(wanted)


@group.procedure("stop")
async def stop(workspaces: Workspaces, wanted: StopWorkspace) -> Workspace:
    """Stop it; its files stay. Succeeds where it is stopped already."""
    return await workspaces.stop(wanted.name)


@group.procedure("restart")
async def restart(workspaces: Workspaces, wanted: StopWorkspace) -> Workspace:
    """Restart it under the same name, address and host key. Starts what is stopped."""
    return await workspaces.restart(wanted.name)


@group.procedure("delete")
async def delete(workspaces: Workspaces, wanted: DeleteWorkspace) -> None:
    """Delete it with all its files. CONFLICT with an UnsavedWork where work would be lost, unless `force` is true."""
    await workspaces.delete(wanted)


@group.procedure("exec")
async def exec_(workspaces: Workspaces, wanted: ExecCommand) -> ExecResult:
    """Run a command in it, as user `workspace`."""
    return await workspaces.exec(wanted)


@group.procedure("logs")
async def logs(workspaces: Workspaces, wanted: WorkspaceLogs) -> LogLines:
    """The newest lines of its log, oldest first."""
    return await workspaces.logs(wanted)


@group.procedure("ports")
async def ports(workspaces: Workspaces, wanted: WorkspaceRef) -> ListeningPorts:
    """What listens in it. PRECONDITION_FAILED where it does not run."""
    return await workspaces.ports(wanted.name)


def upload_route(uploads: UploadFolder) -> HTTPRouteHandler:
    """``PUT /uploads/<id>``: a body sent ahead, that ``workspaces.start`` then names as ``upload:<id>``."""

    @put(
        "/uploads/{upload_id:str}", name="uploads", opt=needs(Right.MANAGE), status_code=204, request_max_body_size=None
    )
    async def upload(request: Request[Any, Any, Any], upload_id: FromPath[str]) -> None:
        await uploads.receive(upload_id, request.stream(), request.content_length)

    return upload
