"""The Docker Engine of this machine: whether one answers, and how one is started where none does."""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path

from bootstrap.notes import BUILD, MEMBERS, SERVICES, note
from bootstrap.running import Trouble, find, output, run, say, sudo

SOCKET = Path("/var/run/docker.sock")
PID_FILE = BUILD / "dockerd.pid"
"""Written, and removed at its end, by an engine that was started here in the background."""
LOG = BUILD / "dockerd.log"
SYSTEMD = Path("/run/systemd/system")
START_SECONDS = 60
STOP_SECONDS = 60
PULL_SECONDS = 25
DEBIAN = "debian:trixie-slim"


class State(Enum):
    """How the engine stands."""

    ANSWERS = "answers"
    DENIED = "it runs, and not for this person"
    ABSENT = "none answers"


def state() -> State:
    """Asks the engine; the client program need not be there."""
    if os.environ.get("DOCKER_HOST"):
        docker = shutil.which("docker")
        return State.ANSWERS if docker and output([docker, "version"], seconds=20) is not None else State.ABSENT
    try:
        return State.ANSWERS if ping() else State.ABSENT
    except PermissionError:
        answers = output([*sudo(), sys.executable, "-c", PING, str(SOCKET)], seconds=60) is not None
        return State.DENIED if answers else State.ABSENT


PING = """
import socket, sys
plug = socket.socket(socket.AF_UNIX)
plug.settimeout(5)
plug.connect(sys.argv[1])
plug.sendall(b"GET /_ping HTTP/1.0\\r\\nHost: docker\\r\\n\\r\\n")
sys.exit(b"200 OK" not in plug.recv(200))
"""


def ping() -> bool:
    """Whether the socket answers. PermissionError where this person may not ask."""
    with socket.socket(socket.AF_UNIX) as plug:
        plug.settimeout(5)
        try:
            plug.connect(str(SOCKET))
            plug.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b"200 OK" in plug.recv(200)
        except PermissionError:
            raise
        except OSError:
            return False


def docker() -> list[str]:
    """What a docker command begins with here."""
    program = shutil.which("docker")
    if program is None:
        raise Trouble("The docker command is missing; install docker-cli (in Debian 12 it is part of docker.io).")
    return [program] if state() is not State.DENIED else [*sudo(), program]


def start() -> None:
    """Start the engine that is installed: by systemd where it runs, else in the background."""
    if SYSTEMD.exists():
        say("Starting Docker by systemd.")
        run([*sudo(), "systemctl", "start", "docker"], "start Docker")
        note(SERVICES, "docker")
    else:
        _start_in_background()
    deadline = time.monotonic() + START_SECONDS
    while state() is State.ABSENT:
        if time.monotonic() > deadline:
            where = f"{LOG} says why" if not SYSTEMD.exists() else "`journalctl -u docker` says why"
            raise Trouble(f"Docker did not start within {START_SECONDS} s; {where}.")
        time.sleep(0.2)


def _start_in_background() -> None:
    dockerd = find("dockerd")
    if dockerd is None:
        raise Trouble("Docker is not installed, and apt did not bring it; install it yourself.")
    say(f"Starting Docker in the background; its log is {LOG}.")
    BUILD.mkdir(exist_ok=True)
    # Left by a machine that went down: the number may be another program's by now, and Docker would not start.
    PID_FILE.unlink(missing_ok=True)
    _make_cgroups_writable()
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    with LOG.open("ab") as log:
        subprocess.Popen(
            [*sudo(), "env", f"PATH={path}", dockerd, "--pidfile", str(PID_FILE)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _make_cgroups_writable() -> None:
    """In a container on cgroup v1 the controllers are mounted read-only; an engine needs to write there."""
    root = Path("/sys/fs/cgroup")
    if root.is_dir() and not (root / "cgroup.controllers").exists():
        for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir())):
            if os.statvfs(folder).f_flag & os.ST_RDONLY:
                subprocess.run(
                    [*sudo(), "mount", "-o", "remount,bind,rw", str(folder)], capture_output=True, check=False
                )


def background_process() -> int | None:
    """The process of the engine that was started here in the background and runs."""
    try:
        process = int(PID_FILE.read_text())
        name = Path(f"/proc/{process}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    return process if name == "dockerd" else None


def stop_background() -> bool:
    """End the engine that was started here in the background, and no other; whether there was one."""
    process = background_process()
    if process is None:
        return False
    # The shell's own kill: a bare machine has no program of that name.
    subprocess.run([*sudo(), "sh", "-c", f"kill {process}"], capture_output=True, check=False)
    deadline = time.monotonic() + STOP_SECONDS
    while _lives(process):
        if time.monotonic() > deadline:
            raise Trouble(f"Docker (process {process}) does not end; {LOG} may say why.")
        time.sleep(0.1)
    return True


def _lives(process: int) -> bool:
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def join_group() -> None:
    """Let this person use the engine without sudo."""
    person = getpass.getuser()
    run([*sudo(), "env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "usermod", "-aG", "docker", person],
        f"add {person} to the group docker")  # fmt: skip
    note(MEMBERS, person)


def has_image(tag: str) -> bool:
    """Whether the engine has it."""
    return output([*docker(), "image", "inspect", tag]) is not None


def registry_answers() -> bool:
    """Whether the ordinary base image could be pulled; then it is here."""
    return output([*docker(), "pull", "-q", DEBIAN], seconds=PULL_SECONDS) is not None


if __name__ == "__main__":
    # For .ci/run: whether an engine runs that was started here, and its end.
    if sys.argv[1:] == ["started-here"]:
        sys.exit(0 if background_process() is not None else 1)
    if sys.argv[1:] == ["stop"]:
        stop_background()
