"""``perry cron``: what there is, and what became of it. How jobs are added: :mod:`.cron_add`."""

from typing import Final

import click

from cli import output, times
from cli.client import Client
from cli.commands.cron_add import add
from cli.commands.parameters import as_json
from cli.errors import CliError
from protocol.cron import Job, JobRef, JobRun, JobRuns, Jobs, ListJobs, Outcome, ReadHistory
from protocol.wake import SessionTarget

PAGE: Final = 500
HEADINGS: Final = ("NAME", "NEXT", "LAST", "SCHEDULE", "WHAT")
ALIASES: Final = {"create": "add", "rm": "remove", "delete": "remove", "runs": "history"}
NAME_COLUMNS: Final = 24
RUN_SECONDS: Final = 600.0


class Group(click.Group):
    """Takes clawdbot's names of its commands as well."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))


@click.group(cls=Group)
def cron() -> None:
    """Jobs that wake your assistant, look at a workspace, or dispatch a task: at a time, at intervals, or by the
    calendar.

    The agent runs them. What is missed while it is away runs once when it is back.
    """


cron.add_command(add)


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
        most = None if output.width() is None else NAME_COLUMNS
        output.table(
            HEADINGS, [_row(job, most) for job in jobs], [_reason(job.last) for job in jobs], least=output.LEAST_TEXT
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
@click.option("--force", is_flag=True, hidden=True, help="What clawdbot needs for one that is not due.")
@as_json
def run(name: str, force: bool, as_json: bool) -> None:
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
@click.option("--id", "id_", hidden=True, help="The same, as clawdbot has it.")
@click.option("--limit", type=click.IntRange(1, PAGE), default=50, show_default=True)
@as_json
def history(name: str | None, id_: str | None, limit: int, as_json: bool) -> None:
    """Show runs, the newest first: of one job (also of one that is gone), or of all."""
    found = Client().call("cron.history", JobRuns, ReadHistory(job=name or id_, limit=limit))
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
        least=output.LEAST_TEXT,
    )
    if found.more:
        output.note(f"There are more; --limit shows more than {limit}.")


def _row(job: Job, most: int | None) -> list[str]:
    return [
        output.cut(output.clean(job.name), most),
        "never" if job.next is None else times.coming(job.next),
        "" if job.last is None else _ended(job.last),
        _schedule(job),
        _what(job),
    ]


def _what(job: Job) -> str:
    text = " ".join((job.text or "").split())
    if job.action == "check":
        return f"check {job.workspace}" + (f": {text}" if text != f"check {job.workspace}" else "")
    if job.action == "dispatch":
        return f"{job.agent} in {job.workspace}: {text}"
    return f"{text} (in a session of its own)" if job.session == SessionTarget.ISOLATED else text


def _schedule(job: Job) -> str:
    if job.at is not None:
        return "once"
    if job.every is not None:
        return f"every {times.interval(job.every)}"
    return f"{job.cron} {job.tz}"


def _ended(run: JobRun) -> str:
    return f"{run.outcome}, {times.ago(run.ended or run.started)}"


def _reason(run: JobRun | None) -> str | None:
    return run.detail if run is not None and run.outcome is Outcome.FAILED else None


def _late(run: JobRun) -> str:
    seconds = (run.started - run.due).total_seconds()
    return times.span(seconds) if seconds >= 1 else ""
