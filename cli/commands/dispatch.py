"""``perry dispatch``: gives a coding agent a task, and leaves."""

import secrets
import sys
import time
from typing import Any

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import Duration, as_json, workspace_name
from cli.errors import Lost, Misused
from protocol.tasks import DispatchTask, RemoveWhen, Task, TaskAgent, WakeWhen

RETRIES = 5


class Fallback(Duration):
    """A duration, or ``none``, which is 0."""

    name = "fallback"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return 0.0 if value == "none" else super().convert(value, param, ctx)


@click.command()
@workspace_name
@click.argument("task")
@click.option(
    "--agent",
    type=click.Choice([each.value for each in TaskAgent]),
    default=TaskAgent.OPENCODE.value,
    show_default=True,
    help="Who does it; with `command` the task is a command line for the workspace's shell.",
)
@click.option("--model", help="The agent's model, spelt as the agent spells it.")
@click.option("--timeout", type=Duration(), help="End it after so long, such as 45m.")
@click.option(
    "--wake",
    type=click.Choice([each.value for each in WakeWhen]),
    default=WakeWhen.NOW.value,
    show_default=True,
    help="How the gateway that waits is told of the end.",
)
@click.option(
    "--fallback",
    type=Fallback(),
    metavar="DURATION|none",
    help="Where nobody tells of an end, look after so long, and every so long; 20m unless configured otherwise.",
)
@click.option("--create", is_flag=True, help="Make the workspace where there is none.")
@click.option("--clone", metavar="URL|PATH", help="With --create: what to clone, as in `perry start`.")
@click.option("--branch", help="With --clone: the branch to work on.")
@click.option("--start", is_flag=True, help="Start the workspace where it is stopped.")
@click.option(
    "--remove-when",
    type=click.Choice([each.value for each in RemoveWhen]),
    default=RemoveWhen.NEVER.value,
    show_default=True,
    help="Delete the workspace after the task; never while it has work that is nowhere else.",
)
@click.option("--wait", is_flag=True, help="Wait for the end, and show the result.")
@as_json
def dispatch(
    name: str,
    task: str,
    agent: str,
    model: str | None,
    timeout: float | None,
    wake: str,
    fallback: float | None,
    create: bool,
    clone: str | None,
    branch: str | None,
    start: bool,
    remove_when: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Give the coding agent in workspace NAME a TASK, and return at once.

    The agent works in ~/NAME, without a terminal. TASK is passed on as it is, to the last byte; `-` reads it from
    stdin. What becomes of it: `perry tasks`.
    """
    if (clone or branch) and not create:
        raise click.UsageError("--clone and --branch are for a workspace that is made; add --create.")
    if branch is not None and clone is None:
        raise click.UsageError("--branch says which branch of --clone to work on; give both.")
    text = _from_stdin() if task == "-" else task
    if not text.strip():
        raise Misused("The task is empty; say what the agent is to do.")
    client = Client()
    client.check_version()
    origin = None
    if clone is not None:
        from cli.uploading import uploaded

        clone, origin, checked_out = uploaded(client, clone, None)
        branch = branch or checked_out
    wanted = DispatchTask(
        workspace=name,
        task=text,
        agent=TaskAgent(agent),
        model=model,
        timeout=timeout,
        wake=WakeWhen(wake),
        remove_when=RemoveWhen(remove_when),
        fallback=fallback,
        create=create,
        start=start,
        clone=clone,
        origin=origin,
        branch=branch,
        key=secrets.token_hex(16),
    )
    dispatched = _ask(client, wanted)
    if wait:
        from cli.commands.tasks import wait_and_show

        output.note(f"Task {dispatched.id} is dispatched; ctrl-C leaves it at work.")
        wait_and_show(client, dispatched.id, as_json=as_json)
        return
    if as_json:
        output.data(dispatched)
        return
    output.line(f"Task {output.styled(dispatched.id, 'bold')} is dispatched to {agent} in {name}.")
    output.line(f"  perry tasks logs -f {dispatched.id}   what it prints")
    output.line(f"  perry tasks wait {dispatched.id}      until it has ended")
    output.line(f"  perry tasks result {dispatched.id}    what it left")


def _ask(client: Client, wanted: DispatchTask) -> Task:
    """Ask until the answer has come: the request has a key, so that it makes one task."""
    for pause in range(RETRIES):
        try:
            return client.call("tasks.dispatch", Task, wanted)
        except Lost:
            time.sleep(0.2 * 2**pause)
    return client.call("tasks.dispatch", Task, wanted)


def _from_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as exc:
        raise Misused("The task on stdin is not UTF-8; convert it first.") from exc
