"""Where the coding agents keep log-ins, settings, MCP servers and skills, below the home of whoever runs them. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from controlplane.settings import Settings
from controlplane.settings.personal import McpServer, Skill, Value


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One file or folder. ``source`` and the rest are as in ``plan.Wish``."""

    path: str
    source: str | bytes
    setting: str
    merge: str = "file"
    required: bool = True
    keys: tuple[str, ...] = ()


CLAUDE_KEYS: Final = ("mcpServers", "hasCompletedOnboarding", "oauthAccount", "theme")
"""What of ``~/.claude.json`` is not about this machine."""

USUAL: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "claude": (
        (".claude/.credentials.json", "file"),
        (".claude/settings.json", "json"),
        (".claude.json", "json"),
        (".claude/CLAUDE.md", "file"),
        (".claude/skills", "file"),
        (".claude/commands", "file"),
        (".claude/agents", "file"),
    ),
    "opencode": (
        (".local/share/opencode/auth.json", "json"),
        (".config/opencode/opencode.json", "json"),
        (".config/opencode/opencode.jsonc", "file"),
        (".config/opencode/AGENTS.md", "file"),
        (".config/opencode/agent", "file"),
        (".config/opencode/command", "file"),
        (".config/opencode/skills", "file"),
    ),
    "codex": (
        (".codex/auth.json", "file"),
        (".codex/config.toml", "toml"),
        (".codex/AGENTS.md", "file"),
        (".codex/prompts", "file"),
        (".codex/skills", "file"),
    ),
    "gemini": (
        (".gemini/oauth_creds.json", "file"),
        (".gemini/.env", "file"),
        (".gemini/google_accounts.json", "file"),
        (".gemini/settings.json", "json"),
        (".gemini/GEMINI.md", "file"),
        (".gemini/commands", "file"),
        (".gemini/skills", "file"),
    ),
}
"""Not among them: sessions, caches, and OpenCode's plugins, which make it install packages at each start."""

SKILL_FOLDERS: Final = {
    "claude-code": ".claude/skills",
    "opencode": ".config/opencode/skills",
    "codex": ".codex/skills",
    "gemini": ".gemini/skills",
}


def wanted(settings: Settings, servers: Sequence[McpServer], zen_token: str) -> Iterator[Place]:
    """What the settings bring of them. ``servers`` have values in place of references."""
    agents = settings.agents
    for agent, on in (
        ("claude", agents.claude.sync),
        ("opencode", agents.opencode.sync),
        ("codex", agents.codex.sync),
        ("gemini", agents.gemini.sync),
    ):
        for path, merge in USUAL[agent] if on else ():
            keys = CLAUDE_KEYS if path == ".claude.json" else ()
            yield Place(
                path=path, source=f"~/{path}", setting=f"agents.{agent}", merge=merge, required=False, keys=keys
            )
    if zen_token:
        log_in = {"opencode": {"type": "api", "key": zen_token}}
        yield _json(".local/share/opencode/auth.json", log_in, "agents.opencode.zen_token")
    if servers:
        yield from _mcp(servers)
    for skill in settings.skills:
        yield from _skill(skill)


def _json(path: str, document: Any, setting: str) -> Place:
    return Place(path=path, source=json.dumps(document, ensure_ascii=False).encode(), setting=setting, merge="json")


def _mcp(servers: Sequence[McpServer]) -> Iterator[Place]:
    """The same servers, as each agent writes them."""
    claude: dict[str, Any] = {}
    opencode: dict[str, Any] = {}
    gemini: dict[str, Any] = {}
    codex: list[str] = []
    for server in servers:
        env, headers = _values(server.env), _values(server.headers)
        if server.type == "local":
            claude[server.name] = {"command": server.command, "args": list(server.args), "env": env}
            opencode[server.name] = {"type": "local", "command": [server.command, *server.args], "environment": env}
            gemini[server.name] = {"command": server.command, "args": list(server.args), "env": env}
            codex.append(_table(server.name, command=server.command, args=list(server.args), env=env))
        else:
            claude[server.name] = {"type": "http", "url": server.url, "headers": headers}
            opencode[server.name] = {"type": "remote", "url": server.url, "headers": headers}
            gemini[server.name] = {"httpUrl": server.url, "headers": headers}
            codex.append(_table(server.name, url=server.url, http_headers=headers))
    yield _json(".claude.json", {"mcpServers": claude}, "mcpServers")
    yield _json(".config/opencode/opencode.json", {"mcp": opencode}, "mcpServers")
    yield _json(".gemini/settings.json", {"mcpServers": gemini}, "mcpServers")
    yield Place(path=".codex/config.toml", source="\n".join(codex).encode(), setting="mcpServers", merge="toml")


def _values(given: Mapping[str, Value]) -> dict[str, str]:
    """References have been replaced by what they stand for: see :func:`wanted`."""
    return {name: value for name, value in given.items() if isinstance(value, str)}


def _table(name: str, **values: str | list[str] | dict[str, str]) -> str:
    """A table of TOML. Its strings are those of JSON, but for two characters."""
    lines = [f"[mcp_servers.{name}]"]
    for key, value in values.items():
        if isinstance(value, dict):
            pairs = ", ".join(f"{_string(k)} = {_string(v)}" for k, v in value.items())
            lines.append(f"{key} = {{ {pairs} }}")
        elif isinstance(value, list):
            lines.append(f"{key} = [{', '.join(map(_string, value))}]")
        else:
            lines.append(f"{key} = {_string(value)}")
    return "\n".join(lines) + "\n"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _skill(skill: str | Skill) -> Iterator[Place]:
    if isinstance(skill, str):
        name = skill.rstrip("/").rpartition("/")[2]
        for folder in SKILL_FOLDERS.values():
            yield Place(path=f"{folder}/{name}", source=skill, setting="skills")
    elif skill.enabled:
        for agent, folder in SKILL_FOLDERS.items():
            if skill.applies_to == "all" or agent in skill.applies_to:
                path = f"{folder}/{skill.id}/SKILL.md"
                yield Place(path=path, source=skill.skill_md.encode(), setting="skills")
