"""Gemini CLI in a workspace: an agent that the image does not have, as a person would add it with npm.

It is brought from npm's registry once for each lock file, and lies in ``.build/npm`` then (two seconds, 96 MB).
"""

import io
import tarfile
from pathlib import Path

from tests import npm_packages
from tests.fakes.model_server.inside import docker

HERE = Path(__file__).parent / "gemini"
PROGRAM = b'#!/bin/sh\nexec node /opt/gemini/bundle/gemini.js "$@"\n'


def installed() -> Path:
    """Its folder on this machine."""
    modules = npm_packages.installed(HERE, "gemini", "--omit=optional")
    return modules / "@google" / "gemini-cli"


def install(container: str) -> None:
    """Put it into a workspace's container, as the command ``gemini``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(installed(), "opt/gemini")
        entry = tarfile.TarInfo("usr/local/bin/gemini")
        entry.size, entry.mode = len(PROGRAM), 0o755
        tar.addfile(entry, io.BytesIO(PROGRAM))
    docker("cp", "-", f"{container}:/", stdin=buffer.getvalue())
