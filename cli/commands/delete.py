"""``perry delete``."""

import sys

import click
import msgspec

from cli import output
from cli.client import Client
from cli.commands import ssh_config
from cli.commands.parameters import as_json, workspace_name
from cli.errors import Refused
from protocol.workspaces import DeleteWorkspace, UnsavedWork


@click.command()
@workspace_name
@click.option("--force", "-f", is_flag=True, help="Delete it even where work would be lost, and do not ask.")
@click.option("--keep-sessions", is_flag=True, help="Keep its coding agents' sessions, to be read and searched.")
@as_json
def delete(name: str, force: bool, keep_sessions: bool, as_json: bool) -> None:
    """Delete a workspace with all of its files (also `perry rm`, `perry remove`).

    Asks first where uncommitted or unpushed work would be lost. Without a terminal it refuses then, with exit code 5,
    unless --force is given.
    """
    client = Client()
    client.check_version()
    try:
        _delete(client, name, force, keep_sessions)
    except Refused as exc:
        work = _unsaved(exc)
        if work is None or force:
            raise
        _show(name, work)
        if not is_interactive():
            raise Refused(f"{name} was not deleted; save that work, or delete it all with --force.") from exc
        if not click.confirm(f"Delete {name} and lose it?", err=True):
            raise Refused(f"{name} was not deleted.") from exc
        _delete(client, name, True, keep_sessions)
    ssh_config.refresh(client)
    if as_json:
        output.data({"name": name, "deleted": True})
    else:
        output.line(f"{name} is deleted.")


def is_interactive() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _delete(client: Client, name: str, force: bool, keep_sessions: bool) -> None:
    from cli.following import following

    wanted = DeleteWorkspace(name=name, force=force, keep_sessions=keep_sessions)
    following(client, name, "the deletion", lambda: client.call("workspaces.delete", object, wanted, seconds=None))


def _unsaved(refusal: Refused) -> UnsavedWork | None:
    """The work that would be lost; None where it was refused for another reason."""
    try:
        return msgspec.convert(refusal.data, UnsavedWork)
    except msgspec.ValidationError:
        return None


def _show(name: str, work: UnsavedWork) -> None:
    output.note(f"Work in {name} would be lost:")
    if work.unknown:
        output.note(f"  {output.clean(work.unknown)}")
    for title, lines in (("not committed", work.uncommitted), ("not pushed", work.unpushed)):
        if lines:
            output.note(f"  {title}:")
            for each in lines:
                output.note(f"    {output.clean(each)}")
