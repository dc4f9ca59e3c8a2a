"""``perry exec``."""

import time

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json, workspace_name
from protocol.workspaces import ExecCommand, ExecResult

GRACE_SECONDS = 30
TIMED_OUT = 124
"""What `timeout` ends with in the workspace."""


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--cwd", help="Folder to run it in; the project folder where not given.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, max=3600, min_open=True),
    default=600,
    show_default=True,
    metavar="SECONDS",
    help="End it after so long.",
)
@as_json
@workspace_name
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(cwd: str | None, timeout: float, as_json: bool, name: str, command: tuple[str, ...]) -> None:
    """Run a command in a workspace as user `workspace`, with no shell and no input: perry exec NAME -- COMMAND…

    Options of perry go before NAME. Its output comes when it has ended, stdout and stderr apart; the exit code is the
    command's own.
    """
    if command[0] == "--":
        command = command[1:]
    elif command[0].startswith("-"):
        raise click.UsageError(f"Options go before NAME; write -- before a command that is named {command[0]}.")
    if not command:
        raise click.UsageError("There is no command after --.")
    wanted = ExecCommand(name=name, command=list(command), cwd=cwd, timeout=timeout)
    began = time.monotonic()
    result = Client().call("workspaces.exec", ExecResult, wanted, seconds=timeout + GRACE_SECONDS)
    if as_json:
        output.data(result)
    else:
        output.raw(result.stdout, result.stderr)
        if result.truncated:
            output.warn("The output was cut; send it to a file in the workspace, and copy that with scp.")
        if result.exit_code == TIMED_OUT and time.monotonic() - began >= timeout:
            output.warn(f"The command had not ended after {timeout:g} s, so it was ended; --timeout gives it longer.")
    raise SystemExit(result.exit_code)
