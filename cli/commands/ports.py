"""``perry ports``."""

import click

from cli import output
from cli.client import Client
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
    output.table(
        ["PORT", "ADDRESS", "PROCESS", "REACH IT"],
        [[f"{each.port}/{each.protocol}", each.address, each.process or "", _way(workspace, each)] for each in found],
    )


def _way(workspace: Workspace, port: ListeningPort) -> str:
    if port.port == 22:
        return f"perry ssh {workspace.name}"
    online = workspace.tailnet.status is TailnetState.ONLINE
    if port.protocol == "udp":
        return f"{workspace.tailnet.hostname}:{port.port}" if online and not port.loopback else ""
    if online and not port.loopback:
        return f"http://{workspace.tailnet.hostname}:{port.port}"
    return f"perry proxy {workspace.name} {port.port}"
