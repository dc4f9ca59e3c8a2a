"""``perry cron``."""

from typing import Final

import click

from cli import output, times
from cli.client import Client
from cli.commands.parameters import as_json
from cli.errors import CliError
from protocol.cron import (
    AddJob,
    Job,
    JobRef,
    JobRun,
    JobRuns,
    Jobs,
    ListJobs,
    Outcome,
    ReadHistory,
    SessionTarget,
)
from protocol.wake import WakeMode

PAGE: Final = 500
HEADINGS: Final = ("NAME", "NEXT", "LAST", "SCHEDULE", "MESSAGE")
NAME_COLUMNS: Final = 24
WIDE: Final = 100
"""Columns of a terminal that has room for messages."""
RUN_SECONDS: Final = 600.0


@click.group()
def cron() -> None:
    """Jobs that wake your assistant: at a time, at intervals, or by the calendar.

    The agent runs them. What is missed while it is away runs once when it is back.
    """


@cron.command()
@click.option("--name", help="A name to find it by; without one it gets one.")
@click.option("--at", metavar="WHEN", help="Once: 20m from now, or a time such as 2026-12-01T09:00+01:00.")
@click.option("--every", metavar="INTERVAL", help="At intervals: 90s, 20m, 1h30m, 2d.")
@click.option("--cron", "line", metavar="LINE", help="By a cron line of five fields, such as '0 9 * * MON-FRI'.")
@click.option("--tz", metavar="ZONE", help="The zone of --cron (this device's, unless you say) and --at.")
@click.option("--message", metavar="TEXT", help="What your assistant is told.")
@click.option("--system-event", metavar="TEXT", help="The same, as clawdbot calls it.")
@click.option(
    "--session",
    type=click.Choice([each.value for each in SessionTarget]),
    default="main",
    show_default=True,
    help="A session of its own cannot be asked for yet.",
)
@click.option(
    "--wake",
    type=click.Choice([each.value for each in WakeMode]),
    default="now",
    show_default=True,
    help="When your assistant looks at it.",
)
@click.option("--delete-after-run", is_flag=True, help="With --at: forget it once it has run and not failed.")
@as_json
def add(
    name: str | None,
    at: str | None,
    every: str | None,
    line: str | None,
    tz: str | None,
    message: str | None,
    system_event: str | None,
    session: str,
    wake: str,
    delete_after_run: bool,
    as_json: bool,
) -> None:
    """Add a job.

    perry cron add --at 20m --message 'Fallback check: is issue 78 done?'
    """
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


@cron.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the jobs, those that run next first. Times are this device's."""
    client, jobs, cursor = Client(), list[Job](), None
    while True:
        page = client.call("cron.list", Jobs, ListJobs(cursor=cursor, limit=PAGE))
        jobs += page.items
        if (cursor := page.next_cursor) is None:
            break
    if as_json:
        output.data(jobs)
    elif not jobs:
        output.note("There are no jobs; `perry cron add --at 20m --message 'what to tell your assistant'` adds one.")
    else:
        columns = output.width()
        shown = HEADINGS if columns is None or columns >= WIDE else HEADINGS[:-1]
        output.table(
            shown,
            [_row(job, None if columns is None else NAME_COLUMNS)[: len(shown)] for job in jobs],
            [_reason(job.last) for job in jobs],
        )


@cron.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Remove jobs, by their names or ids. Their history stays for a while."""
    client = Client()
    for name in names:
        job = client.call("cron.remove", Job, JobRef(job=name))
        output.line(f"{output.clean(job.name)} is removed.")


@cron.command()
@click.argument("name")
@as_json
def run(name: str, as_json: bool) -> None:
    """Run a job now. When it is due stays."""
    ran = Client().call("cron.run", JobRun, JobRef(job=name), seconds=RUN_SECONDS)
    if as_json:
        output.data(ran)
    elif ran.outcome is not Outcome.FAILED:
        output.line(f"{output.clean(ran.job)} ran: {output.clean(ran.detail or ran.outcome)}.")
    if ran.outcome is Outcome.FAILED:
        raise CliError(f"{ran.job} failed: {ran.detail}")


@cron.command()
@click.argument("name", required=False)
@click.option("--limit", type=click.IntRange(1, PAGE), default=50, show_default=True)
@as_json
def history(name: str | None, limit: int, as_json: bool) -> None:
    """Show runs, the newest first: of one job (also of one that is gone), or of all."""
    found = Client().call("cron.history", JobRuns, ReadHistory(job=name, limit=limit))
    if as_json:
        output.data(found)
        return
    if not found.items:
        output.note("Nothing has run yet.")
        return
    output.table(
        ["STARTED", "JOB", "OUTCOME", "LATE", "DETAIL"],
        [
            [
                f"{each.started.astimezone():%Y-%m-%d %H:%M:%S}",
                each.job,
                f"{each.outcome}, by hand" if each.by_hand else each.outcome,
                _late(each),
                each.detail or "",
            ]
            for each in found.items
        ],
    )
    if found.more:
        output.note(f"There are more; --limit shows more than {limit}.")


def _zone_here() -> str | None:
    """This device's zone, by its name; None where it does not know."""
    import tzlocal

    try:
        return tzlocal.get_localzone_name()
    except (LookupError, ValueError, OSError):
        return None


def _row(job: Job, most: int | None) -> list[str]:
    return [
        output.cut(output.clean(job.name), most),
        "never" if job.next is None else times.coming(job.next),
        "" if job.last is None else _ended(job.last),
        _schedule(job),
        " ".join((job.text or "").split()),
    ]


def _schedule(job: Job) -> str:
    if job.at is not None:
        return "once"
    if job.every is not None:
        return f"every {times.interval(job.every)}"
    return f"{job.cron} {job.tz}"


def _how_often(job: Job) -> str:
    if job.at is not None:
        return "once, and is forgotten then" if job.delete_after_run else "once"
    if job.every is not None:
        return f"and every {times.interval(job.every)}"
    return f"by '{output.clean(job.cron or '')}' in {output.clean(job.tz or '')}"


def _ended(run: JobRun) -> str:
    return f"{run.outcome}, {times.ago(run.ended or run.started)}"


def _reason(run: JobRun | None) -> str | None:
    return run.detail if run is not None and run.outcome is Outcome.FAILED else None


def _late(run: JobRun) -> str:
    seconds = (run.started - run.due).total_seconds()
    return times.span(seconds) if seconds >= 1 else ""
