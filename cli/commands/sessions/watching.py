"""``perry sessions watch``."""

import sys
from typing import TYPE_CHECKING, Final

import click

from cli.client import Client
from cli.commands.parameters import WorkspaceName

if TYPE_CHECKING:
    from cli.sessions.live import View

FRAME_SECONDS: Final = 0.1


@click.command()
@click.option("--workspace", "-w", type=WorkspaceName(), help="Those in one workspace.")
@click.option("--all", "-a", "all_", is_flag=True, help="Sessions of subagents too.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print each change as a line of JSON, and nothing else, on stdout."
)
def watch(workspace: str | None, all_: bool, as_json: bool) -> None:
    """Watch sessions while the agents work.

    Ends with ctrl-C. On a terminal the list of `perry sessions list`, live, with what is said; elsewhere a line for
    each change.
    """
    from cli.sessions.feed import Feed
    from cli.sessions.live import view

    shown: View = view(sys.stdout, as_json=as_json, subagents=all_)
    try:
        with Feed(Client(), workspace) as feed:
            while True:
                frame = feed.receive(FRAME_SECONDS)
                shown.say("The agent does not answer; trying again …" if feed.away else None)
                if frame is not None:
                    shown.update(frame)
                    feed.listen_to(shown.wanted)
                shown.tick()
    finally:
        shown.close()
