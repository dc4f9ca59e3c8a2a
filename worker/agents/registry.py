"""Which coding agents there are, and where each keeps its sessions."""

from collections.abc import Mapping
from pathlib import Path

from worker.agents.claude import Claude
from worker.agents.codex import Codex
from worker.agents.gemini import Gemini
from worker.agents.opencode import OpenCode
from worker.sessions.agent import CodingAgent
from worker.sessions.liveness import Processes


def coding_agents(home: Path, environment: Mapping[str, str], processes: Processes | None = None) -> list[CodingAgent]:
    """All of them, for one home folder. The environment counts as it does for the agents themselves."""
    processes = processes or Processes()
    data = folder(environment, "XDG_DATA_HOME", home / ".local/share") / "opencode"
    return [
        OpenCode(data, folder(environment, "OPENCODE_DB", data / "opencode.db"), processes),
        Claude(folder(environment, "CLAUDE_CONFIG_DIR", home / ".claude"), processes),
        Codex(folder(environment, "CODEX_HOME", home / ".codex"), processes),
        Gemini(folder(environment, "GEMINI_CLI_HOME", home) / ".gemini/tmp", processes),
    ]


def folder(environment: Mapping[str, str], variable: str, default: Path) -> Path:
    """What a variable says, where it says an absolute path."""
    said = Path(environment.get(variable) or default)
    return said if said.is_absolute() else default
