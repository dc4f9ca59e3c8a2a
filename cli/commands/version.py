"""``perry version``."""

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json
from cli.errors import CliError
from protocol.agent import AgentInfo
from protocol.version import API_VERSION, VERSION


@click.command()
@as_json
def version(as_json: bool) -> None:
    """Show the versions of perry and of the agent. Succeeds where no agent answers."""
    client = Client()
    agent, problem = None, None
    try:
        agent = client.call("agent.info", AgentInfo, seconds=5)
    except CliError as exc:
        problem = exc.message
    if as_json:
        output.data({"version": VERSION, "api": API_VERSION, "agent": agent})
        return
    output.line(f"perry {VERSION}")
    if agent is not None:
        output.line(f"agent {output.clean(agent.version)} at {client.target.url}")
        if agent.version != VERSION:
            output.warn("They differ; install the same version on both.")
    else:
        output.note(str(problem))
