"""``perry exec`` in a real workspace: real Docker, real processes, real signals."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from protocol.workspaces import Workspace
from tests.e2e.system import System, docker, eventually

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(400)]

PERRY = str(Path(sys.executable).with_name("perry"))
MEBIBYTE = 1 << 20


def begun(system: System, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [PERRY, "exec", *arguments],
        env={**os.environ, **system.environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def is_running(system: System, pattern: str) -> bool:
    return docker("exec", system.container("alpha"), "pgrep", "-f", "-x", pattern, check=False) != ""


def memory(system: System) -> int:
    """Bytes that the control plane has in memory."""
    assert system.process is not None
    status = Path(f"/proc/{system.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


def test_files_there_and_back(system: System, alpha: Workspace, tmp_path: Path) -> None:
    content = os.urandom(24 * MEBIBYTE)
    (tmp_path / "file").write_bytes(content)
    folder = "/home/workspace/there"
    system.inside("alpha", "mkdir", folder)
    tar = f"tar c -C {tmp_path} file | {PERRY} exec --cwd {folder} alpha -- tar x"
    subprocess.run(["sh", "-c", tar], env={**os.environ, **system.environment}, check=True, timeout=60)
    back = f"{PERRY} exec --cwd {folder} alpha -- cat file | sha256sum"
    done = subprocess.run(
        ["sh", "-c", back], env={**os.environ, **system.environment}, check=True, timeout=60, capture_output=True
    )
    assert done.stdout.split()[0].decode() == hashlib.sha256(content).hexdigest()


def test_who_and_where_and_what_it_ended_with(system: System, alpha: Workspace) -> None:
    done = system.perry("exec", "alpha", "--", "sh", "-c", 'id -un; echo "$HOME"; pwd; exit 42', check=False)
    assert done.returncode == 42
    assert done.stdout.split()[:2] == ["workspace", "/home/workspace"]
    assert system.perry("exec", "alpha", "no-such-program", check=False).returncode == 127


def test_ctrl_c_reaches_a_command_of_root_too(system: System, alpha: Workspace) -> None:
    for words, seconds in ((["sleep"], "1001"), (["sudo", "sleep"], "1002")):
        with begun(system, "alpha", "--", *words, seconds) as perry:
            eventually(lambda: is_running(system, f"sleep {seconds}"), "it runs")  # noqa: B023
            perry.send_signal(signal.SIGINT)
            assert perry.wait(30) in (130, 1)
        eventually(lambda: not is_running(system, f"sleep {seconds}"), "it is over")  # noqa: B023


def test_a_client_that_is_killed_ends_its_command(system: System, alpha: Workspace) -> None:
    with begun(system, "alpha", "sleep", "1003") as perry:
        eventually(lambda: is_running(system, "sleep 1003"), "it runs")
        perry.kill()
    eventually(lambda: not is_running(system, "sleep 1003"), "it is over")


def test_a_gigabyte_that_nobody_reads_is_not_kept(system: System, alpha: Workspace) -> None:
    before = memory(system)
    with begun(system, "alpha", "--", "head", "-c", str(1 << 30), "/dev/zero") as perry:
        assert perry.stdout is not None
        time.sleep(3)
        assert memory(system) - before < 24 * MEBIBYTE
        count, began = 0, time.monotonic()
        while chunk := perry.stdout.read1(MEBIBYTE):  # type: ignore[attr-defined]
            count += len(chunk)
            if count > 200 * MEBIBYTE:
                break
        assert count > 200 * MEBIBYTE, perry.stderr and perry.stderr.read()
        assert memory(system) - before < 24 * MEBIBYTE
        print(f"{count / MEBIBYTE / (time.monotonic() - began):.0f} MiB/s")  # noqa: T201
        perry.kill()


def test_a_workspace_that_stops_says_so(system: System, alpha: Workspace) -> None:
    system.start_workspace("gamma", docker=False)
    with begun(system, "gamma", "sleep", "1004") as perry:
        command = ["exec", system.container("gamma"), "pgrep", "-f", "sleep 1004"]
        eventually(lambda: docker(*command, check=False) != "", "it runs")
        system.call("workspaces.stop", {"name": "gamma"})
        assert perry.wait(30) == 7
        assert perry.stderr is not None and b"was stopped while the command ran" in perry.stderr.read()
    system.call("workspaces.delete", {"name": "gamma", "force": True})
