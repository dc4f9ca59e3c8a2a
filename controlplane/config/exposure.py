"""Whether others can read secrets that stand in config.json. They had better stand elsewhere; see ``perry secrets``."""

import shlex
import stat
from typing import Any

import msgspec

from controlplane.settings import Loaded
from controlplane.settings.personal import masked
from protocol.folders import CONFIG_FILE


def exposed(loaded: Loaded) -> str | None:
    """A sentence that says what to do, where they can; else None."""
    file = loaded.folder / CONFIG_FILE
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return None
    values = msgspec.to_builtins(loaded.settings)
    there = [key for key, source in loaded.sources.items() if source == "file"]
    secret = [key for key in there if masked(key, value := _value(values, key)) != value]
    if not secret or not mode & 0o077:
        return None
    mended = f"chmod 600 {shlex.quote(str(file))}"
    return f"Others can read {file}, which has {', '.join(secret)}; mend that with `{mended}`."


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[part]
    return values
