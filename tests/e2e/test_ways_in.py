"""ssh-config, ports and proxy on real parts: from the agent's machine, and through the agent from any other."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
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


def test_proxy_carries_what_listens_on_loopback(system: System, tmp_path: Path) -> None:
    there = environment(system, tmp_path, elsewhere=False)
    port = free_port()
    perry = str(Path(sys.executable).with_name("perry"))
    running_proxy = subprocess.Popen([perry, "proxy", "alpha", f"{port}:3000"], env=there, stdout=subprocess.PIPE)
    try:
        assert running_proxy.stdout is not None
        assert f"http://127.0.0.1:{port}" in running_proxy.stdout.readline().decode()

        def answer() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/").status_code == 200
            except httpx.HTTPError:
                return False

        eventually(answer, "the port answers")
        data = httpx.get(f"http://127.0.0.1:{port}/data", timeout=60).content
        assert system.inside("alpha", "sha256sum", "/tmp/data").split()[0] == hashlib.sha256(data).hexdigest()
    finally:
        running_proxy.send_signal(signal.SIGINT)
        running_proxy.wait(10)
        if running_proxy.stdout is not None:
            running_proxy.stdout.close()
