"""Debian's packages: which are missing, and their installation, noted so that it can be undone."""

import os
import shutil
import subprocess
from collections.abc import Iterable

from bootstrap.notes import PACKAGES, note, noted
from bootstrap.running import Trouble, output, run, sudo

_updated = False


def update() -> None:
    """Refresh apt's lists, once in this process."""
    global _updated
    if not _updated:
        run([*sudo(), "apt-get", "-q", "-o", "Acquire::Retries=3", "update"], "refresh apt's lists", quiet=True)
        _updated = True


def has_candidate(package: str) -> bool:
    """Whether apt could install a package of this name."""
    if shutil.which("apt-get") is None:
        return False
    update()
    shown = output(["apt-cache", "policy", package]) or ""
    return "Candidate: " in shown and "Candidate: (none)" not in shown


def install(packages: Iterable[str]) -> None:
    """Install them, and note what came: these and what they depend on."""
    wanted = list(packages)
    if not wanted:
        return
    if shutil.which("apt-get") is None:
        raise Trouble(f"{', '.join(wanted)}: missing, and this system has no apt-get; install them yourself.")
    update()
    before = installed()
    try:
        run(
            [*sudo(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y",
             "--no-install-recommends", "-o", "Acquire::Retries=3", *wanted],
            f"install {', '.join(wanted)}",
            quiet=True,
        )  # fmt: skip
    finally:
        # Also what came before a failure.
        note(PACKAGES, *sorted(installed() - before))


def remove_noted() -> list[str]:
    """Remove what was installed here; names those that had to stay because something else needs them."""
    present = sorted(set(noted(PACKAGES)) & installed())
    if not present:
        return []
    # dpkg refuses, each by itself, what something else depends on by now; apt would take that away too.
    subprocess.run(
        [*sudo(), "env", "DEBIAN_FRONTEND=noninteractive", "dpkg", "--purge", *present],
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
        env={**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"},
    )  # fmt: skip
    return sorted(set(present) & installed())


def installed() -> set[str]:
    """Names of all that is installed."""
    shown = output(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n"]) or ""
    return {line.split()[0] for line in shown.splitlines() if line.endswith(" installed")}
