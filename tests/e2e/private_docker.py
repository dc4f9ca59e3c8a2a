"""A Docker Engine of a test's own, in a network namespace of its own, that may be stopped and killed."""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.system import docker, eventually

IMAGES = ("perry/sidecar:latest", "perry/headscale:latest", "perry/device:latest", "perry/workspace-base:latest")


class PrivateDocker:
    """``address`` is that of its namespace, reachable from the machine's own. Its disk may have so many megabytes."""

    def __init__(self, folder: Path, megabytes: int | None = None) -> None:
        self._folder = folder
        self.data = storage(folder) / f"perry-e2e-{secrets.token_hex(3)}"
        self._megabytes = megabytes
        number = secrets.randbelow(250) + 1
        self.namespace = f"perry-e2e-{secrets.token_hex(3)}"
        self.address = f"10.119.{number}.2"
        self._outside = f"10.119.{number}.1"
        self._veth = f"pe2e{secrets.token_hex(3)}"
        self.url = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def prefix(self) -> tuple[str, ...]:
        """What puts a command into the namespace. `ip netns exec` would hide the cgroups from it."""
        return ("nsenter", f"--net=/run/netns/{self.namespace}", "--")

    def set_up(self) -> None:
        ip("netns", "add", self.namespace)
        ip("link", "add", self._veth, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("addr", "add", f"{self._outside}/24", "dev", self._veth)
        ip("link", "set", self._veth, "up")
        ip("-n", self.namespace, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.namespace, "link", "set", "eth0", "up")
        ip("-n", self.namespace, "link", "set", "lo", "up")
        ip("-n", self.namespace, "route", "add", "default", "via", self._outside)
        self.data.mkdir()
        if self._megabytes is not None:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={self._megabytes}m", "small", str(self.data)]
            subprocess.run(mount, check=True, capture_output=True)
        self.start()

    def start(self) -> None:
        with (self._folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.prefix, shutil.which("dockerd") or "/usr/sbin/dockerd", "-H", self.url,
                    "--data-root", str(self.data), "--exec-root", f"{self._folder}/exec",
                    "--pidfile", f"{self._folder}/docker.pid",
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        eventually(self.answers, "the private engine", seconds=60)

    def answers(self) -> bool:
        with contextlib.suppress(AssertionError):
            return bool(docker("-H", self.url, "version", "--format", "{{.Server.Version}}"))
        return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the engine, and with SIGTERM its containers."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=60)
            self._process = None
            # A killed engine's containerd dies with it; where nobody reaps that, the next engine takes it for alive.
            (self._folder / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def load_images(self, *images: str) -> None:
        """These of Perry's images, or all, from the machine's own engine."""
        with subprocess.Popen(["docker", "save", *(images or IMAGES)], stdout=subprocess.PIPE) as saving:
            loading = ["docker", "-H", self.url, "load", "-q"]
            subprocess.run(loading, stdin=saving.stdout, check=True, capture_output=True)
        assert saving.returncode == 0

    def tear_down(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop()
        for process in Path("/proc").iterdir():
            # A killed engine leaves the shims of its containers.
            if process.name.isdigit() and int(process.name) != os.getpid():
                with contextlib.suppress(OSError):
                    if str(self._folder) in (process / "cmdline").read_text():
                        os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.5)
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            if line.split()[1].startswith((str(self._folder), str(self.data))):
                subprocess.run(["umount", "-l", line.split()[1]], check=False, capture_output=True)
        subprocess.run(["ip", "link", "del", self._veth], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", self.namespace], check=False, capture_output=True)
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def storage(folder: Path) -> Path:
    """Where an engine keeps its layers as overlays: ``folder``, or, where that is an overlay itself, as in a container,
    beside what the machine's own engine has. Else each layer would be a copy of the whole image."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], check=True, capture_output=True, text=True)
    return Path(docker("info", "--format", "{{.DockerRootDir}}")) if kind.stdout.strip() == "overlayfs" else folder


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def private_docker(folder: Path, megabytes: int | None = None) -> Iterator[PrivateDocker]:
    """For a fixture."""
    engine = PrivateDocker(folder, megabytes)
    try:
        engine.set_up()
        yield engine
    finally:
        engine.tear_down()
