"""``perry tailnet``."""

import shlex

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json
from protocol.tailnet import JoinCommand, TailnetNode, TailnetStatus


@click.group()
def tailnet() -> None:
    """Look at the tailnet, or join it with one more device."""


@tailnet.command()
@as_json
def status(as_json: bool) -> None:
    """Show the tailnet: its coordinator, its owners, its devices."""
    shown = Client().call("tailnet.status", TailnetStatus)
    if as_json:
        output.data(shown)
        return
    output.pairs(
        [
            ("Provider", shown.provider),
            ("Ready", "yes" if shown.ready else "no"),
            ("Error", shown.error),
            ("Warning", shown.warning),
            ("Coordinator", shown.control_url),
            ("Credential", shown.credential),
            ("Expires", shown.credential_expires),
            ("Domain", shown.domain),
            ("Owners", ", ".join(shown.owners) or (None if shown.provider == "none" else "nobody")),
            ("", shown.owners_warning),
            ("Agent", _agent(shown)),
        ]
    )
    if shown.nodes:
        output.line()
        output.table(["NAME", "ADDRESS", "ONLINE", "WHOSE"], [_row(node) for node in shown.nodes])


@tailnet.command()
@as_json
def join(as_json: bool) -> None:
    """Print the command with which one more device of yours joins the tailnet. Its key is valid once, for a while."""
    shown = Client().call("tailnet.join", JoinCommand)
    if as_json:
        output.data(shown)
        return
    if shown.environment:
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in sorted(shown.environment.items()))
        output.note("First, on that device, with Tailscale installed, give its tailscaled this environment (on Linux a")
        output.note("line each in /etc/default/tailscaled, then `sudo systemctl restart tailscaled`):")
        output.note(f"  {output.clean(variables)}")
        output.note("Then run there:")
    else:
        output.note("On that device, with Tailscale installed, run:")
    output.line(output.clean(shown.command))
    for note in shown.notes:
        output.note(output.clean(note))
    output.note(f"The key in it is valid for one device, until {output.clean(shown.expires)}.")


@tailnet.command()
def leave() -> None:
    """Take the agent itself off the tailnet, and remove its node there. It joins again when it is started anew.

    Workspaces stay where they are. For before the agent is removed from its machine.
    """
    Client().call("tailnet.leave", object)
    output.line("The agent has left the tailnet; other devices do not find it any more.")


def _agent(shown: TailnetStatus) -> str | None:
    """Where devices reach the agent."""
    if (gateway := shown.gateway) is None:
        return None
    return f"http://{gateway.name}" + (f" ({gateway.error})" if gateway.error else "")


def _row(node: TailnetNode) -> list[str]:
    whose = f"workspace {node.workspace}" if node.workspace else node.user or ", ".join(node.tags)
    return [node.name, node.ips[0] if node.ips else "", "yes" if node.online else "no", whose]
