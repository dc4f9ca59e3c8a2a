"""Every setting and its default. The struct is the list: help, documentation and validation follow from it."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from controlplane.settings.hooks import HookSettings
from controlplane.settings.personal import (
    AgentSettings,
    CredentialSettings,
    DotfilesSettings,
    GithubSettings,
    GitSettings,
    KeySettings,
    McpServer,
    ScriptSettings,
    Skill,
)
from controlplane.settings.section import Section

GIB = 1024**3

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class SshSettings(Section, frozen=True):
    """ssh on the agent machine, for devices without the tailnet."""

    bind: str = "127.0.0.1"
    """Address that the workspaces' ssh ports are published on."""
    first_port: Port = 22001
    """The first port tried for a workspace's ssh."""
    authorized_keys: tuple[str, ...] = ()
    """Public keys, or paths of files with them, that may log in to every workspace."""
    forward_agent: bool = False
    """Have `perry ssh` on this machine forward its ssh agent, as with `-A`; `--no-forward-agent` does without."""
    known_hosts: tuple[str, ...] = ()
    """Lines of ``known_hosts`` for git servers that the image does not know."""
    auto_authorize_host_keys: bool = False
    """Authorise this machine's user: the public keys in its ``~/.ssh``."""
    all: KeySettings = msgspec.field(default=KeySettings(), name="global")
    """Keys for every workspace."""
    workspaces: Mapping[str, KeySettings] = {}
    """Keys for single workspaces, by name: ``copy`` and ``authorize`` as in ``ssh.global``."""


class NetworkSettings(Section, frozen=True):
    """Bridges of the workspaces."""

    pool: str = "10.111.0.0/16"
    """Each workspace gets a /28 of it."""
    dns: tuple[str, ...] = ()
    """Name servers for public names; this machine's own where empty."""


class TailnetSettings(Section, frozen=True):
    """Which tailnet the workspaces join."""

    provider: Literal["embedded", "tailscale", "headscale", "none"] = "embedded"
    """``embedded`` brings a coordinator of its own; ``tailscale`` and ``headscale`` are yours; ``none`` has none."""
    credential_file: str = ""
    """File, for its owner alone, with an OAuth client's secret, an API key or an auth key of your own tailnet."""
    url: Annotated[str, msgspec.Meta(pattern=r"^(https?://[^/\s]+/?)?$")] = ""
    """Address of your headscale, as devices are told it."""
    address: str = ""
    """Address of this machine that devices reach the embedded coordinator at; found where empty."""
    port: Port = 7390
    """TCP port of the embedded coordinator."""
    domain: str = "perry.internal"
    """DNS suffix of the embedded tailnet."""


class AuthSettings(Section, frozen=True):
    """Who may use the control plane and log in to workspaces."""

    owners: tuple[str, ...] = ()
    """Log-in names on the tailnet. Where empty, the embedded tailnet's own user; on your own tailnet, nobody."""
    allowed_hosts: tuple[str, ...] = ()
    """More names that a request may carry in ``Host``, besides this machine's loopback names and ``perry``."""


class UploadSettings(Section, frozen=True):
    """Bodies that clients send ahead, as for ``perry start --clone <path>``."""

    limit: Annotated[int, msgspec.Meta(ge=1)] = 2 * GIB
    """The most bytes that one upload may have."""


class WorkspaceSettings(Section, frozen=True):
    """What a workspace gets when ``perry start`` does not say."""

    image: str = "perry/workspace-base:latest"
    """The image of a workspace."""
    docker: bool = True
    """Docker inside. Convenient, and no boundary: only workspaces without it are one."""
    cpus: Annotated[float, msgspec.Meta(ge=0)] = 0
    """CPUs; 0 is all but a tenth of the machine's."""
    memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Bytes; 0 is three quarters of the machine's."""
    pids: Annotated[int, msgspec.Meta(ge=32)] = 8192
    """Processes and threads."""


class TaskSettings(Section, frozen=True):
    """Tasks that are dispatched to coding agents."""

    parallel: Annotated[int, msgspec.Meta(ge=1)] = 50
    """How many may be at work at once; the others wait for their turn."""
    per_workspace: Annotated[int, msgspec.Meta(ge=1)] = 5
    """How many of them in one workspace."""
    fallback: Annotated[float, msgspec.Meta(ge=0)] = 1200
    """After how many seconds, and every so many, Perry looks for itself where nobody told of an end; 0 never does."""
    stall: Annotated[float, msgspec.Meta(ge=10)] = 600
    """For how many seconds nothing has to move in a task before it has stalled."""
    keep_days: Annotated[int, msgspec.Meta(ge=30, le=36500)] = 90
    """For how many days tasks and batches are listed after their end, 30 at least; what goes on stays anyway."""


class WakeSettings(Section, frozen=True):
    """What wakes whoever waits, besides tasks."""

    sessions: bool = False
    """Wake also when a coding agent that a person works with by hand has done what it was asked, or asks something."""


class Settings(Section, frozen=True):
    """The root of ``config.json``."""

    host: str = "127.0.0.1"
    """Address that the control plane listens on."""
    port: Port = 7391
    """TCP port of the control plane."""
    instance: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,30}$")] = "perry"
    """Tells the Docker objects of several control planes on one machine apart."""
    workspace_prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,30}$")] = "workspace-"
    """What the names of a workspace's containers and volumes start with."""
    image_tag: str = "latest"
    """Tag of Perry's own images."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    ssh: SshSettings = SshSettings()
    network: NetworkSettings = NetworkSettings()
    tailnet: TailnetSettings = TailnetSettings()
    auth: AuthSettings = AuthSettings()
    uploads: UploadSettings = UploadSettings()
    workspaces: WorkspaceSettings = WorkspaceSettings()
    credentials: CredentialSettings = CredentialSettings()
    git: GitSettings = GitSettings()
    github: GithubSettings = GithubSettings()
    scripts: ScriptSettings = ScriptSettings()
    dotfiles: DotfilesSettings = DotfilesSettings()
    agents: AgentSettings = AgentSettings()
    hooks: HookSettings = HookSettings()
    tasks: TaskSettings = TaskSettings()
    wake: WakeSettings = WakeSettings()
    mcp_servers: tuple[McpServer, ...] = ()
    """MCP servers for all coding agents: ``name``, and ``command``, ``args``, ``env`` or ``url``, ``headers``."""
    skills: tuple[str | Skill, ...] = ()
    """Skills for all coding agents: folders of this machine with a SKILL.md, or the original's definitions."""
