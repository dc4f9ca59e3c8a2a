"""``perry mcp``."""

import anyio
import click

from cli.errors import CliError


@click.command()
def mcp() -> None:
    """Serve the Model Context Protocol on standard input and output.

    For assistants that take tools: workspaces, tasks, sessions, jobs and wakes, with the rights that this command has.
    For Claude Code: claude mcp add perry -- perry mcp
    """
    try:
        from cli.mcp_server import serve
    except ImportError as exc:
        raise CliError(
            "This perry was installed without its MCP server; install it as perry[mcp] (in a checkout: "
            "`uv sync --extra mcp`)."
        ) from exc
    anyio.run(serve)
