"""Tasks in a system's workspace alpha, as a client has them done there, by agents whose model is a fake one."""

from typing import Any

import msgspec

from protocol.tasks import Task, TaskState, Waited
from protocol.workspaces import Workspace
from tests.e2e.system import System, eventually
from tests.fakes.model_server.inside import ModelInside

PROJECT = "/home/workspace/alpha"
"""The repository that tasks work in."""

AUTHOR = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
"""The environment in which whatever commits there has a name."""


def start_alpha(system: System, *agents: str) -> Workspace:
    """The workspace with its repository, in which these agents have their model."""
    workspace = system.start_workspace("alpha", docker=False)
    ModelInside(system.container("alpha")).start(*agents)
    system.inside("alpha", "git", "init", "-q", PROJECT)
    system.inside("alpha", "git", "-C", PROJECT, "commit", "-q", "--allow-empty", "-m", "before")
    return workspace


def dispatch(system: System, text: str, **wanted: Any) -> Task:
    """In alpha and as a command, unless ``wanted`` has something else."""
    given = {"workspace": "alpha", "task": text, "agent": "command"} | wanted
    return msgspec.convert(system.call("tasks.dispatch", given), Task)


def as_it_stands(system: System, task: Task) -> Task:
    return msgspec.convert(system.call("tasks.get", {"id": task.id}), Task)


def until(system: System, task: Task, *states: TaskState) -> Task:
    """The task, once it is in one of these states."""

    def stands() -> Task | None:
        now = as_it_stands(system, task)
        return now if now.state in states else None

    found: Task = eventually(stands, f"{task.id} is {states}", seconds=40)
    return found


def ended(system: System, task: Task) -> Task:
    """The task at its end, however long it takes."""
    while not (waited := msgspec.convert(system.call("tasks.wait", {"ids": [task.id]}), Waited)).done:
        pass
    return waited.items[0]
