"""The floors: what the same work costs with nothing of Perry around it."""

import concurrent.futures
import os
import secrets
import subprocess
import tempfile
import time
from pathlib import Path

from controlplane.images.plan import TAILSCALE_TAGS
from tests.e2e.system import CHECKOUT, System, docker

SIDECAR = "perry/sidecar:latest"
WORKSPACE = "perry/workspace-base:latest"


def build_bare_node() -> Path:
    """The program that joins with tsnet and does nothing else."""
    target = CHECKOUT / ".build" / "bin" / "benchnode"
    tags = ",".join(TAILSCALE_TAGS)
    command = ["go", "build", "-trimpath", "-tags", tags, "-ldflags", "-s -w", "-o", str(target), "./benchnode"]
    subprocess.run(command, cwd=CHECKOUT / "sidecar", check=True, env={**os.environ, "CGO_ENABLED": "0"})
    return target


def two_containers_and_a_node(system: System, node: Path, key: str, control_url: str) -> tuple[float, list[str]]:
    """Seconds for two container starts and a bare node, which joins from the first one's network beside the second.

    The containers are still there, and are named: taking them away is no part of a start.
    From there since a join takes what the network around it costs: on a machine with IPv6 that leads nowhere it waits
    three seconds for its first answer.
    """
    name = f"{system.instance}-floor-{secrets.token_hex(3)}"
    label = f"perry.instance={system.instance}"
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor() as pool:
        began = time.monotonic()
        docker("run", "-d", "--label", label, "--name", f"{name}.net", SIDECAR, "sandbox")
        joining = pool.submit(_join, node, f"{name}.net", Path(folder), name, key, control_url)
        docker("run", "-d", "--label", label, "--name", name, WORKSPACE)
        joining.result()
        took = time.monotonic() - began
    return took, [name, f"{name}.net"]


def _join(node: Path, container: str, folder: Path, name: str, key: str, control_url: str) -> None:
    process = docker("inspect", "-f", "{{.State.Pid}}", container)
    subprocess.run(
        ["nsenter", "-t", process, "-n", str(node), str(folder), name, control_url],
        input=key.encode(),
        check=True,
        capture_output=True,
        timeout=60,
        env={**os.environ, "TS_DEBUG_USE_DERP_HTTP": "1", "TS_NO_LOGS_NO_SUPPORT": "true"},
    )
