"""A whole system of its own for a test: a control plane in a process, its Docker objects, and stock tailnet devices.

Everything has an instance name that nothing else has, and is removed by its labels at the end.
"""

import io
import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec

from protocol.workspaces import StartWorkspace, Workspace

READY_SECONDS = 60

PATIENCE = 3.0
"""What a quiet machine needs, times this: a time-out here is to tell "never" from "slowly"."""
CHECKOUT = Path(__file__).parents[2]


def free_port() -> int:
    """A TCP port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def docker(*arguments: str, check: bool = True, stdin: bytes | None = None) -> str:
    """The docker CLI's output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, input=stdin, timeout=120)
    if check and done.returncode != 0:
        raise AssertionError(f"docker {shlex.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode(errors="replace").strip()


def eventually(look: Callable[[], Any], what: str, *, seconds: float = 30) -> Any:
    """The first true result of ``look``; AssertionError with what was waited for when the time is over."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        if result := look():
            return result
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds * PATIENCE:g} s")
        time.sleep(0.1)


class System:
    """A control plane on this machine's Docker, spoken to as any client would."""

    def __init__(
        self, folder: Path, *, tailnet: str = "embedded", host: str = "127.0.0.1", prefix: tuple[str, ...] = ()
    ) -> None:
        """``prefix`` is put before the control plane's command, to run it elsewhere; ``host`` is its address there."""
        self.folder = folder
        self.host = host
        self.prefix = prefix
        self.instance = f"t{secrets.token_hex(3)}"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "PERRY_CONFIG_DIR": str(folder),
            "PERRY_INSTANCE": self.instance,
            "PERRY_WORKSPACE_PREFIX": f"{self.instance}-",
            "PERRY_HOST": host,
            "PERRY_PORT": str(self.port),
            "PERRY_TAILNET_PROVIDER": tailnet,
            "PERRY_TAILNET_PORT": str(free_port()),
            "PERRY_NETWORK_POOL": f"10.{secrets.randbelow(80) + 120}.0.0/20",
            "PERRY_SSH_FIRST_PORT": str(30000 + secrets.randbelow(20000)),
            # The log-ins of whoever runs the tests stay where they are.
            **{f"PERRY_AGENTS_{agent}_SYNC": "false" for agent in ("CLAUDE", "OPENCODE", "CODEX", "GEMINI")},
        }
        self.devices: list[Device] = []

    def of_person(self, home: Path) -> None:
        """Let it bring along what a made-up person has in ``home``."""
        self.environment = {name: value for name, value in self.environment.items() if not name.endswith("_SYNC")}
        self.environment["HOME"] = str(home)

    # --- the process

    def start(self, *module: str) -> None:
        """Start the control plane and wait until it is ready. ``module`` stands in for ``controlplane run``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        log = (self.folder / "agent.log").open("ab")
        self.process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", *(module or ("controlplane", "run"))],
            cwd=CHECKOUT,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        eventually(self.ready, f"the control plane is ready ({self.log()[-2000:]})", seconds=READY_SECONDS)

    def ready(self) -> bool:
        if self.process is not None and self.process.poll() is not None:
            raise AssertionError(f"the control plane ended with {self.process.returncode}: {self.log()[-3000:]}")
        try:
            return httpx.get(f"{self.url}/ready", headers=self.headers, timeout=5).status_code == 200
        except (httpx.HTTPError, FileNotFoundError):
            return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        """End the process and wait for its end."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.send_signal(how)
            self.process.wait(timeout=30)
            self.process = None

    def log(self) -> str:
        file = self.folder / "agent.log"
        return file.read_text(errors="replace") if file.exists() else ""

    # --- the API

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {(self.folder / 'token').read_text().strip()}"}

    def call(self, procedure: str, value: Mapping[str, Any] | None = None, *, seconds: float = 180) -> Any:
        """A procedure's output; AssertionError with the server's words where it fails."""
        answer = self.raw(procedure, value, seconds=seconds)
        assert answer.status_code == 200, f"{procedure}: {answer.text}\n{self.log()[-3000:]}"
        return answer.json()["json"]

    def raw(self, procedure: str, value: Mapping[str, Any] | None = None, *, seconds: float = 180) -> httpx.Response:
        url = f"{self.url}/rpc/{procedure.replace('.', '/')}"
        return httpx.post(url, json={"json": value or {}}, headers=self.headers, timeout=seconds)

    def start_workspace(self, name: str, **wanted: Any) -> Workspace:
        wished = msgspec.to_builtins(StartWorkspace(name=name, **wanted))
        return msgspec.convert(self.call("workspaces.start", wished), Workspace)

    def workspace(self, name: str) -> Workspace:
        return msgspec.convert(self.call("workspaces.get", {"name": name}), Workspace)

    def inside(self, name: str, *command: str) -> str:
        """Output of a command that succeeds in a workspace."""
        result = self.call("workspaces.exec", {"name": name, "command": list(command)})
        assert result["exitCode"] == 0, result
        output: str = result["stdout"]
        return output

    # --- around it

    def perry(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """The CLI, with this system as its own."""
        done = subprocess.run(
            [str(Path(sys.executable).with_name("perry")), *arguments],
            cwd=options.pop("cwd", CHECKOUT),
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=240,
            **options,
        )
        assert not check or done.returncode == 0, f"perry {shlex.join(arguments)}: {done.stdout}{done.stderr}"
        return done

    def container(self, name: str, part: str = "") -> str:
        return f"{self.instance}-{name}{part}"

    def device(self, name: str) -> "Device":
        """A stock tailnet client of the owner."""
        device = Device(self, name)
        self.devices.append(device)
        return device

    def objects(self) -> list[str]:
        """Names of all containers, networks and volumes with this instance's label that are a workspace's."""
        label = f"label=perry.instance={self.instance}"
        found = docker("ps", "-a", "--filter", label, "--format", "{{.Names}}").splitlines()
        found += docker("network", "ls", "--filter", label, "--format", "{{.Name}}").splitlines()
        found += docker("volume", "ls", "--filter", label, "--format", "{{.Name}}").splitlines()
        own = (f"{self.instance}-coordinator", f"{self.instance}-gateway")
        return sorted(name for name in found if name.startswith(f"{self.instance}-") and name not in own)

    def remove(self) -> None:
        """End the process and remove everything with this instance's label."""
        self.stop(signal.SIGKILL)
        docker(
            "run", "--rm", "--network", "host", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW",
            "-e", f"PERRY_INSTANCE={self.instance}", "perry/sidecar:latest", "host-rules", "--remove", check=False,
        )  # fmt: skip
        label = f"label=perry.instance={self.instance}"
        for container in docker("ps", "-aq", "--filter", label).split():
            docker("rm", "-f", "-v", container, check=False)
        for network in docker("network", "ls", "-q", "--filter", label).split():
            docker("network", "rm", network, check=False)
        for volume in docker("volume", "ls", "-q", "--filter", label).split():
            docker("volume", "rm", "-f", volume, check=False)
        for image in docker("images", "-q", "--filter", label).split():
            docker("rmi", image, check=False)


NEVER_BEGAN = "unable to start container process: waiting for init preliminary setup"
"""What runc says where it lost the process that was to become the command: now and then, in nested containers."""


class Device:
    """A container with the stock tailscale client, in a namespace of its own."""

    def __init__(self, system: System, name: str) -> None:
        self.name = name
        self.container = f"{system.instance}-device-{name}"
        self._system = system

    def join(self, key: str, control_url: str, *more: str, mounts: Iterable[str] = (), alone: bool = False) -> None:
        """Start it and join. The key goes in by standard input, as ``perry tailnet join`` has people do it.

        ``mounts`` are folders of this machine that it has at the same path, in the words of ``docker run -v``.
        ``alone`` gives it a bridge of its own, as each workspace has one; others share theirs.
        """
        label = f"perry.instance={self._system.instance}"
        network = f"{self._system.instance}-{f'device-{self.name}' if alone else 'devices'}"
        # Between bridges the machine's rules let this port through.
        port = ("--port=41641",) if alone else ()
        if not docker("network", "ls", "-q", "--filter", f"name=^{network}$"):
            # Named like the pods' bridges, so that the machine's rules let WireGuard through, as a real network would.
            bridge = f"com.docker.network.bridge.name=perry-{secrets.token_hex(4)}"
            docker("network", "create", "--label", label, "--opt", bridge, network)
        docker(
            "run", "-d", "--name", self.container, "--label", label, "--network", network,
            "--hostname", self.name, "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun",
            "-e", "TS_DEBUG_USE_DERP_HTTP=1", *(f"--volume={each}" for each in mounts), "perry/device:latest",
            *port,
        )  # fmt: skip
        eventually(lambda: self.run("test", "-S", "/run/tailscale/tailscaled.sock", check=False)[0] == 0, "tailscaled")
        code, output = self.run(
            "tailscale", "up", "--login-server", control_url, "--auth-key", "file:/dev/stdin",
            "--hostname", self.name, *more, stdin=key.encode(), check=False,
        )  # fmt: skip
        assert code == 0, output

    def start(self) -> None:
        """Start it again, where Docker has ended it."""
        docker("start", self.container)

    def join_as_owner(self, mounts: Iterable[str] = (), *, alone: bool = False) -> None:
        joining = self._system.call("tailnet.join")
        self.join(joining["key"], joining["controlUrl"], mounts=mounts, alone=alone)

    def run(self, *command: str, check: bool = True, stdin: bytes | None = None) -> tuple[int, str]:
        """Exit code and all output of a command in the device."""
        flags = ["-i"] if stdin is not None else []
        for _ in range(3):
            done = subprocess.run(
                ["docker", "exec", *flags, self.container, *command], capture_output=True, input=stdin, timeout=90
            )
            output = (done.stdout + done.stderr).decode(errors="replace")
            if not (done.returncode == 126 and NEVER_BEGAN in output):
                break
        assert not check or done.returncode == 0, f"{shlex.join(command)}: {done.returncode} {output}"
        return done.returncode, output

    def install_perry(self) -> None:
        """Put this checkout's CLI on it. What it needs is in the image."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for package in ("cli", "protocol"):
                for file in sorted((CHECKOUT / package).rglob("*.py")):
                    tar.add(file, f"usr/lib/python3/dist-packages/{file.relative_to(CHECKOUT)}")
            program = b"#!/usr/bin/python3\nfrom cli.main import main\nmain()\n"
            entry = tarfile.TarInfo("usr/local/bin/perry")
            entry.size, entry.mode = len(program), 0o755
            tar.addfile(entry, io.BytesIO(program))
        docker("cp", "-", f"{self.container}:/", stdin=buffer.getvalue())

    def rpc(self, procedure: str, *more: str, base: str = "http://perry") -> tuple[int, Any]:
        """Status and answer of a procedure of the API, asked by curl as anybody would."""
        command = rpc(procedure, *more, base=base)
        return answer(self.run(*command)[1])

    def knows(self, workspace: Workspace) -> None:
        """Fill known_hosts from what the control plane says, as a person would."""
        lines = "".join(f"{workspace.name} {key}\n" for key in workspace.ssh_host_keys)
        self.run("sh", "-c", "mkdir -p ~/.ssh && cat >> ~/.ssh/known_hosts", stdin=lines.encode())

    def ssh(self, target: str, *command: str, check: bool = True) -> tuple[int, str]:
        options = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10")
        return self.run("ssh", *options, target, *command, check=check)


def rpc(procedure: str, *more: str, base: str = "http://perry") -> list[str]:
    """The command that asks for a procedure; its output is for :func:`answer`."""
    url = f"{base}/rpc/{procedure.replace('.', '/')}"
    return [
        "curl",
        "-sS",
        "-m",
        "20",
        "-w",
        "\n%{http_code}",
        "-H",
        "Content-Type: application/json",
        *more,
        "-d",
        "{}",
        url,
    ]


def answer(output: str) -> tuple[int, Any]:
    """Status and content of what such a command printed."""
    body, _, status = output.rpartition("\n")
    try:
        return int(status), json.loads(body)["json"]
    except (ValueError, KeyError) as exc:
        raise AssertionError(f"no answer of the API: {output}") from exc


def running(folder: Path, *, environment: Mapping[str, str] = {}, **options: Any) -> Iterator[System]:
    """A system for a fixture: started, and removed at the end. ``environment`` is more of its control plane's."""
    system = System(folder, **options)
    system.environment |= environment
    try:
        system.start()
        yield system
    finally:
        system.remove()
