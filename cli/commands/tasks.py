"""``perry tasks``: what became of dispatched tasks."""

import sys
import time
from collections.abc import Sequence
from typing import Final

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import Duration, WorkspaceName, as_json
from cli.errors import Interrupted
from cli.task_names import task_id
from protocol.tasks import (
    ENDED,
    ListTasks,
    ReadTaskLogs,
    RemoveWhen,
    Task,
    TaskLogs,
    TaskRef,
    TaskResult,
    Tasks,
    TaskState,
    Waited,
    WaitForTasks,
)

POLL_SECONDS: Final = 50.0
LOG_PIECE: Final = 1 << 18
FOLLOW_SECONDS: Final = 0.5
STYLE: Final = {
    TaskState.SUCCEEDED: "green",
    TaskState.FAILED: "red",
    TaskState.LOST: "red",
    TaskState.WAITING: "yellow",
    TaskState.STALLED: "yellow",
}
GOES: Final[dict[str, str]] = {RemoveWhen.SUCCESS: "when it has succeeded", RemoveWhen.DONE: "when it has ended"}

NOT_SUCCEEDED: Final = 1
NEEDS_A_PERSON: Final = 8
NOT_YET: Final = 124
"""Exit codes of `wait`, besides 0."""


@click.group()
def tasks() -> None:
    """What became of the tasks that were dispatched.

    A TASK is called by its id, or by the name of its workspace, which means the latest one there.
    """


