"""The use cases of workspaces in memory, for what stands in front of them."""

from collections.abc import Sequence

import msgspec

from controlplane.errors import Conflict, NotFound, NotReady, PerryError
from controlplane.events.bus import Bus
from controlplane.workspaces.routes import Workspaces
from protocol.workspaces import (
    CloneWorkspace,
    DeleteWorkspace,
    ExecCommand,
    ExecResult,
    Limits,
    ListeningPort,
    ListeningPorts,
    LogLine,
    LogLines,
    StartWorkspace,
    TailnetState,
    UnsavedWork,
    Workspace,
    WorkspaceLogs,
    WorkspacePorts,
    WorkspaceStatus,
    WorkspaceTailnet,
)
from tests.fakes.engine import FakeEngine


def workspace(name: str, *, status: WorkspaceStatus = WorkspaceStatus.RUNNING, memory: int = 1 << 30) -> Workspace:
    """A workspace as the real thing would show it."""
    return Workspace(
        name=name,
        status=status,
        created="2026-01-01T00:00:00Z",
        ports=WorkspacePorts(ssh=22001),
        image="perry/workspace-base:latest",
        docker=True,
        limits=Limits(cpus=1.5, memory=memory, pids=8192),
        tailnet=WorkspaceTailnet(status=TailnetState.ONLINE, hostname=name, ips=["100.64.0.1"]),
        ssh_host_keys=["ssh-ed25519 AAAA"],
    )


class FakeWorkspaces:
    """Everything succeeds at once and is told on ``bus``. ``fail`` is raised by the next call; ``asked`` are inputs."""

    def __init__(self, bus: Bus) -> None:
        self.fail: Exception | None = None
        self.asked: list[object] = []
        self.engine: FakeEngine | None = None
        """Has the containers, where there are any."""
        self._bus = bus
        self._all: dict[str, Workspace] = {}
        self._made_for: dict[str, str] = {}

    def put(self, changed: Workspace) -> None:
        """A workspace appears or changes."""
        self._all[changed.name] = changed
        self._bus.workspace_changed(changed)

    def last_seen(self) -> Sequence[Workspace]:
        return list(self._all.values())

    async def list(self) -> list[Workspace]:
        self._called(None)
        return list(self._all.values())

    async def get(self, name: str) -> Workspace:
        self._called(name)
        return self._existing(name)

    async def create(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        if wanted.name in self._all:
            raise Conflict(f"A workspace named {wanted.name!r} exists already; `perry start {wanted.name}` starts it.")
        return await self.start(wanted, made_for=made_for)

    async def start(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        self._called(wanted)
        if made_for is not None:
            self._made_for[wanted.name] = made_for
        self.put(workspace(wanted.name, memory=wanted.memory or 1 << 30))
        return self._all[wanted.name]

    async def clone(self, wanted: CloneWorkspace) -> Workspace:
        self._called(wanted)
        self._existing(wanted.name)
        if wanted.new in self._all:
            raise Conflict(f"A workspace named {wanted.new!r} exists already; choose another name for the copy.")
        self.put(workspace(wanted.new))
        return self._existing(wanted.new)

    async def stop(self, name: str) -> Workspace:
        self._called(name)
        self.put(msgspec.structs.replace(self._existing(name), status=WorkspaceStatus.STOPPED))
        return self._all[name]

    async def restart(self, name: str) -> Workspace:
        self._called(name)
        self.put(msgspec.structs.replace(self._existing(name), status=WorkspaceStatus.RUNNING))
        return self._all[name]

    async def delete(self, wanted: DeleteWorkspace) -> None:
        self._called(wanted)
        self._existing(wanted.name)
        if not wanted.force:
            raise Conflict(
                f"{wanted.name!r} has work that would be lost; save it, or delete with --force.",
                data=UnsavedWork(uncommitted=["?? new.py"], unpushed=[]),
            )
        del self._all[wanted.name]
        self._bus.workspace_deleted(wanted.name)

    async def exec(self, wanted: ExecCommand) -> ExecResult:
        self._called(wanted)
        self._existing(wanted.name)
        return ExecResult(exit_code=0, stdout=" ".join(wanted.command), stderr="", truncated=False)

    async def ports(self, name: str) -> ListeningPorts:
        self._existing(name)
        return ListeningPorts(
            items=[ListeningPort(port=3000, protocol="tcp", address="0.0.0.0", loopback=False, process="node")]
        )

    def log_sources(self, name: str) -> dict[str, str]:
        return {"workspace": name}

    def must_exist(self, name: str) -> None:
        self._existing(name)

    def is_stopped(self, name: str) -> bool:
        return name in self._all and self._all[name].status is WorkspaceStatus.STOPPED

    def made_for(self, name: str) -> str | None:
        return self._made_for.get(self._existing(name).name)

    def is_wanted(self, name: str) -> bool:
        return name in self._all

    async def container(self, name: str) -> str:
        """A container of the same name; commands in it are the fake engine's business."""
        if self._existing(name).status is not WorkspaceStatus.RUNNING:
            raise NotReady(f"{name!r} does not run; `perry start {name}` starts it.")
        return name

    async def logs(self, wanted: WorkspaceLogs) -> LogLines:
        self._called(wanted)
        self._existing(wanted.name)
        if self.engine is not None and wanted.name in self.engine.by_name:
            entries = await self.engine.logs(wanted.name, tail=wanted.tail, since=wanted.since)
            return LogLines(items=[LogLine(at=entry.at, source="workspace", text=entry.text) for entry in entries])
        return LogLines(items=[LogLine(at="2026-01-01T00:00:00Z", source="workspace", text="hello")])

    def _called(self, wanted: object) -> None:
        self.asked.append(wanted)
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure

    def _existing(self, name: str) -> Workspace:
        try:
            return self._all[name]
        except KeyError:
            error: PerryError = NotFound(
                f"There is no workspace named {name!r}; `perry list` shows those that there are."
            )
            raise error from None


def _typed(fake: FakeWorkspaces) -> Workspaces:
    return fake
