"""``perry agent install`` under a real systemd: a machine of its own in a container, started as any Debian is.

systemd gets a cgroup2 hierarchy of its own, so that this works on hosts of either cgroup version.
"""

import importlib.metadata
import io
import json
import re
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator

import pytest

from tests.e2e.system import CHECKOUT, docker, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

TAG = "perry-test/systemd:latest"
BOOT = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup && exec /lib/systemd/systemd"

DOCKERFILE = """\
FROM perry/base:latest
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \\
    systemd systemd-sysv dbus dbus-user-session libpam-systemd polkitd procps \\
    sudo python3 python3-venv openssh-client iproute2 \\
    && apt-get clean && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /tmp/
RUN python3 -m venv /opt/venv && /opt/venv/bin/pip install -q --no-cache-dir --no-deps -r /tmp/requirements.txt \\
    && echo /opt/perry > "$(/opt/venv/bin/python -c 'import site; print(site.getsitepackages()[0])')/perry.pth" \\
    && printf '#!/opt/venv/bin/python\\nfrom cli.main import main\\nmain()\\n' > /usr/local/bin/perry \\
    && chmod 755 /usr/local/bin/perry
RUN useradd --create-home --shell /bin/bash ann
STOPSIGNAL SIGRTMIN+3
"""


def needed(distribution: str, found: dict[str, str]) -> dict[str, str]:
    """What a distribution needs to run, as it is installed here."""
    for wanted in importlib.metadata.requires(distribution) or []:
        name = re.split(r"[^A-Za-z0-9._-]", wanted, maxsplit=1)[0].lower()
        if "extra ==" in wanted and distribution == "perry":
            continue
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # For another system, or an extra that is not used.
        if name not in found:
            found[name] = version
            needed(name, found)
    return found


def image() -> str:
    """Built once; Docker's layers keep it until a dependency changes."""
    context = io.BytesIO()
    requirements = "".join(f"{name}=={version}\n" for name, version in sorted(needed("perry", {}).items()))
    with tarfile.open(fileobj=context, mode="w") as tar:
        for name, text in (("Dockerfile", DOCKERFILE), ("requirements.txt", requirements)):
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    done = subprocess.run(["docker", "build", "-q", "-t", TAG, "-"], input=context.getvalue(), capture_output=True)
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")[-3000:]
    return TAG


