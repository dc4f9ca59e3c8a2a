"""Programs, what is said to the person, and the one way to fail."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence

from bootstrap.notes import CHECKOUT

LAST_WORDS = 4000


class Trouble(Exception):
    """It cannot go on. The message is one sentence that says what to do."""


def say(text: str) -> None:
    """A line for the person, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def ends_with_a_sentence(main: Callable[[], None]) -> int:
    """The exit code of a program that does ``main``."""
    try:
        main()
    except Trouble as exc:
        sys.stdout.flush()
        sys.stderr.write(f"Stopped: {exc}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped: interrupted; run it again to go on.\n")
        return 130
    return 0


def find(program: str) -> str | None:
    """Where a program is, also those that only root's PATH has."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def sudo() -> list[str]:
    """What a command begins with that must run as root."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        raise Trouble("This needs root for what it installs; run it as root, or install sudo.")
    return ["sudo"]


def run(command: Sequence[str], what: str, *, quiet: bool = False) -> None:
    """Run to the end. What it says is shown as it comes; when ``quiet``, only where it fails."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        errors="replace",
        check=False,
        cwd=CHECKOUT,
    )
    if done.returncode != 0:
        if quiet:
            sys.stderr.write(done.stdout[-LAST_WORDS:])
        raise Trouble(f"could not {what} (exit code {done.returncode}); what is said above is the reason.")


def output(command: Sequence[str], *, seconds: float | None = None) -> str | None:
    """What it prints; None where it fails, is not there, or takes longer."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            cwd="/",
        )
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
