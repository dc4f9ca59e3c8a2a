"""What is written about the commands is what they are."""

import re
import subprocess
import sys
from pathlib import Path

import click
import msgspec
import pytest

from cli import reference
from cli.errors import EXIT_CODES, OF_CODE, CliError
from cli.main import ALIASES, COMMANDS, perry
from tests.unit.cli.conftest import Perry

DOCS = Path(__file__).parents[3] / "docs" / "cli.md"


def test_docs_are_the_commands_own_help() -> None:
    assert DOCS.read_text() == reference.markdown(), "run: uv run python -m cli.reference > docs/cli.md"


def test_every_command_is_there_and_says_what_it_does() -> None:
    found = reference.commands(perry, click.Context(perry, info_name="perry"))
    assert all(command.help for command, _ in found)
    assert {context.command_path.split()[1] for _, context in found} == set(COMMANDS)


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(perry_: Perry, alias: str, name: str) -> None:
    assert perry_(alias, "--help").stdout == perry_(name, "--help").stdout.replace(f"perry {name}", f"perry {alias}", 1)


def subclasses(of: type[CliError]) -> list[type[CliError]]:
    return [of, *(below for each in of.__subclasses__() for below in subclasses(each))]


def test_every_exit_code_is_documented(perry_: Perry) -> None:
    codes = {each.exit_code for each in subclasses(CliError)}
    assert codes | {0} == set(EXIT_CODES)
    assert {each.exit_code for each in OF_CODE.values()} <= codes
    text = perry_("--help").stdout
    assert all(f"\n  {code} " in text for code in EXIT_CODES)


def test_every_procedure_that_is_called_is_in_the_api() -> None:
    root = DOCS.parents[1]
    paths = msgspec.json.decode((root / "protocol" / "openapi.json").read_bytes())["paths"]
    sources = "".join(file.read_text() for file in (root / "cli").rglob("*.py"))
    called = set(re.findall(r'\.call\(\s*"([a-z.A-Z]+)"', sources))
    assert len(called) > 10
    assert {f"/rpc/{procedure.replace('.', '/')}" for procedure in called} <= set(paths)


def test_unknown_commands_and_options_are_misuse(perry_: Perry) -> None:
    assert perry_("nonsense").exit_code == 2
    assert perry_("list", "--nonsense").exit_code == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(perry_: Perry, shell: str) -> None:
    assert "_PERRY_COMPLETE" in perry_("completion", shell).stdout


def test_what_list_needs_is_quick_to_import() -> None:
    """Names what must not be imported for every command; `make bench` has the times."""
    code = "import sys, cli.main, cli.commands.workspaces; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True)
    slow = {"httpx", "websockets", "rich", "asyncio", "litestar", "uvicorn", "anyio", "subprocess", "controlplane"}
    assert not slow & set(done.stdout.split())


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_under_the_output_is_a_sentence(unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from cli.main import main; main()", "--help"],
            stdout=full, stderr=subprocess.PIPE, text=True, env={"PYTHONUNBUFFERED": unbuffered, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "Error: The output cannot be written: No space left on device.\n")


def test_output_may_be_closed() -> None:
    command = f"exec {sys.executable} -P -c 'from cli.main import main; main()' --help >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
