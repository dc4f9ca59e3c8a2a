"""ssh-config, ports and proxy on real parts: from the agent's machine, and through the agent from any other."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.e2e.system import System, docker, eventually, free_port, running

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

MEGABYTES = 128
LOOK = "hostname; sha256sum < /tmp/data; cat /tmp/data"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    for system in running(tmp_path_factory.mktemp("agent"), tailnet="none"):
        system.start_workspace("alpha", docker=False)
        serve = "cd /tmp && head -c %dM /dev/urandom > data && exec python3 -m http.server --bind 127.0.0.1 3000"
        docker("exec", "-d", "-u", "workspace", system.container("alpha"), "sh", "-c", serve % MEGABYTES)
        eventually(partial(_listens, system), "it listens")
        yield system


def _listens(system: System) -> bool:
    return "perry proxy alpha 3000" in system.perry("ports", "alpha").stdout


def environment(system: System, folder: Path, *, elsewhere: bool) -> dict[str, str]:
    """Of the agent's machine; or of a device that has its address, a token, and a key that may log in."""
    home = folder / "home"
    home.mkdir()
    here = {**os.environ, **system.environment, "HOME": str(home)}
    if not elsewhere:
        return here
    token = (system.folder / "token").read_text().strip()
    shown = {name: value for name, value in here.items() if not name.startswith("PERRY_")}
    return {**shown, "PERRY_CONFIG_DIR": str(folder), "PERRY_URL": system.url, "PERRY_TOKEN": token}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["agent's machine", "any device"])
def test_plain_ssh_by_the_configuration(system: System, tmp_path: Path, elsewhere: bool) -> None:
    there = environment(system, tmp_path, elsewhere=elsewhere)
    perry = str(Path(sys.executable).with_name("perry"))
    subprocess.run([perry, "ssh-config"], env=there, check=True, capture_output=True)
    identity = ["-i", str(system.folder / "ssh" / "id_ed25519"), "-o", "BatchMode=yes"]
    config = str(tmp_path / "home" / ".ssh" / "config")
    done = subprocess.run(
        [shutil.which("ssh") or "ssh", "-F", config, *identity, "alpha", LOOK],
        env=there, capture_output=True, timeout=100, check=True,
    )  # fmt: skip
    hostname, digest, data = done.stdout.split(b"\n", 2)
    assert hostname == b"alpha"
    assert len(data) == MEGABYTES << 20
    assert digest.split()[0].decode() == hashlib.sha256(data).hexdigest()


@contextmanager
def proxying(there: dict[str, str], *ports: str) -> Iterator[None]:
    """A proxy that runs, until the block ends."""
    perry = str(Path(sys.executable).with_name("perry"))
    process = subprocess.Popen([perry, "proxy", "alpha", *ports], env=there, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert "http://127.0.0.1:" in process.stdout.readline().decode()
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(10)
        process.stdout.close()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize("elsewhere", [False, True], ids=["agent's machine", "any device"])
def test_proxy_carries_what_listens_on_loopback(system: System, tmp_path: Path, elsewhere: bool) -> None:
    port = free_port()
    with proxying(environment(system, tmp_path, elsewhere=elsewhere), f"{port}:3000"):
        eventually(partial(answers, port), "the port answers")
        data = httpx.get(f"http://127.0.0.1:{port}/data", timeout=60).content
        assert system.inside("alpha", "sha256sum", "/tmp/data").split()[0] == hashlib.sha256(data).hexdigest()


def test_a_gibibyte_through_the_agent_comes_whole_and_is_not_kept(system: System, tmp_path: Path) -> None:
    repeated = f"for i in $(seq {1024 // MEGABYTES}); do cat /tmp/data; done"
    serve = ["socat", "TCP-LISTEN:3001,bind=127.0.0.1,reuseaddr", f"SYSTEM:{repeated}"]
    docker("exec", "-d", "-u", "workspace", system.container("alpha"), *serve)
    expected = system.inside("alpha", "sh", "-c", f"({repeated}) | sha256sum").split()[0]
    port, before = free_port(), memory(system)
    with (
        proxying(environment(system, tmp_path, elsewhere=True), f"{port}:3001"),
        socket.create_connection(("127.0.0.1", port)) as connection,
    ):
        digest, count, began = hashlib.sha256(), 0, time.monotonic()
        time.sleep(1)  # Nobody reads: what comes meanwhile has to wait where it is.
        assert memory(system) - before < 24 << 20
        while chunk := connection.recv(1 << 20):
            digest.update(chunk)
            count += len(chunk)
        print(f"{count / (time.monotonic() - began) / 1e6:.0f} MB/s")  # noqa: T201
    assert (count, digest.hexdigest()) == (1 << 30, expected)
    assert memory(system) - before < 24 << 20


def memory(system: System) -> int:
    """Bytes that the control plane has in memory."""
    assert system.process is not None
    status = Path(f"/proc/{system.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024
