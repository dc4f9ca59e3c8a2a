"""Every command of skills/perry/SKILL.md is run, in the order of the page, against a whole control plane on fakes."""

import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import consoles
from tests.fakes.agent_process import running
from tests.fakes.tasks import GOES_ON

CHECKOUT = Path(__file__).parents[3]
PAGE = CHECKOUT / "skills" / "perry" / "SKILL.md"

MAY_FAIL = {"perry doctor": {0, 1}}
"""What tells by its exit code what it has found on this machine."""

pytestmark = pytest.mark.timeout(300)


def typed() -> list[str]:
    """All commands of the page: those of its consoles, then those within its sentences."""
    within = re.sub(r"^```.*?^```$", "", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    sentences = re.findall(r"`(perry\b[^`]*)`", within)
    return [command.typed for command in consoles.commands(PAGE)] + sentences


class Assistant:
    """Types the commands, in a folder with what they speak of: a repository, and a task in a file."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self.folder = folder
        self._environ = environ | {"PATH": f"{Path(sys.executable).parent}:{environ['PATH']}"}
        self.repository = folder / "project"
        for arguments in (("init", "-q"), ("commit", "-q", "--allow-empty", "-m", "First")):
            self.repository.mkdir(exist_ok=True)
            subprocess.run(
                ("git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments), cwd=self.repository, check=True
            )
        (folder / "task.md").write_text("Sweep the floor.\n")

    @functools.cached_property
    def done(self) -> str:
        """A task that has succeeded."""
        id_: str = self.has("perry dispatch alpha 'Sweep' --wait")["task"]["id"]
        return id_

    def types(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ("bash", "-c", line),
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def has(self, line: str) -> Any:
        """What a command that succeeds has said in JSON."""
        done = self.types(f"{line} --json")
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def filled_in(self, command: str) -> str:
        """A command with the ids and the repository of here."""
        words = command.split()
        while "ID" in command.split():
            if words[1] == "batches":
                id_ = self.has("perry batches list")["items"][0]["id"]
            elif "cancel" in words:
                id_ = self.has(f"perry dispatch alpha '{GOES_ON}'")["id"]
            else:
                id_ = self.done
            command = re.sub(r"\bID\b", id_, command, count=1)
        return re.sub(r"\bURL\b", str(self.repository), command)


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assistant]:
    with running(tmp_path_factory.mktemp("agent")) as environ:
        made = Assistant(tmp_path_factory.mktemp("assistant"), environ)
        made.has("perry start alpha")
        yield made


def test_every_command_runs(assistant: Assistant) -> None:
    commands = typed()
    assert len(commands) > 30
    for command in commands:
        done = assistant.types(assistant.filled_in(command))
        assert done.returncode in MAY_FAIL.get(command, {0}), f"{command}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, command


def test_a_command_that_perry_does_not_know_is_no_run(assistant: Assistant) -> None:
    for command in ("perry conquer alpha", "perry tasks list --colour", "perry tasks result t-000000000000"):
        assert assistant.types(command).returncode not in MAY_FAIL.get(command, {0})


def test_the_rules_are_there() -> None:
    text = PAGE.read_text()
    for rule in ("Reuse the workspace", "Clean up what you made", "Report failures", "Keep the person informed"):
        assert f"- {rule}" in text, rule
    assert text.partition("## When something is wrong")[2].split()[1:4] == ["$", "perry", "doctor"]
