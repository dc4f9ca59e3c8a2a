"""``perry sessions resume``."""

import shlex
from typing import NoReturn

import click

from cli import output
from cli.client import Client
from cli.errors import NotReady, Refused
from cli.sessions.finding import SessionName, find
from protocol.sessions import SessionInfo


@click.command()
@click.argument("session", type=SessionName())
@click.option("--print", "print_", is_flag=True, help="Print the command that opens it in the workspace, and no more.")
def resume(session: str, print_: bool) -> None:
    """Open a session again, on this terminal.

    Its agent runs in its workspace and folder. By ssh, as `perry ssh` does; the exit code is ssh's. A workspace
    that is stopped has to be started first.
    """
    client = Client()
    found = find(client, session)
    command = command_of(found)
    if print_:
        output.line(output.clean(command))
        return
    _open(client, found.workspace, command)


def command_of(session: SessionInfo) -> str:
    """For the shell of the workspace. NotReady or Refused where there is no way."""
    if session.deleted_workspace:
        raise Refused(
            f"{session.workspace} is deleted, and only what was said in this session was kept; "
            "`perry sessions messages` shows it."
        )
    if not session.resume:
        why = "it is a subagent's; resume the one above it" if session.parent else f"{session.agent} told of no way"
        raise NotReady(f"This session cannot be resumed: {why}.")
    # Its words come from the workspace, and are words for the workspace's shell, whatever is in them.
    command = f"exec {shlex.join(session.resume)}"
    return f"cd -- {shlex.quote(session.cwd)} && {command}" if session.cwd else command


def _open(client: Client, name: str, command: str) -> NoReturn:
    from cli.commands.ssh import connect

    connect(client, name, ["-t"], ["--", command])
