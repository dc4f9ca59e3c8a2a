"""``perry``: the command line. Each command's module is imported when it is called, and not before."""

import errno
import importlib
import os
import sys
from typing import Any, Final

import click

from cli.errors import EXIT_CODES, Interrupted

CANNOT_BE_WRITTEN: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EPIPE)
"""Of standard output: its disk is full, its terminal is gone, nobody reads it."""

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "start": ("cli.commands.start", "Create or start a workspace."),
    "clone": ("cli.commands.clone", "Copy a workspace."),
    "stop": ("cli.commands.workspaces", "Stop a workspace; all of its files stay."),
    "restart": ("cli.commands.workspaces", "Restart a workspace; its tailnet address and files stay."),
    "list": ("cli.commands.workspaces", "List the workspaces."),
    "info": ("cli.commands.workspaces", "Show one workspace."),
    "logs": ("cli.commands.logs", "Show what a workspace and its sidecar log."),
    "delete": ("cli.commands.delete", "Delete a workspace with all of its files."),
    "ssh": ("cli.commands.ssh", "Open a shell in a workspace, or run a command there, by ssh."),
    "ssh-config": ("cli.commands.ssh_config", "Make every workspace a host of ssh on this device."),
    "ports": ("cli.commands.ports", "Show what listens in a workspace, and how to reach it."),
    "proxy": ("cli.commands.proxy", "Bring TCP ports of a workspace to this device."),
    "exec": ("cli.commands.exec", "Run a command in a workspace, without ssh."),
    "sessions": (
        "cli.commands.sessions",
        "What coding agents do and did, in all workspaces: list, read, search, watch.",
    ),
    "dispatch": ("cli.commands.dispatch", "Give the coding agent of a workspace a task, or many one each, and leave."),
    "tasks": ("cli.commands.tasks", "See what became of tasks: logs, results, waiting for them."),
    "batches": ("cli.commands.batches", "See what became of batches: watch them, collect what they left, end them."),
    "wake": ("cli.commands.wake", "Wake your assistant with a text."),
    "wakes": ("cli.commands.wakes", "What became of wakes, and of the gateways that they go to."),
    "check": ("cli.commands.check", "Look whether a task, or the agent in a workspace, works, waits or stands still."),
    "sync": ("cli.commands.sync", "Bring credentials and settings into workspaces that run."),
    "secrets": ("cli.commands.secrets", "Keep secrets for workspaces."),
    "cron": ("cli.commands.cron", "Wake your assistant at a time, at intervals, or by the calendar."),
    "tailnet": ("cli.commands.tailnet", "Look at the tailnet, or join it with one more device."),
    "auth": ("cli.commands.auth", "How the agent recognises you, and what you may."),
    "config": ("cli.commands.config", "Show the settings, and what workspaces are given; set up perry."),
    "mcp": ("cli.commands.mcp", "Give an assistant Perry's verbs as tools (MCP)."),
    "agent": ("cli.commands.agent", "The Perry agent: the control plane of this machine."),
    "doctor": ("cli.commands.doctor", "Check what Perry needs, and say what to do about it."),
    "version": ("cli.commands.version", "Show the versions of perry and of the agent."),
    "completion": ("cli.commands.completion", "Print the completion script for a shell."),
}
"""Name of each command, its module (which has a function of that name), and its line of help."""

ALIASES: Final = {"ls": "list", "rm": "delete", "remove": "delete", "batch": "batches"}

MODULE_NAMES: Final = {"list": "list_", "exec": "exec_", "ssh-config": "ssh_config"}
"""Where the command's name cannot be a function's, or is a built-in's."""


class Commands(click.Group):
    """A group that imports a command's module only to run it, so that each start of ``perry`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[name][0])
        command = getattr(module, MODULE_NAMES.get(name, name))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in EXIT_CODES.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort) as exc:
            raise Interrupted("Interrupted.") from exc


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from protocol.version import VERSION

        click.echo(f"perry {VERSION}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
def perry() -> None:
    """Coding agents in isolated Docker workspaces, each on your tailnet under its own name.

    Commands speak to the Perry agent that PERRY_URL or `perry config worker` names, else to the one on this machine, or
    to the one that the tailnet calls perry.
    """


def main() -> None:
    """Entry point of the program ``perry``."""
    # A program may be started with its output closed; Python has no stream then.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        # A terminal of another encoding shows a question mark, and no traceback.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        try:
            perry(prog_name="perry")
        finally:
            sys.stdout.flush()
    except OSError as exc:
        if exc.errno not in CANNOT_BE_WRITTEN:
            raise
        # What is left in its buffer would be tried, and would fail, once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if exc.errno != errno.EPIPE:
            from cli import output

            output.error(f"The output cannot be written: {exc.strerror}.")
        sys.exit(1)
