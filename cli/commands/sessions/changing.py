"""``perry sessions rename|delete``."""

import click

from cli import output
from cli.client import Client
from cli.commands.delete import is_interactive
from cli.commands.parameters import as_json
from cli.errors import Refused
from cli.sessions import shown
from cli.sessions.finding import SessionName, find, ref
from protocol.sessions import DeleteSession, RenameSession


@click.command()
@click.argument("session", type=SessionName())
@click.argument("title")
@as_json
def rename(session: str, title: str, as_json: bool) -> None:
    """Give a session another title.

    In its agent's own store too, so its workspace has to run.
    """
    title = " ".join(title.split())
    if not 0 < len(title) <= 500 or not output.is_one_line(title):
        raise click.UsageError("A title is a line of 1 to 500 characters.")
    client = Client()
    found = find(client, session)
    known = ref(found)
    wanted = RenameSession(workspace=known.workspace, agent=known.agent, session_id=known.session_id, title=title)
    client.call("sessions.rename", object, wanted)
    if as_json:
        output.data({"sessionId": found.session_id, "title": title})
    else:
        output.line(f"It is called {title!r} now, and was {shown.title(found)!r}.")


@click.command()
@click.argument("session", type=SessionName())
@click.option(
    "--in-workspace", is_flag=True, help="From the agent's own store too, where it is gone for good. Asks first."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@as_json
def delete(session: str, in_workspace: bool, yes: bool, as_json: bool) -> None:
    """Delete a session from the index.

    Without --in-workspace the agent keeps it, and it is back as soon as something is said in it.
    """
    client = Client()
    client.check_version()
    found = find(client, session)
    what = f"{shown.title(found)!r} ({found.agent} in {found.workspace}, {shown.count(found.message_count, 'message')})"
    if in_workspace and not yes:
        if not is_interactive():
            raise Refused("Nothing was deleted; nobody can be asked here, so say --yes.")
        if not click.confirm(f"Delete {output.clean(what)} for good?", err=True):
            raise Refused("Nothing was deleted.")
    known = ref(found)
    wanted = DeleteSession(
        workspace=known.workspace, agent=known.agent, session_id=known.session_id, in_workspace=in_workspace
    )
    client.call("sessions.delete", object, wanted)
    if as_json:
        output.data({"sessionId": found.session_id, "deleted": True, "inWorkspace": in_workspace})
    else:
        where = "deleted for good" if in_workspace else "deleted from the index"
        output.line(f"{output.clean(what)} is {where}.")
