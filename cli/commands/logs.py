"""``perry logs``."""

import time
from urllib.parse import quote

import click
import msgspec

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json, workspace_name
from cli.errors import CliError, NotReachable
from protocol.workspaces import LogLine, LogLines, WorkspaceLogs

AGAIN_SECONDS = 1.0
QUIET_SECONDS = 60.0
"""The agent sends an empty line more often than that."""
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
    if follow:
        _follow(client, name, tail, since, as_json)
        return
    for line in client.call("workspaces.logs", LogLines, WorkspaceLogs(name=name, tail=tail, since=since)).items:
        _show(line, as_json)


def _follow(client: Client, name: str, tail: int, since: str | None, as_json: bool) -> None:
    """Until ctrl-C, over restarts of the control plane, or until the workspace is gone."""
    first = True
    while True:
        query = f"tail={tail}" + (f"&since={quote(since)}" if since else "")
        try:
            for raw in client.lines(f"/logs/{name}?{query}", seconds=QUIET_SECONDS):
                first = False
                if raw.strip():
                    line = _read(raw)
                    _show(line, as_json)
                    since, tail = line.at, MOST_LINES
        except NotReachable:
            if first:
                raise
            # It may be restarting; whoever follows ends it with ctrl-C.
        time.sleep(AGAIN_SECONDS)


def _read(raw: bytes) -> LogLine:
    try:
        return msgspec.json.decode(raw, type=LogLine)
    except msgspec.DecodeError as exc:
        raise CliError(f"The agent sent a line that this perry does not understand: {exc}.") from exc


def _show(line: LogLine, as_json: bool) -> None:
    if as_json:
        output.data_line(line)
        return
    source = output.styled(f"{line.source:9}", "dim")
    output.line(f"{output.styled(output.clean(line.at[:19]), 'dim')} {source} {output.clean(line.text)}", now=True)
