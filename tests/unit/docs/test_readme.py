"""What the documentation tells people to type is there to be typed."""

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.main import perry as cli
from tests import consoles

CHECKOUT = Path(__file__).parents[3]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "ARCHITECTURE.md",
    "docs/howto/cron.md",
    "docs/howto/batch-review.md",
    "docs/howto/from-shell-commands.md",
    "docs/howto/mcp.md",
    "docs/howto/parallel-issues.md",
    "docs/howto/pr-review.md",
    "docs/howto/wakes.md",
    "docs/howto/your-own-tailnet.md",
    "docs/howto/sessions.md",
    "docs/howto/tasks.md",
    "docs/howto/batches.md",
    "skills/perry/SKILL.md",
)


def typed(program: str) -> Iterator[tuple[str, str]]:
    """Commands of the pages: lines of their consoles, and what stands in code as one."""
    for page in PAGES:
        shown = [command.typed for command in consoles.commands(CHECKOUT / page)]
        for line in shown + re.findall(r"`([^`\n]+)`", consoles.prose(CHECKOUT / page)):
            command = line.split("  #")[0].strip()
            if command.split()[:1] == [program]:
                yield page, command


@pytest.mark.parametrize(("page", "command"), list(typed("perry")))
def test_perry_knows_the_command(page: str, command: str) -> None:
    words = shlex.split(command.replace("…", ""))[1:]
    current: click.Command = cli
    while words and isinstance(current, click.Group):
        if words[0].startswith("-"):
            break
        found = current.get_command(click.Context(current), words[0])
        assert found is not None, f"{page}: {command}"
        current, words = found, words[1:]
    known = {option for parameter in current.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known.add("--help")
    # What comes behind "--" is another program's.
    own = itertools.takewhile(lambda word: word != "--", words)
    unknown = [word for word in own if word.startswith("-") and word != "-" and word.split("=")[0] not in known]
    assert not unknown, f"{page}: {command}"


@pytest.mark.parametrize(("page", "command"), list(typed("make")))
def test_make_knows_the_target(page: str, command: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    words = [word for word in command.split()[1:] if "=" not in word]
    assert all(word in targets for word in words), f"{page}: {command}"


def test_links_lead_somewhere() -> None:
    for page in (*(CHECKOUT / name for name in PAGES), *(CHECKOUT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_paths_that_architecture_names_are_there() -> None:
    text = (CHECKOUT / "ARCHITECTURE.md").read_text()
    for path in re.findall(r"`((?:controlplane|cli|sidecar|protocol|images|tests)/[a-z0-9_/.-]+)`", text):
        assert (CHECKOUT / path.rstrip("/")).exists(), path
