"""``perry clone``: asks for a copy of a workspace, and follows it until that runs."""

import sys
import time

import click

from cli import output
from cli.client import Client
from cli.commands import ssh_config
from cli.commands.parameters import WorkspaceName, as_json
from cli.commands.start import follow, tell
from cli.errors import CliError
from cli.steps import view
from protocol.workspaces import CloneWorkspace, StartupState, Workspace


@click.command()
@click.argument("name", type=WorkspaceName(), metavar="WORKSPACE")
@click.argument("new", type=WorkspaceName())
@click.option("--no-wait", is_flag=True, help="Return at once; the copying goes on.")
@as_json
def clone(name: str, new: str, no_wait: bool, as_json: bool) -> None:
    """Make NEW a copy of a workspace: its home, its Docker, and what was installed in it.

    WORKSPACE runs on, but for a moment at the end in which it is frozen, so that the copy is of one moment. The copy
    has its own name, address, ssh port and ssh host keys. ~/WORKSPACE is ~/NEW there, with a link under the old name,
    unless there is a ~/NEW. Where the copy cannot be made, nothing is left of it.
    """
    client = Client()
    client.check_version()
    wanted = CloneWorkspace(name=name, new=new, wait=False)
    if no_wait:
        workspace = client.call("workspaces.clone", Workspace, wanted, seconds=None)
        if as_json:
            output.data(workspace)
        else:
            output.line(f"The copying goes on; `perry info {new}` shows how far it is.")
        return
    began = time.monotonic()

    def ask() -> Workspace:
        return client.call("workspaces.clone", Workspace, wanted, seconds=None)

    workspace = follow(client, new, ask, view(sys.stderr if as_json else sys.stdout))
    failed = workspace.startup is not None and workspace.startup.state is StartupState.FAILED
    ssh_config.refresh(client)
    if failed:
        raise CliError(workspace.error or f"{new} could not be started; `perry info {new}` shows which step failed.")
    if as_json:
        output.data(workspace)
    else:
        tell(workspace, time.monotonic() - began)
