"""``perry secrets``: each in a file of its own in the config folder, for its owner alone."""

import contextlib
import os
import re
import secrets as randomness
from pathlib import Path
from typing import Final

from controlplane.errors import InvalidInput, NotFound, NotReady

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LIMIT: Final = 64 << 10


class Secrets:
    """All secrets. Names are public, values are not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(file.name for file in self.folder.iterdir() if NAME.fullmatch(file.name))

    def set(self, name: str, value: str) -> None:
        """Whole or not at all."""
        _check(name)
        if not value or "\0" in value or len(value.encode(errors="surrogatepass")) > LIMIT:
            raise InvalidInput(f"A secret is text of 1 byte to {LIMIT >> 10} KB; give another.")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = self.folder / f".{randomness.token_hex(8)}"
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(value)
            fresh.replace(self.folder / name)
        except (OSError, UnicodeEncodeError) as exc:
            raise NotReady(f"The secret could not be stored in {self.folder} ({exc}); mend that folder.") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()

    def get(self, name: str) -> str:
        """NotFound where there is none of that name."""
        _check(name)
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise NotFound(f"there is no secret {name!r}; `perry secrets set {name}` makes it.") from None
        except (OSError, UnicodeDecodeError) as exc:
            raise NotReady(f"the secret {name!r} cannot be read ({exc}); set it again.") from None

    def remove(self, name: str) -> None:
        """NotFound where there is none of that name."""
        _check(name)
        try:
            (self.folder / name).unlink()
        except FileNotFoundError:
            raise NotFound(f"There is no secret {name!r}; `perry secrets list` shows those that there are.") from None


def _check(name: str) -> None:
    if not NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no name for a secret; use letters, digits, dots, dashes and underscores, 64 at most."
        )
