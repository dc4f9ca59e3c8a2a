"""Dotfiles and scripts of the person's own, run in a workspace as its user. Their exit codes count."""

from pathlib import Path
from typing import Final

import anyio

from controlplane.credentials.delivery import clean
from controlplane.credentials.sources import Unread, expanded, read_file
from controlplane.errors import EngineError, PerryError, StepFailed
from controlplane.ports import Engine, Process
from controlplane.settings.personal import ScriptSettings
from controlplane.workspaces import repository
from controlplane.workspaces.checkout import USER
from controlplane.workspaces.environment import LOADING
from controlplane.workspaces.spec import HOME

SCRIPT_LIMIT: Final = 1 << 20
DOTFILES_SECONDS: Final = 600
GRACE_SECONDS: Final = 20
WORDS: Final = 2000

# What they print goes to a file first: something that they leave running would hold a pipe open.
RUN: Final = f"""{LOADING}
umask 077
perry_folder=$(mktemp -d) || exit 125
trap 'rm -rf "$perry_folder"' EXIT
cat >"$perry_folder/$1" && chmod 0700 "$perry_folder/$1" || exit 125
umask 022
cd -- "$2" 2>/dev/null || cd
timeout -k 5 "$3" "$perry_folder/$1" </dev/null >"$perry_folder/.said" 2>&1
code=$?
tail -c {WORDS} "$perry_folder/.said"
exit $code
"""

DOTFILES: Final = f"""{LOADING}
marker=$HOME/.perry/credentials/dotfiles
[ "$(cat "$marker" 2>/dev/null)" != "$1" ] || exit 0
said=$(mktemp) || exit 125
trap 'tail -c {WORDS} "$said"; rm -f "$said"' EXIT
export GIT_TERMINAL_PROMPT=0 GIT_ALLOW_PROTOCOL=https:http:ssh:git
export GIT_SSH_COMMAND='ssh -o BatchMode=yes -o StrictHostKeyChecking=yes'
if [ ! -e "$HOME/.dotfiles" ]; then
    timeout -k 5 "$3" git clone --quiet -- "$1" "$HOME/.dotfiles" >"$said" 2>&1 </dev/null || exit
elif [ "$(git -C "$HOME/.dotfiles" remote get-url origin 2>/dev/null)" != "$1" ]; then
    echo "~/.dotfiles is there already and is no clone of it; move it away." >"$said"
    exit 1
fi
cd "$HOME/.dotfiles" || exit
if [ -n "$2" ]; then
    timeout -k 5 "$3" sh -c "$2" >"$said" 2>&1 </dev/null || exit
else
    for program in install.sh install bootstrap.sh bootstrap setup.sh setup; do
        [ -f "$program" ] && [ -x "$program" ] || continue
        timeout -k 5 "$3" "./$program" >"$said" 2>&1 </dev/null || exit
        break
    done
fi
: >"$said"
printf '%s' "$1" >"$marker"
"""


class Runner:
    """Runs them in one workspace. ``secrets`` are never part of what is said about it."""

    def __init__(self, engine: Engine, container: str, name: str, secrets: tuple[str, ...]) -> None:
        self._engine = engine
        self._container = container
        self._name = name
        self._secrets = secrets

    async def dotfiles(self, url: str, install: str) -> None:
        """Clone and install them, once. StepFailed has the last words of what failed."""
        try:
            repository.valid_clone(url)
        except PerryError as exc:
            raise StepFailed(f"dotfiles.repository: {exc.message}") from exc
        code, words = await self._run([DOTFILES, "perry-dotfiles", url, install, str(DOTFILES_SECONDS)], b"",
                                      2 * DOTFILES_SECONDS)  # fmt: skip
        if code != 0:
            raise StepFailed(f"The dotfiles {_ended(code, DOTFILES_SECONDS)}: {words or 'they said nothing'}")

    async def script(self, source: Path, seconds: int) -> None:
        """Run one script. StepFailed where it fails, or takes too long."""
        try:
            content, _ = await anyio.to_thread.run_sync(read_file, source, SCRIPT_LIMIT)
        except Unread as exc:
            raise StepFailed(f"scripts.post_start: {exc}") from None
        project = f"{HOME}/{self._name}"
        code, words = await self._run([RUN, "perry-script", source.name, project, str(seconds)], content, seconds)
        if code != 0:
            raise StepFailed(f"The script {source.name} {_ended(code, seconds)}: {words or 'it said nothing'}")

    async def _run(self, arguments: list[str], given: bytes, seconds: int) -> tuple[int, str]:
        said = b""
        try:
            with anyio.fail_after(seconds + GRACE_SECONDS):
                async with self._engine.process(self._container, ["sh", "-c", *arguments], user=USER) as process:
                    await process.write(given)
                    await process.end_input()
                    while (chunk := await process.read()) is not None:
                        said = (said + chunk[1])[-WORDS:]
                    code = await _over(process)
        except TimeoutError:
            return 124, ""
        except EngineError as exc:
            raise StepFailed(f"It could not be run in {self._name!r}: {exc.message}") from exc
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        return code, clean(" ".join(lines[-4:]), self._secrets)


async def _over(process: Process) -> int:
    """Its exit code, which is there a moment after its output has ended."""
    while True:
        if (code := await process.exit_code()) is not None:
            return code
        await anyio.sleep(0.02)


def scripts_of(settings: ScriptSettings, home: Path) -> list[Path]:
    """Every script, in order; a folder stands for its ``*.sh``."""
    given = settings.post_start
    found: list[Path] = []
    for entry in [given] if isinstance(given, str) else given:
        path = expanded(entry, home)
        found += sorted(path.glob("*.sh")) if path.is_dir() else [path]
    return found


def _ended(code: int, seconds: int) -> str:
    return f"did not end within {seconds} s and was ended" if code in (124, 137) else f"failed with exit code {code}"
