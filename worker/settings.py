"""Where the worker finds things. Workspaces have these defaults; tests name others, as ``PERRY_WORKER_*``."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from protocol.wake import WAKE_PORT
from protocol.worker import SECRET_FILE, WORKER_PORT
from worker.opencode.client import PORT as OPENCODE_PORT


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """``home`` is the folder whose coding agents are followed. ``socket`` is for programs of the same user."""

    home: Path
    host: str = "0.0.0.0"
    port: int = WORKER_PORT
    secret_file: Path = Path(SECRET_FILE)
    socket: Path = Path("/run/perry-worker/socket")
    wake_port: int = WAKE_PORT
    """On loopback."""
    opencode_port: int = OPENCODE_PORT
    """On loopback; OpenCode's server is behind it."""


def load(environ: Mapping[str, str]) -> Settings:
    """The settings. ValueError where a port is none."""
    wanted: dict[str, str | Path | int] = {"home": Path(environ.get("HOME") or "/home/workspace")}
    if host := environ.get("PERRY_WORKER_HOST"):
        wanted["host"] = host
    if port := environ.get("PERRY_WORKER_PORT"):
        wanted["port"] = int(port)
    if secret := environ.get("PERRY_WORKER_SECRET_FILE"):
        wanted["secret_file"] = Path(secret)
    if wake_port := environ.get("PERRY_WORKER_WAKE_PORT"):
        wanted["wake_port"] = int(wake_port)
    if opencode_port := environ.get("PERRY_WORKER_OPENCODE_PORT"):
        wanted["opencode_port"] = int(opencode_port)
    if socket := environ.get("PERRY_WORKER_SOCKET"):
        wanted["socket"] = Path(socket)
    return msgspec.convert(wanted, Settings)
