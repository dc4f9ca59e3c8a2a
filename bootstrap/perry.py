"""The checkout's own ``perry``, as the scripts here use it."""

import contextlib
import json
import os
import pwd
import subprocess
from pathlib import Path
from typing import Any

from bootstrap.notes import CHECKOUT
from bootstrap.running import Trouble

PERRY = CHECKOUT / ".venv" / "bin" / "perry"
PYTHON = CHECKOUT / ".venv" / "bin" / "python"
CALL_SECONDS = 300


def perry(*words: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        [str(PERRY), *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, cwd=CHECKOUT, timeout=CALL_SECONDS,
    )  # fmt: skip


def perry_json(*words: str) -> Any:
    """What it prints with ``--json``."""
    done = perry(*words, "--json")
    if done.returncode != 0:
        raise Trouble(f"`perry {' '.join(words)}` failed: {done.stderr.strip()}")
    return json.loads(done.stdout)


def config_folder() -> Path:
    """The folder that Perry uses; the same rule as in protocol/folders.py, which a test compares."""
    if explicit := os.environ.get("PERRY_CONFIG_DIR"):
        return Path(explicit).expanduser()
    home = Path(os.environ.get("HOME") or "~").expanduser()
    if os.geteuid() == 0 and (sudo_user := os.environ.get("SUDO_USER")):
        with contextlib.suppress(KeyError):
            home = Path(pwd.getpwnam(sudo_user).pw_dir)
    return home / ".config" / "perry"


def instance() -> str:
    """The name on the labels of all that Perry has in Docker."""
    if named := os.environ.get("PERRY_INSTANCE"):
        return named
    try:
        configured = json.loads((config_folder() / "config.json").read_text())
    except (OSError, ValueError):
        return "perry"
    found = configured.get("instance", "perry") if isinstance(configured, dict) else "perry"
    return str(found)


def is_link_to_us(place: Path) -> bool:
    """Whether this is a link to the checkout's perry, also when that is gone by now."""
    return place.is_symlink() and place.readlink() == PERRY
