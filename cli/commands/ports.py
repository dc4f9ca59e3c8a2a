"""``perry ports``."""

import click

from cli import output
from cli.client import Client
from cli.commands import ssh
from cli.commands.parameters import as_json, workspace_name
from protocol.workspaces import ListeningPort, ListeningPorts, TailnetState, Workspace, WorkspaceRef


@click.command()
@workspace_name
@as_json
def ports(name: str, as_json: bool) -> None:
    """Show what listens in a workspace, and how this device gets there."""
    client = Client()
    found = client.call("workspaces.ports", ListeningPorts, WorkspaceRef(name=name)).items
    if as_json:
        output.data(found)
        return
    workspace = client.call("workspaces.get", Workspace, WorkspaceRef(name=name))
    host = ssh.on_tailnet(workspace) if workspace.tailnet.status is TailnetState.ONLINE else None
    output.table(
        ["PORT", "ADDRESS", "PROCESS", "REACH IT"],
        [[f"{each.port}/{each.protocol}", each.address, each.process or "", _way(name, host, each)] for each in found],
    )


def _way(name: str, host: str | None, port: ListeningPort) -> str:
    """``host`` is the workspace on the tailnet, where this device is on it."""
    if port.port == 22:
        return f"perry ssh {name}"
    if host and not port.loopback:
        return f"{host}:{port.port}" if port.protocol == "udp" else f"http://{host}:{port.port}"
    return "" if port.protocol == "udp" else f"perry proxy {name} {port.port}"
