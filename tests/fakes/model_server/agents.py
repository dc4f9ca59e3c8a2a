"""How each coding agent is pointed at the model: its files below HOME, its environment, and its command for one prompt.

Nothing of it needs a network: versions are not looked up, models are not fetched, nothing is reported.
"""

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

PROJECT = "/home/workspace/project"
"""The folder that agents are told to trust."""
CLAUDE_KEY = "sk-ant-fake-key"


@dataclass(frozen=True)
class Agent:
    """``run`` gives the argv for a prompt; ``resume`` that for one more in a session. Standard input is to be empty.

    A person who opens one needs the files only, but for Gemini.
    """

    files: dict[str, str]
    environment: dict[str, str]
    run: Callable[[str], list[str]] = field(repr=False)
    resume: Callable[[str, str], list[str]] = field(repr=False)


def opencode(url: str) -> Agent:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Fake",
        "options": {"baseURL": f"{url}/v1", "apiKey": "sk-fake"},
        "models": {"fake-1": {"name": "Fake 1", "tool_call": True, "limit": {"context": 100000, "output": 4096}}},
    }
    settings = {
        "$schema": "https://opencode.ai/config.json",
        "model": "fake/fake-1",
        "small_model": "fake/fake-1",
        "autoupdate": False,
        "share": "disabled",
        "enabled_providers": ["fake"],
        "permission": "allow",
        "provider": {"fake": provider},
    }
    return Agent(
        {".config/opencode/opencode.json": json.dumps(settings)},
        {"OPENCODE_DISABLE_MODELS_FETCH": "1"},
        lambda prompt: ["opencode", "run", prompt],
        lambda session, prompt: ["opencode", "run", "--session", session, prompt],
    )


def claude(url: str) -> Agent:
    environment = {
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": CLAUDE_KEY,
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    # What it would ask a person at its first start, answered.
    state = {
        "hasCompletedOnboarding": True,
        "customApiKeyResponses": {"approved": [CLAUDE_KEY], "rejected": []},
        "projects": {PROJECT: {"hasTrustDialogAccepted": True}},
    }

    def flags(prompt: str) -> list[str]:
        return ["-p", prompt, "--model", "claude-fake-1", "--dangerously-skip-permissions"]

    return Agent(
        {".claude.json": json.dumps(state), ".claude/settings.json": json.dumps({"env": environment})},
        environment,
        lambda prompt: ["claude", *flags(prompt)],
        lambda session, prompt: ["claude", "--resume", session, *flags(prompt)],
    )


def codex(url: str) -> Agent:
    settings = f"""model = "fake-1"
model_provider = "fake"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[model_providers.fake]
name = "Fake"
base_url = "{url}/v1"
experimental_bearer_token = "sk-fake"
wire_api = "responses"

[analytics]
enabled = false
"""
    return Agent(
        {".codex/config.toml": settings},
        {},
        lambda prompt: ["codex", "exec", "--skip-git-repo-check", prompt],
        lambda session, prompt: ["codex", "exec", "resume", "--skip-git-repo-check", session, prompt],
    )


def gemini(url: str) -> Agent:
    settings = {
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "privacy": {"usageStatisticsEnabled": False},
        "security": {"auth": {"selectedType": "gemini-api-key"}},
        "telemetry": {"enabled": False},
    }
    return Agent(
        {".gemini/settings.json": json.dumps(settings)},
        {"GEMINI_API_KEY": "fake", "GOOGLE_GEMINI_BASE_URL": url, "GEMINI_CLI_TRUST_WORKSPACE": "true"},
        lambda prompt: ["gemini", "--model", "gemini-2.5-flash", "--yolo", "-p", prompt],
        lambda session, prompt: ["gemini", "--model", "gemini-2.5-flash", "--yolo", "--resume", session, "-p", prompt],
    )


AGENTS: dict[str, Callable[[str], Agent]] = {"opencode": opencode, "claude": claude, "codex": codex, "gemini": gemini}


def as_shell(agent: Agent, prompt: str) -> str:
    """For a person: the lines that do it, with the HOME of the shell that runs them."""
    lines = []
    for path, content in agent.files.items():
        lines.append(f'mkdir -p "$HOME"/{shlex.quote(path.rpartition("/")[0])}')
        lines.append(f'printf %s {shlex.quote(content)} >"$HOME"/{shlex.quote(path)}')
    environment = shlex.join(f"{name}={value}" for name, value in agent.environment.items())
    return "\n".join([*lines, f"env {environment} {shlex.join(agent.run(prompt))} </dev/null"])


if __name__ == "__main__":
    name, port = sys.argv[1:3]
    prompt = sys.argv[3] if len(sys.argv) > 3 else "Say hello [[run: echo hello]] [[say: I said hello.]]"
    sys.stdout.write(as_shell(AGENTS[name](f"http://127.0.0.1:{port}"), prompt) + "\n")