@tasks.command("list")
@click.option("--workspace", type=WorkspaceName(), help="Those in one workspace.")
@click.option("--state", type=click.Choice([each.value for each in TaskState]), help="Those in one state.")
@click.option("--limit", type=click.IntRange(1, 500), default=50, show_default=True)
@as_json
def list_(workspace: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List tasks, the newest first."""
    found = Client().call("tasks.list", Tasks, ListTasks(workspace=workspace, state=state, limit=limit))
    if as_json:
        output.data(found)
        return
    if not found.items:
        some = workspace is not None or state is not None
        output.note(
            "No task is like that; `perry tasks list` shows all."
            if some
            else "There are no tasks; `perry dispatch <workspace> '<task>'` gives an agent one."
        )
        return
    output.table(
        ["ID", "STATE", "WORKSPACE", "AGENT", "AGE", "TOOK", "TASK"],
        [
            [each.id, each.state, each.workspace, each.agent, _age(each), _took(each), " ".join(each.text.split())]
            for each in found.items
        ],
        [each.reason for each in found.items],
        least=output.LEAST_TEXT,
    )
    if found.next_cursor is not None:
        output.note(f"There are more; --limit shows more than {limit}.")


@tasks.command()
@click.argument("name", metavar="TASK")
@as_json
def show(name: str, as_json: bool) -> None:
    """Show one task."""
    client = Client()
    task = client.call("tasks.get", Task, TaskRef(id=task_id(client, name)))
    if as_json:
        output.data(task)
        return
    output.pairs(
        [
            ("Task", task.id),
            ("State", task.state),
            ("Reason", task.reason),
            ("Workspace", task.workspace),
            ("Agent", task.agent + (f", {task.model}" if task.model else "")),
            ("Session", task.session_id),
            ("Dispatched", f"{task.created.astimezone():%Y-%m-%d %H:%M:%S} ({_age(task)} ago)"),
            ("Took", _took(task)),
            ("Exit code", None if task.exit_code is None else str(task.exit_code)),
            ("Wake", task.wake_id or _wake(task)),
            ("Workspace goes", _goes(task)),
            ("Text", task.text),
        ]
    )


@tasks.command()
@click.argument("name", metavar="TASK")
@click.option("--follow", "-f", is_flag=True, help="Go on until the task has ended.")
@click.option("--tail", type=click.IntRange(1), metavar="BYTES", help="Begin so many bytes before the end.")
def logs(name: str, follow: bool, tail: int | None) -> None:
    """Print what the agent prints."""
    client = Client()
    id_ = task_id(client, name)
    offset = -tail if tail is not None else 0
    while True:
        wanted = ReadTaskLogs(id=id_, offset=offset, limit=LOG_PIECE)
        piece = client.call("tasks.logs", TaskLogs, wanted)
        sys.stdout.write(output.harmless(piece.text))
        sys.stdout.flush()
        offset = piece.next
        if offset < piece.size:
            continue
        if not follow or piece.ended:
            return
        time.sleep(FOLLOW_SECONDS)


@tasks.command()
@click.argument("names", metavar="TASK...", nargs=-1, required=True)
@click.option("--any", "any_", is_flag=True, help="Until one of them has ended, or waits for a person.")
@click.option("--all", "all_", is_flag=True, help="Until all of them have, which is the default.")
@click.option("--timeout", type=Duration(), help="Give up after so long, such as 20m.")
@as_json
def wait(names: tuple[str, ...], any_: bool, all_: bool, timeout: float | None, as_json: bool) -> None:
    """Wait until tasks have ended, or one of them needs a person.

    Exit codes: 0 all of those that have ended succeeded, 1 one did not, 8 one waits for a person, 124 the time is over.
    """
    if any_ and all_:
        raise click.UsageError("--any and --all exclude each other.")
    client = Client()
    waited = _wait(client, [task_id(client, name) for name in names], any_=any_, timeout=timeout)
    if as_json:
        output.data(waited)
    else:
        for task in waited.items:
            output.line(_line(task))
    code = _exit_code(waited)
    if code:
        sys.exit(code)


@tasks.command()
@click.argument("names", metavar="TASK...", nargs=-1, required=True)
def cancel(names: tuple[str, ...]) -> None:
    """End tasks, with all the processes of each. What they have changed stays."""
    client = Client()
    for name in names:
        output.line(_line(client.call("tasks.cancel", Task, TaskRef(id=task_id(client, name)))))


@tasks.command()
@click.argument("name", metavar="TASK")
@as_json
def result(name: str, as_json: bool) -> None:
    """Show what a task has left: the agent's last message, the commits, the size of the diff."""
    client = Client()
    _show_result(client, task_id(client, name), as_json=as_json)


def wait_and_show(client: Client, id_: str, *, as_json: bool) -> None:
    """Wait for the end, show the result, and end with the exit code of `wait`."""
    try:
        waited = _wait(client, [id_], any_=False, timeout=None)
    except KeyboardInterrupt as exc:
        raise Interrupted(
            f"Interrupted here; the task goes on. `perry tasks wait {id_}` waits again, "
            f"`perry tasks cancel {id_}` ends it."
        ) from exc
    _show_result(client, id_, as_json=as_json)
    if code := _exit_code(waited):
        sys.exit(code)


def _wait(client: Client, ids: Sequence[str], *, any_: bool, timeout: float | None) -> Waited:
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        left = POLL_SECONDS if end is None else max(0.0, min(POLL_SECONDS, end - time.monotonic()))
        wanted = WaitForTasks(ids=list(ids), any=any_, timeout=left)
        waited = client.call("tasks.wait", Waited, wanted, seconds=left + 30)
        if waited.done or (end is not None and time.monotonic() >= end):
            return waited


def _exit_code(waited: Waited) -> int:
    states = [task.state for task in waited.items]
    if TaskState.WAITING in states:
        return NEEDS_A_PERSON
    if any(state in ENDED and state is not TaskState.SUCCEEDED for state in states):
        return NOT_SUCCEEDED
    return 0 if waited.done else NOT_YET


def _show_result(client: Client, id_: str, *, as_json: bool) -> None:
    found = client.call("tasks.result", TaskResult, TaskRef(id=id_), seconds=60)
    if as_json:
        output.data(found)
        return
    output.line(_line(found.task))
    if found.last_message:
        output.line()
        for line in found.last_message.splitlines():
            output.line(output.clean(line))
    if found.commits:
        output.line()
        output.table(["COMMIT", "SUBJECT"], [[each.id[:10], each.subject] for each in found.commits])
    if found.diff_stat:
        output.line()
        for line in found.diff_stat.splitlines():
            output.line(output.clean(line))
    if found.uncommitted:
        output.warn(f"{_files(found.uncommitted)} in no commit.")
    if found.unpushed:
        output.warn(f"{_commits(found.unpushed)} not pushed.")
    if found.unknown:
        output.note(output.clean(found.unknown))


def _goes(task: Task) -> str:
    """When its workspace is deleted, and what has become of that."""
    return f"{GOES.get(task.remove_when, task.remove_when)}{f' ({task.removal})' if task.removal else ''}"


def _files(count: int) -> str:
    return "1 file is" if count == 1 else f"{count} files are"


def _commits(count: int) -> str:
    return "1 commit is" if count == 1 else f"{count} commits are"


def _line(task: Task) -> str:
    state = output.styled(task.state, STYLE[task.state]) if task.state in STYLE else str(task.state)
    took = f" after {_took(task)}" if task.state in ENDED and task.started else ""
    reason = f": {output.clean(task.reason)}" if task.reason else ""
    return f"{task.id} ({task.agent} in {task.workspace}) {state}{took}{reason}"


def _wake(task: Task) -> str:
    """Of one that nothing was told of."""
    if task.wake == "none":
        return "none was wished"
    return "none of its own" if task.state in ENDED else "when it ends"


def _age(task: Task) -> str:
    return output.age(task.created.isoformat())


def _took(task: Task) -> str:
    if task.started is None:
        return ""
    if task.ended is None:
        return output.age(task.started.isoformat())
    return output.duration(max((task.ended - task.started).total_seconds(), 0))
