"""Secrets stand in files of their own, which nobody but their owner may read."""

import hashlib
import os
import shlex
import stat
from pathlib import Path

from controlplane.errors import NotReady

LIMIT = 1 << 16
"""More than any secret has, in bytes."""


def fingerprint(secret: str) -> str:
    """Tells secrets apart, and tells nothing of them."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_secret(file: Path) -> str:
    """What the file holds, without white space around it. NotReady says what is wrong, and what mends it."""
    shown = shlex.quote(str(file))
    try:
        # Not blocking: a FIFO would wait for somebody to write.
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as opened:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise NotReady(f"{file} is no file; put the secret into a file of its own.")
            if about.st_mode & 0o077:
                raise NotReady(f"{file} can be read by others; mend that with `chmod 600 {shown}`.")
            if about.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
                raise NotReady(f"{file} belongs to somebody else; mend that with `sudo chown $USER {shown}`.")
            text = opened.read(LIMIT + 1)
    except FileNotFoundError:
        raise NotReady(
            f"{file} does not exist; write the secret into it: `(umask 077; cat > {shown})`, paste, Ctrl-D."
        ) from None
    except IsADirectoryError:
        raise NotReady(f"{file} is no file; put the secret into a file of its own.") from None
    except OSError as exc:
        raise NotReady(
            f"{file} cannot be read ({exc.strerror}); it has to belong to whom the agent runs as, "
            f"with `chmod 600 {shown}`."
        ) from exc
    secret = text.decode("ascii", errors="replace").strip()
    if not secret or len(text) > LIMIT or not secret.isprintable() or not secret.isascii() or " " in secret:
        raise NotReady(f"{file} holds no secret; it has to be one line, and nothing else.")
    return secret
