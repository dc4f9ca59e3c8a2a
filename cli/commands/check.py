"""``perry check``: looks now at a task, or at what goes on in a workspace, and says what it comes to."""

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import WorkspaceName, as_json
from cli.errors import Missing
from cli.task_names import is_id
from protocol.tasks import Checked, CheckTask, ListTasks, Tasks

STYLE = {"working": "green", "told": "green", "failed": "red", "unreachable": "red"}


@click.command()
@click.argument("what", metavar="WORKSPACE|TASK")
@as_json
def check(what: str, as_json: bool) -> None:
    """Look at a task, or at the coding agent that was active last in a workspace: does it work, wait, or stand still?

    The same look as the fallback's, which is taken by itself for each dispatched task.
    """
    wanted = CheckTask(id=what) if is_id(what) else CheckTask(workspace=WorkspaceName().convert(what, None, None))
    found = _look(Client(), wanted)
    if as_json:
        output.data(found)
        return
    output.line(f"{output.styled(found.conclusion, STYLE.get(found.conclusion, 'yellow'))}: {output.clean(found.text)}")
    for command in found.commands:
        output.line(f"  {output.clean(command)}")


def _look(client: Client, wanted: CheckTask) -> Checked:
    """Where the workspace is gone, Missing names the latest task there."""
    try:
        return client.call("tasks.check", Checked, wanted, seconds=60)
    except Missing as exc:
        if wanted.workspace is None:
            raise
        latest = client.call("tasks.list", Tasks, ListTasks(workspace=wanted.workspace, limit=1)).items
        if not latest:
            raise
        id_ = latest[0].id
        raise Missing(
            f"{exc.message} The latest task there was {id_}; `perry tasks result {id_}` says what it left.",
            code=exc.code,
        ) from exc
