"""``perry cron add``: clawdbot's flags for when and what, and Perry's own for looks and tasks."""

from typing import Final

import click

from cli import output, times
from cli.client import Client
from cli.commands.dispatch import Fallback
from cli.commands.parameters import Duration, Model, WorkspaceName, as_json
from protocol.cron import AddJob, Job
from protocol.tasks import LONGEST, DispatchTask, RemoveWhen, TaskAgent, WakeWhen
from protocol.wake import SessionTarget, WakeMode

OF_TASKS: Final = {
    "agent": "--agent",
    "model": "--model",
    "timeout": "--timeout",
    "fallback": "--fallback",
    "create": "--create",
    "clone": "--clone",
    "branch": "--branch",
    "start": "--start",
    "remove_when": "--remove-when",
}
"""Flags that mean something with --dispatch alone, by their parameters."""


@click.command()
@click.option("--name", help="A name to find it by; without one it gets one.")
@click.option("--at", metavar="WHEN", help="Once: 20m from now, or a time such as 2026-12-01T09:00+01:00.")
@click.option("--every", metavar="INTERVAL", help="At intervals: 90s, 20m, 1h30m, 2d.")
@click.option("--cron", "line", metavar="LINE", help="By a cron line of five fields, such as '0 9 * * MON-FRI'.")
@click.option("--tz", metavar="ZONE", help="The zone of --cron (this device's, unless you say) and --at.")
@click.option(
    "--message", metavar="TEXT", help="What your assistant is told; with --dispatch, what the agent is to do."
)
@click.option("--system-event", metavar="TEXT", help="The same, as clawdbot calls it for the main session.")
@click.option(
    "--check",
    type=WorkspaceName(),
    metavar="WORKSPACE",
    help="Look at what goes on in a workspace, and tell your assistant what that comes to.",
)
@click.option("--dispatch", type=WorkspaceName(), metavar="WORKSPACE", help="Give the agent there --message as a task.")
@click.option(
    "--session",
    type=click.Choice([each.value for each in SessionTarget]),
    default="main",
    show_default=True,
    help="Where your assistant takes it up: in its main session, or in one of its own.",
)
@click.option(
    "--wake",
    type=click.Choice([each.value for each in WakeWhen]),
    default="now",
    show_default=True,
    help="When your assistant looks at it; `none` is for --dispatch.",
)
@click.option("--delete-after-run", is_flag=True, help="With --at: forget it once it has run and not failed.")
@click.option(
    "--agent", type=click.Choice([each.value for each in TaskAgent]), help="With --dispatch: who does it.  [opencode]"
)
@click.option("--model", type=Model(), help="With --dispatch: the agent's model, spelt as the agent spells it.")
@click.option("--timeout", type=Duration(LONGEST), help="With --dispatch: end the task after so long, such as 45m.")
@click.option(
    "--fallback", type=Fallback(), metavar="DURATION|none", help="With --dispatch: as `perry dispatch` takes it."
)
@click.option("--create", is_flag=True, help="With --dispatch: make the workspace where there is none.")
@click.option("--clone", metavar="URL", help="With --create: what to clone.")
@click.option("--branch", help="With --clone: the branch to work on.")
@click.option("--start", is_flag=True, help="With --dispatch: start the workspace where it is stopped.")
@click.option(
    "--remove-when",
    type=click.Choice([each.value for each in RemoveWhen]),
    help="With --dispatch: delete the workspace after the task.  [never]",
)
@as_json
@click.pass_context
def add(
    ctx: click.Context,
    name: str | None,
    at: str | None,
    every: str | None,
    line: str | None,
    tz: str | None,
    message: str | None,
    system_event: str | None,
    check: str | None,
    dispatch: str | None,
    session: str,
    wake: str,
    delete_after_run: bool,
    agent: str | None,
    model: str | None,
    timeout: float | None,
    fallback: float | None,
    create: bool,
    clone: str | None,
    branch: str | None,
    start: bool,
    remove_when: str | None,
    as_json: bool,
) -> None:
    """Add a job.

    \b
    perry cron add --at 20m --message 'Fallback check: is issue 78 done?'
    perry cron add --every 1h --check alpha
    perry cron add --cron '0 3 * * *' --dispatch alpha --message 'Update what it depends on, test, and push.'
    """
    task = None
    if dispatch is not None:
        if check is not None:
            raise click.UsageError("--dispatch and --check are two jobs; add one for each.")
        if not (text := message if message is not None else system_event):
            raise click.UsageError("--dispatch needs --message 'what the agent is to do'.")
        if session != SessionTarget.MAIN:
            raise click.UsageError("A task's end wakes the main session; leave --session away with --dispatch.")
        if branch is not None and clone is None:
            raise click.UsageError("--branch says which branch of --clone to work on; give both.")
        if clone is not None:
            from cli.bundle import local_path

            if local_path(clone) is not None:
                raise click.UsageError("A job clones when it runs, and a path here may be gone then; give a URL.")
        task = DispatchTask(
            workspace=dispatch,
            task=text,
            agent=TaskAgent(agent or TaskAgent.OPENCODE),
            model=model,
            timeout=timeout,
            wake=WakeWhen(wake),
            remove_when=RemoveWhen(remove_when or RemoveWhen.NEVER),
            create=create,
            start=start,
            clone=clone,
            branch=branch,
            fallback=fallback,
        )
        message, system_event, wake = None, None, WakeMode.NOW
    elif given := [flag for parameter, flag in OF_TASKS.items() if ctx.params[parameter] not in (None, False)]:
        raise click.UsageError(f"{given[0]} is for a task; add --dispatch WORKSPACE.")
    elif wake == WakeWhen.NONE:
        raise click.UsageError("--wake none is for a task (--dispatch); any other job is there to wake.")
    job = Client().call(
        "cron.add",
        Job,
        AddJob(
            name=name,
            at=at,
            every=every,
            cron=line,
            tz=tz or (_zone_here() if line is not None else None),
            message=message,
            system_event=system_event,
            check=check,
            dispatch=task,
            session=SessionTarget(session),
            wake=WakeMode(wake),
            delete_after_run=delete_after_run,
        ),
    )
    if as_json:
        output.data(job)
        return
    then = "" if job.next is None else times.coming(job.next)
    output.line(f"{output.clean(job.name)} runs {then}, {_how_often(job)}.")


def _zone_here() -> str | None:
    """This device's zone, by its name; None where it does not know."""
    import tzlocal

    try:
        return tzlocal.get_localzone_name()
    except (LookupError, ValueError, OSError):
        return None


def _how_often(job: Job) -> str:
    if job.at is not None:
        return "once, and is forgotten then" if job.delete_after_run else "once"
    if job.every is not None:
        return f"and every {times.interval(job.every)}"
    return f"by '{output.clean(job.cron or '')}' in {output.clean(job.tz or '')}"
