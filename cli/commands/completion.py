"""``perry completion``."""

import click
from click.shell_completion import get_completion_class

from cli import output

HOW = {
    "bash": 'eval "$(perry completion bash)"        # in ~/.bashrc',
    "zsh": 'eval "$(perry completion zsh)"         # in ~/.zshrc',
    "fish": "perry completion fish | source         # in ~/.config/fish/config.fish",
}

COMPINIT = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }"
"""What a ~/.zshrc of one's own may lack: without it zsh knows no compdef."""


@click.command(epilog="\b\n" + "\n".join(HOW.values()))
@click.argument("shell", type=click.Choice(sorted(HOW)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell: commands, options, and the names of your workspaces."""
    kind = get_completion_class(shell)
    assert kind is not None
    if shell == "zsh":
        output.line(COMPINIT)
    output.line(kind(ctx.find_root().command, {}, "perry", "_PERRY_COMPLETE").source())
