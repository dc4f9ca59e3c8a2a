"""Where the control plane keeps its files, and what those are called that the CLI on the same machine reads."""

import contextlib
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Final

CONFIG_FILE: Final = "config.json"
CLIENT_FILE: Final = "client.json"
TOKEN_FILE: Final = "token"
AGENT_LOG: Final = "agent.log"
SSH_KEY: Final = "ssh/id_ed25519"


def config_folder(environ: Mapping[str, str]) -> Path:
    """``PERRY_CONFIG_DIR``, else ``~/.config/perry`` of the person who runs this (of ``$SUDO_USER`` under sudo)."""
    if explicit := environ.get("PERRY_CONFIG_DIR"):
        return Path(explicit).expanduser()
    home = Path(environ.get("HOME") or "~").expanduser()
    if os.geteuid() == 0 and (sudo_user := environ.get("SUDO_USER")):
        with contextlib.suppress(KeyError):
            home = Path(pwd.getpwnam(sudo_user).pw_dir)
    return home / ".config" / "perry"
