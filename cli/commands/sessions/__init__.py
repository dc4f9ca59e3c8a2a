"""``perry sessions``: what the coding agents do and did, in all workspaces."""

import click

from cli.commands.sessions import changing, listing, reading, resuming, watching


@click.group()
def sessions() -> None:
    """The sessions of coding agents, in all workspaces: running ones, stopped ones, and what was said in them.

    A session's ID may be shortened as long as it is the only one that begins so. Where two workspaces have the same,
    alpha/ID is the one in alpha.
    """


for each in (
    listing.list_,
    listing.show,
    reading.messages,
    listing.search,
    watching.watch,
    resuming.resume,
    changing.rename,
    changing.delete,
    reading.export,
):
    sessions.add_command(each)
