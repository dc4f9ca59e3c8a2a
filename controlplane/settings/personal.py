"""The sections of ``config.json`` for what a person's workspaces are given: credentials, identities, scripts.

A secret is best named, not written: ``{"secret": "name"}`` (see ``perry secrets``) or ``{"file": "~/path"}``.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from controlplane.settings.section import Section


class Reference(Section, frozen=True, omit_defaults=True):
    """A value that stands elsewhere: in a file of this machine, or among ``perry secrets``. One of the two."""

    file: str = ""
    secret: str = ""


Value = str | Reference
"""A value as it is, or where it stands."""


class CredentialSettings(Section, frozen=True):
    """What every workspace is given."""

    env: Mapping[str, Value] = {}
    """Variables of every session: a value, `{"secret": name}` or `{"file": path}`."""
    files: Mapping[str, str] = {}
    """Files and folders: where in the workspace's home, and where on this machine."""


class GitSettings(Section, frozen=True):
    """Who commits in a workspace. What a person sets there with `git config --global` wins."""

    name: str = ""
    """Author of commits; where empty, that of this machine's user."""
    email: str = ""
    """E-mail address of commits; where empty, that of this machine's user."""
    signing_key: Value = ""
    """What signs commits and tags, without a passphrase: a private ssh key, or an OpenPGP key as
    `gpg --armor --export-secret-keys` writes it. A path of this machine, or `{"secret": name}`."""


class GithubSettings(Section, frozen=True):
    """GitHub, for `gh` and for git over https."""

    token: Value = ""
    """A token: as it is, `{"secret": name}` or `{"file": path}`."""
    host: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?$")] = "github.com"
    """Its host, for an Enterprise server."""


class KeySettings(Section, frozen=True):
    """ssh keys of a workspace."""

    copy: tuple[str, ...] = ()
    """Private keys (paths of this machine) that are put into `~/.ssh`, with their public halves."""
    authorize: tuple[str, ...] = ()
    """Public keys, or paths of files with them, that may log in."""


class ScriptSettings(Section, frozen=True, rename=None):
    """Programs of one's own."""

    post_start: str | tuple[str, ...] = ()
    """Scripts of this machine that run in a workspace, as its user, after each start."""
    fail_on_error: bool = True
    """Whether a script that fails ends them, and fails the start."""
    timeout: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 300
    """Seconds that each may take."""


class DotfilesSettings(Section, frozen=True):
    """A repository with a person's settings."""

    repository: str = ""
    """Cloned to `~/.dotfiles`, once."""
    install: str = ""
    """Command that is run in it; where empty, its install.sh, bootstrap.sh or setup.sh."""


class CodingAgentSettings(Section, frozen=True):
    """One coding agent."""

    sync: bool = True
    """Bring this machine's log-in and settings of it into workspaces."""


class OpenCodeSettings(Section, frozen=True):
    """OpenCode."""

    sync: bool = True
    """Bring this machine's log-in and settings of it into workspaces."""
    zen_token: Value = msgspec.field(default="", name="zen_token")
    """The original's place for a key of OpenCode Zen; it is brought as a log-in of OpenCode."""
    keep_server: Annotated[float, msgspec.Meta(ge=0)] | Literal["always"] = 600
    """How many seconds OpenCode's server stays in a workspace where nobody uses it; `always` has it run always."""
    server: Mapping[str, Any] = {}
    """Of the original's file; it has no meaning here yet."""


class McpServer(Section, frozen=True, omit_defaults=True):
    """An MCP server for the coding agents."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    id: str = ""
    enabled: bool = True
    type: Literal["local", "remote"] = "local"
    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, Value] = {}
    url: str = ""
    headers: Mapping[str, Value] = {}
    oauth: Any = None


class Skill(Section, frozen=True, omit_defaults=True):
    """A skill for the coding agents, written out."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    skill_md: str
    name: str = ""
    description: str = ""
    enabled: bool = True
    applies_to: Literal["all"] | tuple[str, ...] = "all"


class OriginalGithub(Section, frozen=True):
    """Where the original's file has the token."""

    token: Value = ""
    """The original's place of `github.token`, which wins."""


class OriginalClaude(Section, frozen=True, rename=None):
    """Where an older file of the original has Claude Code's token."""

    oauth_token: Value = ""
    """The original's place of the variable `CLAUDE_CODE_OAUTH_TOKEN`."""
    model: str = ""
    """The original's place of the variable `ANTHROPIC_MODEL`."""


class AgentSettings(Section, frozen=True):
    """Which coding agents are brought along, and what all of them get."""

    claude: CodingAgentSettings = CodingAgentSettings()
    opencode: OpenCodeSettings = OpenCodeSettings()
    codex: CodingAgentSettings = CodingAgentSettings()
    gemini: CodingAgentSettings = CodingAgentSettings()
    github: OriginalGithub = OriginalGithub()
    claude_code: OriginalClaude = msgspec.field(default=OriginalClaude(), name="claude_code")


HIDDEN = "***"


def masked(key: str, value: Any) -> Any:
    """A setting's value (builtins) as it may be shown: without what could be a secret. References stay."""
    if key == "credentials.env":
        return _masked_values(value)
    if key == "git.signingKey" and "PRIVATE KEY" in str(value):
        return HIDDEN
    if key.endswith(("token", "_token")):
        return value if isinstance(value, dict) or not value else HIDDEN
    if key == "mcpServers":
        return [
            {name: _masked_values(part) if name in ("env", "headers") else part for name, part in server.items()}
            for server in value
        ]
    return value


def _masked_values(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, dict) else HIDDEN for name, value in values.items()}
