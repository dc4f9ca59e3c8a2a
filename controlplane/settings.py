"""Every setting, its default, and where its value came from: ``config.json``, then ``PERRY_*``, the later wins.

The struct is the list: help, documentation and validation follow from it. Nobody else reads the environment.
A name on the file's path ``ssh.bind`` is ``PERRY_SSH_BIND`` in the environment. Files of the original Perry load:
its keys that have no meaning here any more are accepted and listed as ignored.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from controlplane.errors import SettingsError
from controlplane.hook_settings import HookSettings
from controlplane.personal_settings import (
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
from controlplane.section import Section
from protocol.folders import config_folder as config_folder

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


class Loaded(msgspec.Struct, frozen=True):
    """Settings, the folder that they came from, and each one's source (``default``, ``file`` or a variable's name)."""

    settings: Settings
    folder: Path
    sources: Mapping[str, str]
    ignored: tuple[str, ...] = ()


ORIGINAL_KEYS = frozenset({"allowHostAccess", "tailscale", "terminal"})
"""Keys of the original's file whose features have not come here yet: they load, and are named as ignored."""


def leaves(
    kind: type[msgspec.Struct] = Settings, prefix: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every setting as its path in the file (camelCase) and its type."""
    for field in msgspec.structs.fields(kind):
        path = (*prefix, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from leaves(field.type, path)
        else:
            yield path, field.type


def variable(path: tuple[str, ...]) -> str:
    """The environment variable of a setting: ``('ssh', 'firstPort')`` is ``PERRY_SSH_FIRST_PORT``."""
    words = "_".join("".join("_" + c if c.isupper() else c for c in part) for part in path)
    return "PERRY_" + words.upper()


NOT_SETTINGS = frozenset({"PERRY_CONFIG_DIR", "PERRY_TOKEN", "PERRY_URL"})
"""Variables of the same family that are read elsewhere."""


def load(folder: Path, environ: Mapping[str, str]) -> Loaded:
    """Read the settings. SettingsError names the key or variable that is wrong."""
    file = folder / "config.json"
    raw = _read(file)
    ignored = tuple(key for key in raw if key in ORIGINAL_KEYS)
    raw = {key: value for key, value in raw.items() if key not in ORIGINAL_KEYS}
    sources: dict[str, str] = {}
    known = {variable(path): (path, kind) for path, kind in leaves()}
    for path, _ in leaves():
        sources[".".join(path)] = "file" if _has(raw, path) else "default"
    for name, value in environ.items():
        if not name.startswith("PERRY_") or name in NOT_SETTINGS:
            continue
        if name not in known:
            raise SettingsError(f"The variable {name} is no setting of Perry; unset it or mend its name.")
        path, kind = known[name]
        _put(raw, path, parsed(value, kind))
        sources[".".join(path)] = name
    try:
        settings = msgspec.convert(raw, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"A setting is wrong: {exc}; mend it in {file} or in the PERRY_* variables.") from exc
    return Loaded(settings, folder, sources, ignored)


def checked(text: str) -> Settings:
    """The settings of a file with this text and nothing else. SettingsError names the key that is wrong."""
    try:
        raw = {key: value for key, value in json.loads(text).items() if key not in ORIGINAL_KEYS}
        return msgspec.convert(raw, Settings, strict=False)
    except (json.JSONDecodeError, AttributeError, msgspec.ValidationError) as exc:
        raise SettingsError(f"It would not load: {exc}.") from exc


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{file} cannot be read ({exc}); mend its permissions or content.") from exc
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as exc:
        raise SettingsError(f"{file} is no JSON: {exc}; mend that line.") from exc
    if not isinstance(raw, dict):
        raise SettingsError(f"{file} must hold a JSON object; mend it.")
    return raw


def parsed(value: str, kind: Any) -> Any:
    """A value as it is spelt in a variable, for the file."""
    if get_origin(kind) is Mapping or value.startswith(("{", "[{")):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    is_list = get_origin(kind) is tuple or (get_origin(kind) is Annotated and get_origin(get_args(kind)[0]) is tuple)
    return [part.strip() for part in value.split(",") if part.strip()] if is_list else value


def _has(raw: Any, path: tuple[str, ...]) -> bool:
    for part in path:
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def _put(raw: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        below = raw.setdefault(part, {})
        if not isinstance(below, dict):
            raise SettingsError(f"{part} in config.json must be an object; mend it.")
        raw = below
    raw[path[-1]] = value
