"""Gemini CLI in a workspace: an agent that the image does not have, as a person would add it with npm.

It is brought from npm's registry once for each lock file, and lies in ``.build/npm`` then (two seconds, 96 MB).
"""

import fcntl
import hashlib
import io
import shutil
import tarfile
from pathlib import Path

from bootstrap import typescript
from tests.fakes.model_server.inside import docker

HERE = Path(__file__).parent / "gemini"
PROGRAM = b'#!/bin/sh\nexec node /opt/gemini/bundle/gemini.js "$@"\n'


def installed() -> Path:
    """Its folder on this machine."""
    names = ("package.json", "package-lock.json")
    wanted = b"".join((HERE / name).read_bytes() for name in names)
    folder = typescript.BUILD / f"gemini-{hashlib.sha256(wanted).hexdigest()[:16]}"
    typescript.BUILD.mkdir(parents=True, exist_ok=True)
    with (typescript.BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in names:
                shutil.copy(HERE / name, folder)
            typescript.npm_ci(folder, "Gemini CLI for the tests", "--omit=optional")
            (folder / "complete").touch()
    return folder / "node_modules" / "@google" / "gemini-cli"


def install(container: str) -> None:
    """Put it into a workspace's container, as the command ``gemini``."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(installed(), "opt/gemini")
        entry = tarfile.TarInfo("usr/local/bin/gemini")
        entry.size, entry.mode = len(PROGRAM), 0o755
        tar.addfile(entry, io.BytesIO(PROGRAM))
    docker("cp", "-", f"{container}:/", stdin=buffer.getvalue())
