"""THE STATE MACHINE. Pure: what was asked for and what exists, in; what to do and what to show, out.

             start                       stop
(none) ──────────────► creating ──► running ⇄ stopped        error from anywhere a start fails,
                                                              delete from anywhere, to (none)
"""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec

from controlplane.ports import ContainerState, Role
from protocol.workspaces import Startup, StartupState, Step, StepStatus, WorkspaceStatus


class Desired(StrEnum):
    """What the owner asked for last."""

    RUNNING = "running"
    STOPPED = "stopped"
    DELETED = "deleted"


class Action(StrEnum):
    """What the reconciler has to do with a workspace."""

    NOTHING = "nothing"
    START = "start"
    STOP = "stop"
    DELETE = "delete"


class Pod(msgspec.Struct, frozen=True, kw_only=True):
    """The containers of one workspace that exist."""

    sandbox: ContainerState | None = None
    tailnet: ContainerState | None = None
    workspace: ContainerState | None = None

    @property
    def running(self) -> bool:
        """All three run."""
        return all(container is not None and container.running for container in self.members)

    @property
    def members(self) -> tuple[ContainerState | None, ...]:
        return (self.sandbox, self.tailnet, self.workspace)

    @property
    def any_running(self) -> bool:
        return any(container is not None and container.running for container in self.members)


def pod_of(containers: Sequence[ContainerState]) -> Pod:
    """A pod from the containers that carry its name as label."""
    by_role = {container.labels.get("perry.role"): container for container in containers}
    return Pod(
        sandbox=by_role.get(Role.SANDBOX), tailnet=by_role.get(Role.TAILNET), workspace=by_role.get(Role.WORKSPACE)
    )


def in_dead_namespace(joined: ContainerState | None, sandbox: ContainerState | None) -> bool:
    """Whether a running container is left in a namespace that its sandbox no longer has.

    A sandbox that starts again makes a new namespace; what had joined the old one keeps that, with nothing but ``lo``.
    """
    if joined is None or not joined.running:
        return False
    if sandbox is None or not sandbox.running or joined.network_of != sandbox.id:
        return True
    return _before(joined.started, sandbox.started)


def _before(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and one < other


def needed(desired: Desired, pod: Pod, startup: Startup | None) -> Action:
    """What brings the pod to what was asked for. ``pod`` has start times (from ``inspect``) where it runs."""
    if desired is Desired.DELETED:
        return Action.DELETE
    if desired is Desired.STOPPED:
        return Action.STOP if pod.any_running else Action.NOTHING
    interrupted = startup is not None and startup.state is StartupState.RUNNING
    dead = in_dead_namespace(pod.tailnet, pod.sandbox) or in_dead_namespace(pod.workspace, pod.sandbox)
    return Action.NOTHING if pod.running and not dead and not interrupted else Action.START


def status(desired: Desired, pod: Pod, startup: Startup | None, error: str | None) -> WorkspaceStatus:
    """What its owner sees. ``error`` is the record's: the reason why it does not run as asked."""
    starting = startup is not None and startup.state is StartupState.RUNNING
    if desired is Desired.STOPPED:
        return WorkspaceStatus.STOPPED
    if starting and (startup is None or startup.attempt == 1):
        return WorkspaceStatus.CREATING
    runs = pod.workspace is not None and pod.workspace.running
    if runs:
        return WorkspaceStatus.RUNNING
    if starting:
        return WorkspaceStatus.CREATING
    return WorkspaceStatus.ERROR if error else WorkspaceStatus.STOPPED


# --- steps of a start


class StepId(StrEnum):
    """The steps of a start, in their order."""

    RESERVE = "reserve"
    COPY = "copy"
    KEY = "key"
    CREATE = "create"
    BORDER = "border"
    WORKSPACE = "workspace"
    SSH = "ssh"
    CREDENTIALS = "credentials"
    CLONE = "clone"
    SCRIPTS = "scripts"
    WORKER = "worker"
    TAILNET = "tailnet"


TITLES = {
    StepId.RESERVE: "Reserve the name and an ssh port",
    StepId.COPY: "Copy the other workspace",
    StepId.KEY: "Ask the tailnet for a one-time key",
    StepId.CREATE: "Create network, volumes and containers",
    StepId.BORDER: "Put up the border around its network",
    StepId.WORKSPACE: "Start the workspace and its sidecar",
    StepId.SSH: "Wait until ssh answers",
    StepId.CREDENTIALS: "Bring credentials and settings",
    StepId.CLONE: "Clone the repository",
    StepId.SCRIPTS: "Run dotfiles and scripts",
    StepId.WORKER: "Start the worker",
    StepId.TAILNET: "Wait until the tailnet knows its name",
}


def begun(previous: Startup | None, *, copies: bool = False) -> Startup:
    """A new start, all of its steps pending. Only one that ``copies`` another workspace has that step."""
    wanted = [step for step in StepId if copies or step is not StepId.COPY]
    steps = [Step(id=step, title=TITLES[step], status=StepStatus.PENDING) for step in wanted]
    return Startup(attempt=1 if previous is None else previous.attempt + 1, state=StartupState.RUNNING, steps=steps)


def with_step(startup: Startup, step: StepId, status: StepStatus, detail: str | None, seconds: float | None) -> Startup:
    """The start with one step changed."""
    steps = [
        msgspec.structs.replace(each, status=status, detail=detail, seconds=seconds) if each.id == step else each
        for each in startup.steps
    ]
    return msgspec.structs.replace(startup, steps=steps)


def ended(startup: Startup, *, failed: bool) -> Startup:
    """The start at its end. What was never reached, or broken off, is skipped."""
    steps = [
        msgspec.structs.replace(step, status=StepStatus.SKIPPED)
        if step.status in (StepStatus.PENDING, StepStatus.RUNNING)
        else step
        for step in startup.steps
    ]
    outcome = StartupState.FAILED if failed else StartupState.SUCCEEDED
    return msgspec.structs.replace(startup, steps=steps, state=outcome)
