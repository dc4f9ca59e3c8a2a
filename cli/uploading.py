"""Sending a local repository ahead, for what clones it: its committed state travels as a git bundle."""

import secrets
import sys
import tempfile
import time
from pathlib import Path

from cli import output
from cli.client import Client
from cli.steps import FRAME_SECONDS
from protocol.workspaces import UPLOADED


def uploaded(client: Client, clone: str, branch: str | None) -> tuple[str, str | None, str | None]:
    """What to ask for as ``clone``, ``origin`` and ``branch``: an upload in place of a path; a URL stays as it is."""
    from cli import bundle

    path = bundle.local_path(clone)
    if path is None:
        return clone, None, branch
    repository = bundle.inspect(path)
    branch = bundle.branch_to_take(repository, branch)
    name = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="perry-") as folder:
        file = Path(folder) / "bundle"
        bundle.write(repository, file)
        output.note(f"The committed state of {path} travels as a git bundle ({output.size(file.stat().st_size)}).")
        if sentence := bundle.left_out(repository).sentence():
            output.note(sentence)
        client.upload(name, file, _Progress())
    return f"{UPLOADED}{name}", repository.origin, branch


class _Progress:
    """A percentage on a terminal, for what takes its time."""

    def __init__(self) -> None:
        self._shown_at = time.monotonic()

    def __call__(self, sent: int, total: int) -> None:
        if not output.is_terminal(sys.stderr):
            return
        now = time.monotonic()
        if now - self._shown_at > FRAME_SECONDS and sent < total:
            self._shown_at = now
            sys.stderr.write(f"\r\033[KSent {output.size(sent)} of {output.size(total)}")
            sys.stderr.flush()
        elif sent == total:
            sys.stderr.write("\r\033[K")
