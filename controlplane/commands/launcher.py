"""What stands in front of a command: a constant script that finds its folder, says its process id, and becomes it.

Docker has no way to signal a command, and does not tell its process id inside the container. The script says it in its
first line, which is taken off the output; then the command has its place, its id and its streams. What the user gave is
only ever an argument. Pure.
"""

import re
from typing import Final

import msgspec

from controlplane.workspaces.environment import LOADING
from controlplane.workspaces.spec import HOME
from protocol.exec import ExecSignal, Run

SCRIPT: Final = (
    LOADING
    + """\
unset CDPATH
cd -- "$1" 2>/dev/null || cd
[ -z "$2" ] || cd -- "$2" 2>/dev/null || { echo no-folder; exit 126; }
[ -z "$3" ] || stty columns "$3" rows "$4"
shift 4
case $1 in
*/*) set -- "$1" "$@" ;;
*)
    IFS=:
    for perry in $PATH; do
        [ -f "$perry/$1" ] && [ -x "$perry/$1" ] && break
        perry=
    done
    unset IFS
    set -- "${perry:+$perry/$1}" "$@"
    ;;
esac
[ -n "$1" ] && [ -e "$1" ] || { echo no-command; exit 127; }
[ -f "$1" ] && [ -x "$1" ] || { echo not-executable; exit 126; }
shift
unset perry
echo "runs $$"
exec "$@"
"""
)

SIGNAL_SCRIPT: Final = 'kill -s "$1" -- "-$2"'
FIRST_LINE_LIMIT: Final = 64

_RUNS = re.compile(r"runs ([0-9]{1,10})")


class Refused(msgspec.Struct, frozen=True):
    """There is nothing to run. ``bad_folder`` where that is for its folder; else ``code`` is what a shell gives."""

    code: int
    message: str
    bad_folder: bool = False


def argv(name: str, wanted: Run) -> list[str]:
    """What Docker is asked to run for a command in the workspace of that name."""
    size = [str(wanted.tty.columns), str(wanted.tty.rows)] if wanted.tty else ["", ""]
    return ["sh", "-c", SCRIPT, "perry-exec", f"{HOME}/{name}", _folder(wanted.cwd), *size, *wanted.command]


def signalling(group: int, signal: ExecSignal) -> list[str]:
    """What sends a signal to the command's process group."""
    return ["sh", "-c", SIGNAL_SCRIPT, "perry-signal", signal.value, str(group)]


def understood(line: str, wanted: Run) -> int | Refused | None:
    """What the script's first line says: the command's process id, or why there is none. None for nonsense."""
    program = wanted.command[0]
    match line:
        case "no-folder":
            return Refused(126, f"There is no folder {wanted.cwd!r} that could be entered; give another cwd.", True)
        case "no-command":
            return Refused(127, f"There is no program {program!r}; install it, or check its name.")
        case "not-executable":
            return Refused(126, f"{program!r} cannot be run; make it executable with `chmod +x`.")
        case _:
            found = _RUNS.fullmatch(line)
            group = int(found[1]) if found else 0
            return group if group > 1 else None


def _folder(cwd: str | None) -> str:
    if not cwd:
        return ""
    if cwd == "~" or cwd.startswith("~/"):
        return HOME + cwd[1:]
    return cwd if cwd.startswith("/") else f"./{cwd}"
