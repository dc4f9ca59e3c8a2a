"""Each workspace's secrets: derived from one key of this control plane, so that they outlive state.db."""

import base64
import hashlib
import hmac
import os
import secrets
from pathlib import Path

from controlplane.secret_files import read_secret


class WorkerSecrets:
    """``file`` holds the key; it is made where it is missing."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w") as opened:
                opened.write(secrets.token_hex(32) + "\n")
        self._key = read_secret(file).encode()

    def of(self, workspace: str) -> str:
        """What its worker is spoken to with: 43 characters that may stand in a header."""
        return self._derived("worker", workspace)

    def opencode(self, workspace: str) -> str:
        """The password of its OpenCode server, which its worker and its sidecar are given: 43 such characters."""
        return self._derived("opencode", workspace)

    def _derived(self, purpose: str, workspace: str) -> str:
        digest = hmac.new(self._key, f"{purpose} {workspace}".encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
