"""A made-up person's machine: log-ins and settings, what the agent there was told, and servers to work with."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol.workspaces import StartupState
from tests.e2e import gemini_cli, stand_ins
from tests.e2e.system import System
from tests.fakes.model_server import ModelServer

ODD = "a=b # c 'd' \"e\" $HOME `id` \\"
SKILL = "---\nname: keep-ledger\ndescription: How Ada keeps her ledger.\n---\nOne line for each visit.\n"
HERE = Path(__file__).parent


class Person:
    """``home`` is on this machine; the workspace is called alpha."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.system = System(folder / "agent", tailnet="none")
        self.model = ModelServer(host=stand_ins.bridge())
        self.url = ""
        self.config: dict[str, Any] = {}

    def sync(self) -> dict[str, Any]:
        done: dict[str, Any] = self.system.call("workspaces.sync", {"name": "alpha"})
        return done

    def settle(self, **sections: Any) -> None:
        """Write config.json, with these sections in place of what they were."""
        self.config |= sections
        write(self.system.folder / "config.json", json.dumps(self.config))

    def ssh(self, command: str, key: Path | None = None) -> str:
        """As a person's ssh would run it: not by Docker, not in a log-in shell."""
        port = self.system.workspace("alpha").ports.ssh
        key = key or self.system.folder / "ssh" / "id_ed25519"
        done = subprocess.run(
            ["ssh", "-p", str(port), "-i", str(key), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
             "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "workspace@127.0.0.1", command],
            capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@contextlib.contextmanager
def at_work(folder: Path) -> Iterator[Person]:
    """A person whose workspace alpha has been started."""
    it = Person(folder)
    it.system.of_person(it.home)
    (it.home / ".ssh").mkdir(parents=True)
    for name in ("id_work", "signing", "phone"):
        key = it.home / ".ssh" / name
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(key)], check=True)
    pem = stand_ins.certificate(folder)
    try:
        it.url, known_host = stand_ins.git_server(it.system, (it.home / ".ssh/id_work.pub").read_text())
        with it.model, stand_ins.github(pem) as github:
            write(it.home / "own.txt", "one")
            write(it.home / "ca.pem", (folder / "cert").read_text())
            write(it.home / "post.sh", '#!/bin/sh\npwd; echo "$ODD" >~/post-start\n')
            shutil.copy(HERE / "ledger.py", it.home)
            for path, text in agents(it.model.url).items():
                write(it.home / path, text)
            ledger = {"name": "ledger", "command": "python3", "args": ["/home/workspace/ledger.py"]}
            it.settle(
                credentials={
                    "env": {
                        "ODD": ODD,
                        "SSL_CERT_FILE": "/home/workspace/ca.pem",
                        "ANTHROPIC_API_KEY": {"secret": "claude"},
                    },
                    "files": {"~/own.txt": "~/own.txt", "~/ca.pem": "~/ca.pem", "~/ledger.py": "~/ledger.py"},
                },
                git={"name": 'Ada "L" Love', "email": "ada@example.com"},
                ssh={
                    "global": {"copy": ["~/.ssh/id_work"], "authorize": ["~/.ssh/phone.pub"]},
                    "knownHosts": [known_host],
                },
                github={"token": {"secret": "github"}, "host": github},
                scripts={"post_start": ["~/post.sh"]},
                dotfiles={"repository": it.url, "install": "cp README ~/from-dotfiles"},
                mcpServers=[ledger | {"env": {"LEDGER_KEY": {"secret": "ledger"}}}],
                skills=[{"id": "keep-ledger", "skillMd": SKILL}],
            )
            it.system.start()
            it.system.call("secrets.set", {"name": "claude", "value": "sk-ant-canary-claude"})
            it.system.call("secrets.set", {"name": "github", "value": "ghp_canary_github"})
            it.system.call("secrets.set", {"name": "ledger", "value": "canary-ledger"})
            workspace = it.system.start_workspace("alpha", clone=it.url, docker=False)
            assert workspace.startup is not None and workspace.startup.state is StartupState.SUCCEEDED, workspace
            gemini_cli.install(it.system.container("alpha"))
            yield it
    finally:
        it.system.remove()


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def agents(model: str) -> dict[str, str]:
    """The coding agents' log-ins and settings, as they are below a home; each has a key of its own for the model."""
    opencode = {
        "model": "fake/fake-1", "small_model": "fake/fake-1", "autoupdate": False, "share": "disabled",
        "enabled_providers": ["fake"],
        "provider": {"fake": {
            "npm": "@ai-sdk/openai-compatible", "name": "Fake", "options": {"baseURL": f"{model}/v1"},
            "models": {"fake-1": {"name": "Fake 1", "tool_call": True, "limit": {"context": 100000, "output": 4096}}},
        }},
    }  # fmt: skip
    codex = f"""model = "fake-1"
model_provider = "fake"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.fake]
name = "Fake"
base_url = "{model}/v1"
requires_openai_auth = true
wire_api = "responses"
"""
    gemini = {
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "privacy": {"usageStatisticsEnabled": False},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
    }
    claude = {
        "env": {"ANTHROPIC_BASE_URL": model, "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
        "permissions": {"allow": ["mcp__ledger__write"]},
    }
    log_in = {
        "accessToken": "canary-claude-login", "refreshToken": "canary-claude-refresh",
        "expiresAt": 4102444800000, "scopes": ["user:inference", "user:profile"], "subscriptionType": "max",
    }  # fmt: skip
    return {
        ".claude/settings.json": json.dumps(claude),
        ".claude/.credentials.json": json.dumps({"claudeAiOauth": log_in}),
        ".config/opencode/opencode.json": json.dumps(opencode),
        ".local/share/opencode/auth.json": json.dumps({"fake": {"type": "api", "key": "canary-opencode"}}),
        ".codex/config.toml": codex,
        ".codex/auth.json": json.dumps({"auth_mode": "apikey", "OPENAI_API_KEY": "canary-codex"}),
        ".gemini/settings.json": json.dumps(gemini),
        ".gemini/.env": f"GEMINI_API_KEY=canary-gemini\nGOOGLE_GEMINI_BASE_URL={model}\n",
    }
