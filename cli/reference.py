"""``python -m cli.reference``: every command's help as Markdown. ``docs/cli.md`` is this, and a test holds it to it."""

import click

from cli.errors import EXIT_CODES
from cli.main import ALIASES, perry

HEAD = """# `perry`, command by command

Made from the commands' own help by `uv run python -m cli.reference > docs/cli.md`; do not edit it.

## Which agent the commands speak to

The first of these that is there: `PERRY_URL`; `worker` in `client.json` (`host`, `host:port` or a URL), which
`perry config worker` writes; where no agent ever ran on this machine, the one that its tailnet calls `perry`; the agent
of this machine, at the address in `config.json`. Both files are in `~/.config/perry`, or in the folder that
`PERRY_CONFIG_DIR` names. The token is `PERRY_TOKEN`; else `token` in `client.json`, for the agent that this file names;
else, on the agent's machine, the file that the agent keeps. `NO_COLOR` turns colours off.

Data goes to stdout, words about it to stderr. With `--json`, stdout has JSON and nothing else, with the API's fields.

## Exit codes
"""


def markdown() -> str:
    """The whole page."""
    parts = [HEAD, "| code | meaning |", "| --- | --- |"]
    parts += [f"| {code} | {text} |" for code, text in EXIT_CODES.items()]
    parts += ["", "`perry exec` and `perry ssh` end with the exit code of what they ran.", ""]
    aliases = ", ".join(f"`perry {alias}` is `perry {name}`" for alias, name in ALIASES.items())
    parts += [f"Other names: {aliases}.", ""]
    root = click.Context(perry, info_name="perry", terminal_width=100, help_option_names=["-h", "--help"])
    for command, context in commands(perry, root):
        parts += [f"## `{context.command_path}`", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(parts)


def commands(group: click.Group, context: click.Context) -> list[tuple[click.Command, click.Context]]:
    """All commands below a group, each with its context."""
    found: list[tuple[click.Command, click.Context]] = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        below = click.Context(command, parent=context, info_name=name, terminal_width=100)
        if isinstance(command, click.Group):
            found += commands(command, below)
        else:
            found.append((command, below))
    return found


if __name__ == "__main__":
    click.echo(markdown(), nl=False)
