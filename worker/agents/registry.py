"""Which coding agents there are, and where each keeps its sessions."""

from collections.abc import Mapping
from pathlib import Path

from worker.agents.claude import Claude
from worker.sessions.agent import CodingAgent
from worker.sessions.liveness import Processes


def coding_agents(home: Path, environment: Mapping[str, str], processes: Processes | None = None) -> list[CodingAgent]:
    """All of them, for one home folder. The environment counts as it does for the agents themselves."""
    processes = processes or Processes()
    return [
        Claude(folder(environment, "CLAUDE_CONFIG_DIR", home / ".claude"), processes),
    ]


def folder(environment: Mapping[str, str], variable: str, default: Path) -> Path:
    """What a variable says, where it says an absolute path."""
    said = Path(environment.get(variable) or default)
    return said if said.is_absolute() else default
