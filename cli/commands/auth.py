"""``perry auth``."""

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json
from protocol.auth import WhoAmI


@click.group()
def auth() -> None:
    """How the agent recognises you, and what you may."""


@auth.command()
@as_json
def whoami(as_json: bool) -> None:
    """Show how the agent recognises you: by its token, or by this device's place on the tailnet."""
    client = Client()
    shown = client.call("auth.whoami", WhoAmI)
    if as_json:
        output.data(shown)
        return
    output.pairs(
        [
            ("Agent", f"{client.target.url}, named by {client.target.source}"),
            ("You are", shown.kind),
            ("Login", shown.login),
            ("Device", shown.node),
            ("Workspace", shown.workspace),
            ("Tags", ", ".join(shown.tags)),
            ("Capabilities", ", ".join(shown.capabilities)),
            ("You may", ", ".join(shown.may)),
        ]
    )
