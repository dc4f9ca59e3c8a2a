"""``perry check``: looks now at a task, or at what goes on in a workspace, and says what it comes to."""

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import WorkspaceName, as_json
from cli.task_names import is_id
from protocol.tasks import Checked, CheckTask

STYLE = {"working": "green", "told": "green", "failed": "red", "unreachable": "red"}


@click.command()
@click.argument("what", metavar="WORKSPACE|TASK")
@as_json
def check(what: str, as_json: bool) -> None:
    """Look at a task, or at the coding agent that was active last in a workspace: does it work, wait, or stand still?

    The same look as the fallback's, which is taken by itself for each dispatched task.
    """
    wanted = CheckTask(id=what) if is_id(what) else CheckTask(workspace=WorkspaceName().convert(what, None, None))
    found = Client().call("tasks.check", Checked, wanted, seconds=60)
    if as_json:
        output.data(found)
        return
    output.line(f"{output.styled(found.conclusion, STYLE.get(found.conclusion, 'yellow'))}: {output.clean(found.text)}")
    for command in found.commands:
        output.line(f"  {output.clean(command)}")
