"""The small command ``perry`` inside a workspace."""

import sys
from collections.abc import Sequence

from worker.version import own_version


def main(words: Sequence[str]) -> int:
    """The exit code."""
    if list(words) == ["--version"]:
        sys.stdout.write(f"perry worker {own_version()}\n")
        return 0
    sys.stderr.write("usage: perry --version\n")
    return 2
