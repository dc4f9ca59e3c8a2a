"""The variables that a workspace's sessions have, for commands that no session of PAM's stands around. Pure.

sshd and cron give them to what they start (``images/workspace/pam``); a command that Docker starts has to read them
itself. The file has ``NAME=value`` lines, each value as it stands there.
"""

from typing import Final

from controlplane.workspaces.spec import HOME

ENVIRONMENT_FILE: Final = f"{HOME}/.perry/credentials/environment"

LOADING: Final = f"""\
perry={ENVIRONMENT_FILE}
[ ! -r "$perry" ] || while IFS= read -r perry; do
    case ${{perry%%=*}} in '' | [0-9]* | *[!A-Za-z0-9_]* | "$perry") ;; *) export "$perry" ;; esac
done <"$perry"
unset perry
"""
"""Lines of sh that read them."""


def in_environment(*command: str) -> list[str]:
    """The command, with those variables. What the user gave is only ever an argument."""
    return ["sh", "-c", f'{LOADING}exec "$@"', "perry", *command]
