"""A control plane on fakes in a process of its own, for tests of what speaks to one."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

TRIES = 1200
PAUSE = 0.05


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """The environment of a person whose `perry` speaks to it; what it logs is in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PERRY_")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.agent", str(folder)],
            env={**plain, "PERRY_PORT": str(port)},
            stdout=log,
            stderr=log,
        )
    try:
        _await(port)
        yield {**plain, "PERRY_CONFIG_DIR": str(folder), "PERRY_URL": f"http://127.0.0.1:{port}"}
    finally:
        process.terminate()
        process.wait()


def _await(port: int) -> None:
    for _ in range(TRIES):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(PAUSE)
    raise AssertionError("the control plane does not answer")
