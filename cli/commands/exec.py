"""``perry exec``."""

import sys
import time

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import Finite, as_json, workspace_name
from cli.errors import Misused
from protocol.workspaces import ExecCommand, ExecResult

GRACE_SECONDS = 30
JSON_SECONDS = 600.0
TIMED_OUT = 124
"""What `timeout` ends with in the workspace."""


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--cwd", help="Folder to run it in, from the project folder on; that folder where not given.")
@click.option(
    "--stdin/--no-stdin",
    "-i",
    default=None,
    help="Whether the command gets the input of perry; it does unless that is a terminal.",
)
@click.option("--tty", "-t", is_flag=True, help="Give the command this terminal.")
@click.option(
    "--timeout",
    type=Finite(min=0, max=3600, min_open=True),
    metavar="SECONDS",
    help="End it after so long. With --json 600 where not given.",
)
@as_json
@workspace_name
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(
    cwd: str | None,
    stdin: bool | None,
    tty: bool,
    timeout: float | None,
    as_json: bool,
    name: str,
    command: tuple[str, ...],
) -> None:
    """Run a command in a workspace as user `workspace`, with no shell: perry exec NAME -- COMMAND…

    Options of perry go before NAME. Input, output and signals are passed on, and the exit code is the command's own:
    tar c . | perry exec NAME -- tar x. The command ends with perry; ctrl-C interrupts the command, three times perry.

    With --json it gets no input, and its output comes when it has ended.
    """
    if command[0] == "--":
        command = command[1:]
    elif command[0].startswith("-"):
        raise click.UsageError(f"Options go before NAME; write -- before a command that is named {command[0]}.")
    if not command:
        raise click.UsageError("There is no command after --.")
    if as_json:
        if tty or stdin:
            raise click.UsageError("--json gives the command no input; leave it, or --stdin and --tty, away.")
        raise SystemExit(_collected(name, list(command), cwd, timeout or JSON_SECONDS))
    if tty and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Misused("--tty needs a terminal on both sides of perry; leave it away.")

    from cli.remote import Remote, terminal
    from protocol.exec import Run

    wanted = Run(command=list(command), cwd=cwd, tty=terminal() if tty else None)
    with_stdin = tty or (not sys.stdin.isatty() if stdin is None else stdin)
    sys.stdout.flush()
    raise SystemExit(Remote(Client(), name, wanted, stdin=with_stdin, seconds=timeout).run())


def _collected(name: str, command: list[str], cwd: str | None, timeout: float) -> int:
    """Run it to its end, and show all at once."""
    wanted = ExecCommand(name=name, command=command, cwd=cwd, timeout=timeout)
    began = time.monotonic()
    result = Client().call("workspaces.exec", ExecResult, wanted, seconds=timeout + GRACE_SECONDS)
    output.data(result)
    if result.exit_code == TIMED_OUT and time.monotonic() - began >= timeout:
        output.warn(f"The command had not ended after {timeout:g} s, so it was ended; --timeout gives it longer.")
    return result.exit_code
