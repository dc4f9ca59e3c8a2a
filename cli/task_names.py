"""What people call a task: its id, or the name of its workspace, which means the latest task there."""

import re
from typing import Final

from cli.client import Client
from cli.commands.parameters import WorkspaceName
from cli.errors import Missing
from protocol.tasks import ListTasks, Tasks

_ID: Final = re.compile(r"t-[0-9a-z]{12}")


def is_id(given: str) -> bool:
    """Whether it looks like a task's id. A workspace that is named so is not found by its name."""
    return _ID.fullmatch(given) is not None


def task_id(client: Client, given: str) -> str:
    """The id of the task that is meant. Its workspace may be gone; Missing where there was no task in it."""
    if is_id(given):
        return given
    name = WorkspaceName().convert(given, None, None)
    found = client.call("tasks.list", Tasks, ListTasks(workspace=name, limit=1))
    if not found.items:
        raise Missing(f"There is no task {name!r}, and none in a workspace of that name; `perry tasks list` shows all.")
    return found.items[0].id
