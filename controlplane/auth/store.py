"""The file with the control plane's bearer token."""

import os
import re
import secrets
from pathlib import Path

from controlplane.errors import StartupError
from protocol.folders import TOKEN_FILE

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def load_token(folder: Path) -> str:
    """The token in ``<folder>/token``, made where there is none. The file is its owner's alone (0600).

    Under sudo it belongs to whom the folder belongs to, who reads it with the CLI. StartupError where it cannot be
    used.
    """
    file = folder / TOKEN_FILE
    try:
        try:
            handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return _make(file)
        with os.fdopen(handle, "r", encoding="ascii", errors="replace") as opened:
            os.fchmod(handle, 0o600)
            token = opened.read(128).strip()
    except OSError as exc:
        raise StartupError(f"The token in {file} cannot be used ({exc.strerror}); mend or remove that file.") from exc
    if not _TOKEN.fullmatch(token):
        raise StartupError(f"{file} holds no token of 43 url-safe characters; remove it, and a new one is made.")
    return token


def _make(file: Path) -> str:
    token = secrets.token_urlsafe(32)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, token.encode() + b"\n")
        owner = file.parent.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.fchown(handle, owner.st_uid, owner.st_gid)
        os.fsync(handle)
    finally:
        os.close(handle)
    draft.rename(file)
    return token
