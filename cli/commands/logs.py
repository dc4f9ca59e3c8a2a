"""``perry logs``."""

import time

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json, workspace_name
from cli.errors import NotReachable
from protocol.workspaces import LogLine, LogLines, WorkspaceLogs

POLL_SECONDS = 1.0
MOST_LINES = 10_000


@click.command()
@workspace_name
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines as they come.")
@click.option("--tail", "-n", type=click.IntRange(1, MOST_LINES), default=200, show_default=True, help="Newest lines.")
@click.option("--since", metavar="TIME", help="Only lines after this RFC 3339 time.")
@as_json
def logs(name: str, follow: bool, tail: int, since: str | None, as_json: bool) -> None:
    """Show what a workspace's container and its sidecar log, oldest first. With --json, one object a line."""
    client = Client()
    newest = _show(client, WorkspaceLogs(name=name, tail=tail, since=since), (), as_json)
    while follow:
        time.sleep(POLL_SECONDS)
        try:
            wanted = WorkspaceLogs(name=name, tail=MOST_LINES, since=newest[-1].at if newest else since)
            newest = _show(client, wanted, newest, as_json) or newest
        except NotReachable:
            continue  # It may be restarting; whoever follows ends it with ctrl-C.


def _show(client: Client, wanted: WorkspaceLogs, shown: tuple[LogLine, ...], as_json: bool) -> tuple[LogLine, ...]:
    """Print what is not shown yet. Returns the lines of the newest moment: ``since`` may bring them once more."""
    items = client.call("workspaces.logs", LogLines, wanted).items
    for each in items:
        if each in shown:
            continue
        if as_json:
            output.data_line(each)
        else:
            source = output.styled(f"{each.source:9}", "dim")
            output.line(f"{output.styled(output.clean(each.at[:19]), 'dim')} {source} {output.clean(each.text)}")
    return tuple(each for each in items if each.at == items[-1].at)
