"""``perry dispatch``: gives a coding agent a task, and leaves; or many agents one each, which is a batch."""

import secrets
import sys
import time
from typing import Any, TypeVar

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import Duration, Model, WorkspaceName, as_json
from cli.errors import Lost, Misused
from protocol.batches import PARALLEL_LIMIT, Batch, BatchPlan, StartBatch
from protocol.tasks import LONGEST, DispatchTask, RemoveWhen, Task, TaskAgent, WakeWhen

T = TypeVar("T")

RETRIES = 5


class Fallback(Duration):
    """A duration, or ``none``, which is 0."""

    name = "fallback"
    written = "20m, 1h30m, 2d or none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        return 0.0 if value == "none" else super().convert(value, param, ctx)


def _names(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Completes the name of a workspace, where that stands."""
    return [] if context.params.get("words") else WorkspaceName().shell_complete(context, parameter, incomplete)


@click.command()
@click.argument("words", metavar="[NAME] TASK", nargs=-1, shell_complete=_names)
@click.option(
    "--each",
    metavar="ITEMS",
    multiple=True,
    help="A batch: for each of these items (86,87,88 or 86-90; `-`: the lines of stdin) the task in a workspace of its "
    "own. {} stands for the item in TASK, --name, --clone and --branch.",
)
@click.option("--file", metavar="FILE", help="A batch from a TOML file, which may have any of these options.")
@click.option("--name", metavar="TEMPLATE", help="With --each: the names of the workspaces, such as 'review-{}'.")
@click.option(
    "--parallel",
    type=click.IntRange(1, PARALLEL_LIMIT),
    default=5,
    show_default=True,
    help="Of a batch: so many items at once.",
)
@click.option("--collect", metavar="DIR", help="Of a batch: put what each item left into files there.")
@click.option("--reuse", is_flag=True, help="Of a batch: work in workspaces that exist; they are never deleted.")
@click.option("--wake-each", is_flag=True, help="Of a batch: each item's end wakes, and not only the last.")
@click.option("--dry-run", is_flag=True, help="Of a batch: show what would be done, and do nothing.")
@click.option(
    "--agent",
    type=click.Choice([each.value for each in TaskAgent]),
    default=TaskAgent.OPENCODE.value,
    show_default=True,
    help="Who does it; with `command` the task is a command line for the workspace's shell.",
)
@click.option("--model", type=Model(), help="The agent's model, spelt as the agent spells it.")
@click.option("--timeout", type=Duration(LONGEST), help="End it after so long, such as 45m.")
@click.option(
    "--wake",
    type=click.Choice([each.value for each in WakeWhen]),
    default=WakeWhen.NOW.value,
    show_default=True,
    help="How the gateway that waits is told of the end.",
)
@click.option(
    "--fallback",
    type=Fallback(LONGEST),
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
@click.option(
    "--wait/--no-wait",
    default=None,
    help="Wait for the end, and show the result. A batch is watched to its end unless --no-wait is given.",
)
@as_json
@click.pass_context
def dispatch(
    context: click.Context,
    words: tuple[str, ...],
    each: tuple[str, ...],
    file: str | None,
    name: str | None,
    parallel: int,
    collect: str | None,
    reuse: bool,
    wake_each: bool,
    dry_run: bool,
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
    wait: bool | None,
    as_json: bool,
) -> None:
    """Give the coding agent in workspace NAME a TASK, and return at once.

    The agent works in ~/NAME, without a terminal. TASK is passed on as it is, to the last byte; `-` reads it from
    stdin. What becomes of it: `perry tasks`.

    With --each or --file it is a batch: each item has its task in a new workspace of its own, some at a time, and one
    wake tells of the end. What becomes of it: `perry batches`.
    """
    if each or file is not None:
        _batch(context, words, wait=wait, as_json=as_json, dry_run=dry_run)
        return
    _refuse_batch_options(context)
    if len(words) != 2:
        raise click.UsageError("Name a workspace and a task; or items, with --each or --file, and a task.")
    name, task = WorkspaceName().convert(words[0], None, context), words[1]
    if (clone or branch) and not create:
        raise click.UsageError("--clone and --branch are for a workspace that is made; add --create.")
    if branch is not None and clone is None:
        raise click.UsageError("--branch says which branch of --clone to work on; give both.")
    text = _task(task)
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
    dispatched = _asked(client, "tasks.dispatch", Task, wanted)
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


BATCH_ONLY = ("name", "parallel", "collect", "reuse", "wake_each", "dry_run")


def _refuse_batch_options(context: click.Context) -> None:
    for option in BATCH_ONLY:
        if _typed(context, option):
            raise click.UsageError(
                f"--{option.replace('_', '-')} is for a batch; name its items with --each or --file."
            )


def _typed(context: click.Context, option: str) -> bool:
    return context.get_parameter_source(option) is click.core.ParameterSource.COMMANDLINE


def _batch(context: click.Context, words: tuple[str, ...], *, wait: bool | None, as_json: bool, dry_run: bool) -> None:
    from cli.batches import asking
    from cli.commands import batches

    if len(words) > 1:
        raise click.UsageError("A batch takes one TASK, in quotes; its workspaces are named with --name.")
    if "-" in words and "-" in context.params["each"]:
        raise click.UsageError("Either the task or the items come from stdin; give one of them.")
    asked = asking.asked(context.params, lambda option: _typed(context, option), _task(words[0]) if words else None)
    if wait is False and _typed(context, "collect"):
        raise click.UsageError("--collect waits for the results; without waiting, `perry batches collect` gets them.")
    client = Client()
    client.check_version()
    if asked.collect is not None and wait is not False and not dry_run:
        from cli.batches.collecting import Folder

        Folder(asked.collect).take(None)
    batch = asking.with_repositories(client, asked.batch, dry=dry_run)
    if dry_run:
        plan = client.call("batches.plan", BatchPlan, batch)
        if as_json:
            output.data(plan)
        else:
            batches.show_plan(plan.items, batch)
        return
    begun = _asked(client, "batches.start", Batch, batch)
    if wait is not False:
        batches.watch_and_show(client, begun, asked.collect, as_json=as_json)
    elif as_json:
        output.data(begun)
    else:
        batches.tell(begun)


def _task(word: str) -> str:
    text = _from_stdin() if word == "-" else word
    if not text.strip():
        raise Misused("The task is empty; say what the agent is to do.")
    return text


def _asked(client: Client, procedure: str, output: type[T], wanted: DispatchTask | StartBatch) -> T:
    """Ask until the answer has come: the request has a key, so that it is done once."""
    for pause in range(RETRIES):
        try:
            return client.call(procedure, output, wanted)
        except Lost:
            time.sleep(0.2 * 2**pause)
    return client.call(procedure, output, wanted)


def _from_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as exc:
        raise Misused("The task on stdin is not UTF-8; convert it first.") from exc
