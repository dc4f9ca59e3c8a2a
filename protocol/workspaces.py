"""Workspaces: what a client asks for and what it is told."""

from typing import Annotated, Final

import msgspec

from protocol.wire import WORKSPACE_NAME, Told, Wire

WorkspaceName = Annotated[str, msgspec.Meta(pattern=WORKSPACE_NAME, max_length=63)]

UPLOADED: Final = "upload:"
"""How a repository is spelt that was sent ahead, to ``PUT /uploads/<id>``; its id follows."""


class WorkspaceStatus(Told):
    """The state of a workspace, as its owner sees it."""

    RUNNING = "running"
    STOPPED = "stopped"
    CREATING = "creating"
    ERROR = "error"


class StepStatus(Told):
    """How far one step of a start has come."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


class Step(Wire, frozen=True):
    """One step of a start. ``detail`` is progress while it runs, and the reason where it failed or was skipped."""

    id: str
    title: str
    status: StepStatus
    detail: str | None = None
    seconds: float | None = None


class StartupState(Told):
    """Whether a start is under way, and how the last one ended."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Startup(Wire, frozen=True):
    """The latest start of a workspace, step by step. ``attempt`` grows by one with each start."""

    attempt: int
    state: StartupState
    steps: list[Step]


class Work(Wire, frozen=True):
    """What is done to a workspace besides a start, step by step. ``kind`` is ``stop``, ``restart`` or ``delete``."""

    kind: str
    steps: list[Step]


class WorkspacePorts(Wire, frozen=True):
    """Ports on the agent machine."""

    ssh: int


class TailnetState(Told):
    """What the tailnet knows of a workspace."""

    ONLINE = "online"
    JOINING = "joining"
    OFFLINE = "offline"
    FAILED = "failed"
    NONE = "none"


class WorkspaceTailnet(Wire, frozen=True):
    """A workspace's place on the tailnet. ``error`` is a sentence that says what to do."""

    status: TailnetState
    hostname: str
    ips: list[str]
    dns_name: str | None = None
    error: str | None = None


class WorkerState(Told):
    """Whether the control plane hears a workspace's worker."""

    CONNECTED = "connected"
    CONNECTING = "connecting"
    FAILED = "failed"


class WorkspaceWorker(Wire, frozen=True):
    """The worker in a workspace, which tells what its coding agents do. Absent where the workspace does not run.

    ``outdated`` is whether ``perry sync`` would bring another version; it works until then. ``error`` is a sentence.
    """

    state: WorkerState
    version: str | None = None
    outdated: bool | None = None
    error: str | None = None


class Limits(Wire, frozen=True):
    """What a workspace may use: CPUs (1.5 is one and a half), memory in bytes, processes and threads."""

    cpus: float
    memory: int
    pids: int


class Workspace(Wire, frozen=True):
    """A workspace.

    ``created`` is an RFC 3339 time in UTC; ``ssh_host_keys`` are lines as in ``ssh_known_hosts``, without the host.
    """

    name: str
    status: WorkspaceStatus
    created: str
    ports: WorkspacePorts
    image: str
    docker: bool
    limits: Limits
    tailnet: WorkspaceTailnet
    ssh_host_keys: list[str]
    container_id: str | None = None
    repo: str | None = None
    branch: str | None = None
    startup: Startup | None = None
    error: str | None = None
    deleting: bool | None = None
    work: Work | None = None
    worker: WorkspaceWorker | None = None


class WorkspaceRef(Wire, frozen=True):
    """Names one workspace."""

    name: WorkspaceName


class StartWorkspace(Wire, frozen=True):
    """Input of ``workspaces.start`` and ``workspaces.create``.

    ``clone`` is a URL, or ``upload:<id>`` for a git bundle that was sent to ``PUT /uploads/<id>`` before; ``origin`` is
    then the URL that the clone's remote gets. ``new_branch`` is the branch to work on, made where the repository has
    none of that name. ``no_clone`` takes back a repository that has not come yet. What is absent keeps its value of
    before, or gets the configured default. ``memory`` is bytes. ``wait`` false returns at once, with the start going
    on.
    """

    name: WorkspaceName
    clone: str | None = None
    origin: str | None = None
    branch: str | None = None
    new_branch: str | None = None
    image: str | None = None
    docker: bool | None = None
    cpus: Annotated[float, msgspec.Meta(gt=0)] | None = None
    memory: Annotated[int, msgspec.Meta(ge=64 * 1024 * 1024)] | None = None
    pids: Annotated[int, msgspec.Meta(ge=32)] | None = None
    wait: bool = True
    no_clone: bool = False


class CloneWorkspace(Wire, frozen=True):
    """Input of ``workspaces.clone``: a copy of the workspace ``name``, to be called ``new``.

    ``wait`` false returns at once, with the copying going on.
    """

    name: WorkspaceName
    new: WorkspaceName
    wait: bool = True


class StopWorkspace(Wire, frozen=True):
    """Input of ``workspaces.stop`` and ``workspaces.restart``."""

    name: WorkspaceName


class DeleteWorkspace(Wire, frozen=True):
    """Input of ``workspaces.delete``. Without ``force``, unsaved work is a CONFLICT with :class:`UnsavedWork`.

    ``keep_sessions``: what its coding agents' sessions said stays listed and readable.
    """

    name: WorkspaceName
    force: bool = False
    keep_sessions: bool = False


class UnsavedWork(Wire, frozen=True):
    """What would be lost with a workspace: lines of ``git status --short``, and of commits on no remote.

    ``unknown`` is a sentence when nobody could look (the workspace is stopped).
    """

    uncommitted: list[str]
    unpushed: list[str]
    unknown: str | None = None


class ExecCommand(Wire, frozen=True):
    """Input of ``workspaces.exec``: run as user ``workspace`` in the project folder, never through a shell of ours."""

    name: WorkspaceName
    command: Annotated[list[str], msgspec.Meta(min_length=1)]
    cwd: str | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 600


class ExecResult(Wire, frozen=True):
    """Output of ``workspaces.exec``. What was not UTF-8 is replaced; ``truncated`` says that output was cut."""

    exit_code: int
    stdout: str
    stderr: str
    truncated: bool


class WorkspaceLogs(Wire, frozen=True):
    """Input of ``workspaces.logs``: the newest ``tail`` lines of the workspace's container and its sidecar."""

    name: WorkspaceName
    tail: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 200
    since: str | None = None


class LogLine(Wire, frozen=True):
    """One log line. ``source`` is ``workspace`` or ``tailnet``; ``at`` an RFC 3339 time, which ``since`` takes back."""

    at: str
    source: str
    text: str


class LogLines(Wire, frozen=True):
    """Output of ``workspaces.logs``, oldest first."""

    items: list[LogLine]


class ListeningPort(Wire, frozen=True):
    """A port on which something in a workspace listens. ``loopback`` is what only the workspace itself reaches.

    ``protocol`` is ``tcp`` or ``udp``; ``process`` is absent where user ``workspace`` may not know it.
    """

    port: int
    protocol: str
    address: str
    loopback: bool
    process: str | None = None


class ListeningPorts(Wire, frozen=True):
    """Output of ``workspaces.ports``, by number."""

    items: list[ListeningPort]