class Machine:
    """A Debian with systemd, a person ``ann``, and the machine's Docker."""

    def __init__(self, container: str) -> None:
        self.container = container

    def run(self, *command: str, user: str = "root", check: bool = True) -> str:
        # As a log-in makes it: a session of its own, and nothing of ours in its environment.
        entry = ["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"]
        if user != "root":
            entry = ["runuser", "-u", user, "--", *entry, f"HOME=/home/{user}", f"USER={user}"]
        else:
            entry += ["HOME=/root"]
        done = subprocess.run(
            ["docker", "exec", self.container, *entry, *command], capture_output=True, text=True, timeout=120
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def status(self, user: str) -> dict[str, object]:
        text = self.run("perry", "agent", "status", "--json", user=user, check=False)
        found: dict[str, object] = json.loads(text[: text.rindex("}") + 1])
        return found

    def pid(self) -> str:
        return self.run("pgrep", "-f", "controlplane run", check=False).strip()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    name = f"perry-test-systemd-{secrets.token_hex(3)}"
    docker(
        "run", "-d", "--name", name, "--cgroupns", "private", "--cap-add", "SYS_ADMIN",
        "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
        "--security-opt", "systempaths=unconfined", "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp",
        "-e", "container=docker", "-v", "/var/run/docker.sock:/opt/docker.sock", "-v", f"{CHECKOUT}:/opt/perry:ro",
        "--entrypoint", "sh", image(), "-c", BOOT,
    )  # fmt: skip
    machine = Machine(name)
    try:
        eventually(
            lambda: machine.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"),
            "systemd is up",
        )
        # The socket is the host's, and stays as it is there.
        machine.run("sh", "-c", "groupadd -f -o -g $(stat -c %g /opt/docker.sock) docker && usermod -aG docker ann"
                    " && ln -s /opt/docker.sock /run/docker.sock")  # fmt: skip
        settings = {"instance": name, "tailnet": {"provider": "none"}, "workspacePrefix": f"{name}-"}
        machine.run("sh", "-c", f"mkdir -p /home/ann/.config/perry; echo '{json.dumps(settings)}' "
                    "> /home/ann/.config/perry/config.json; chown -R ann: /home/ann/.config")  # fmt: skip
        yield machine
    finally:
        docker("rm", "-f", "-v", name, check=False)


def killed_and_back(machine: Machine) -> None:
    before = machine.pid()
    machine.run("kill", "-9", before)
    eventually(lambda: machine.pid() not in ("", before), "systemd starts it again")
    eventually(lambda: machine.status("ann")["running"], "it answers again")


def test_a_persons_own_service(machine: Machine) -> None:
    refused = machine.run("perry", "agent", "install", user="ann", check=False)
    assert "No systemd runs for ann" in refused and "sudo loginctl enable-linger ann" in refused
    machine.run("loginctl", "enable-linger", "ann")
    eventually(lambda: "/run/user" in machine.run("ls", "-d", "/run/user/1000", check=False), "ann's systemd")

    assert "The agent runs at http://127.0.0.1:7391" in machine.run("perry", "agent", "install", user="ann")
    assert machine.run("ps", "-o", "user=", "-p", machine.pid()).strip() == "ann"
    status = machine.status("ann")
    assert status["running"] is True
    assert status["services"] == [
        {"mode": "user", "unit": "/home/ann/.config/systemd/user/perry-agent.service",
         "active": "active", "enabled": "enabled"}
    ]  # fmt: skip
    killed_and_back(machine)
    assert "ready" in machine.run("perry", "agent", "logs", user="ann") or machine.pid()

    # Again: brought up to date, and started anew.
    before = machine.pid()
    machine.run("perry", "agent", "install", user="ann")
    assert machine.pid() != before

    machine.run("perry", "agent", "uninstall", user="ann")
    assert machine.pid() == ""
    assert machine.run("ls", "/home/ann/.config/systemd/user", user="ann").split() in ([], ["default.target.wants"])
    assert "state.db" in machine.run("ls", "/home/ann/.config/perry")
    assert "No service of Perry's" in machine.run("perry", "agent", "uninstall", user="ann", check=False)


def test_a_service_of_the_machine_for_the_person_who_asks(machine: Machine) -> None:
    assert "sudo perry agent install --system" in machine.run(
        "perry", "agent", "install", "--system", user="ann", check=False
    )
    as_sudo = ("env", "SUDO_USER=ann", "SUDO_UID=1000", "SUDO_GID=1000")
    assert "without sudo" in machine.run(*as_sudo, "perry", "agent", "install", check=False)
    machine.run(*as_sudo, "perry", "agent", "install", "--system")
    assert machine.run("ps", "-o", "user=", "-p", machine.pid()).strip() == "ann"
    assert machine.run("systemctl", "is-enabled", "perry-agent").strip() == "enabled"
    assert "After=" in (unit := machine.run("systemctl", "cat", "perry-agent")) and "docker.service" in unit
    verified = machine.run("systemd-analyze", "verify", "/etc/systemd/system/perry-agent.service", check=False)
    assert "perry-agent" not in verified.replace("docker.service", ""), verified
    killed_and_back(machine)

    assert "is the machine's" in machine.run("perry", "agent", "uninstall", user="ann", check=False)
    machine.run(*as_sudo, "perry", "agent", "uninstall")
    assert machine.pid() == ""
    assert machine.run("systemctl", "is-enabled", "perry-agent", check=False).strip() in ("not-found", "")


def test_a_service_that_cannot_run_says_why(machine: Machine) -> None:
    machine.run("sh", "-c", "cp /home/ann/.config/perry/config.json /tmp/kept; echo '{\"prot\": 1}' "
                "> /home/ann/.config/perry/config.json")  # fmt: skip
    as_sudo = ("env", "SUDO_USER=ann", "SUDO_UID=1000", "SUDO_GID=1000")
    said = machine.run(*as_sudo, "perry", "agent", "install", "--system", check=False)
    assert "prot" in said, said
    machine.run(*as_sudo, "perry", "agent", "uninstall")
    machine.run("cp", "/tmp/kept", "/home/ann/.config/perry/config.json")


def test_without_systemd_there_is_a_way(tmp_path: object) -> None:
    command = [sys.executable, "-c", "from cli.main import main; main()", "agent", "install"]
    done = subprocess.run(
        ["docker", "run", "--rm", "-v", f"{CHECKOUT}:/opt/perry:ro", "--entrypoint", "perry", image(), *command[3:]],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7
    assert "does not run systemd" in done.stderr and "perry agent run -d" in done.stderr
