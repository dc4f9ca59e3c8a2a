"""``perry proxy``: what it has ssh carry, and which way. A program stands in for ssh."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.config import Config, ConfigValue
from protocol.workspaces import ListeningPort, ListeningPorts, TailnetState, WorkspaceStatus, WorkspaceTailnet
from tests.unit.cli.agent import FakeAgent, workspace
from tests.unit.cli.conftest import Perry

FAKE_SSH = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
OFF = WorkspaceTailnet(status=TailnetState.NONE, hostname="alpha", ips=[])


@pytest.fixture(autouse=True)
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ssh").write_text(FAKE_SSH)
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def alpha(agent: FakeAgent) -> FakeAgent:
    agent.workspaces["alpha"] = workspace("alpha", tailnet=OFF)
    agent.answers["config.get"] = Config(folder="/x", items=[ConfigValue(key="ssh.bind", value="", source="file")])
    return agent


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-P", "-c", "from cli.main import main; main()", "proxy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)


def test_several_ports_by_the_published_port_of_ssh(alpha: FakeAgent, perry_: Perry) -> None:
    (perry_.folder / "ssh").mkdir()
    (perry_.folder / "ssh" / "id_ed25519").write_text("key")
    done = run("alpha", "8080:3000", "5173")
    *said, given = done.stdout.splitlines()
    assert said == ["http://127.0.0.1:8080 is port 3000 of alpha", "http://127.0.0.1:5173 is port 5173 of alpha"]
    arguments = json.loads(given)
    forwards = [arguments[at + 1] for at, each in enumerate(arguments) if each == "-L"]
    assert forwards == ["127.0.0.1:8080:localhost:3000", "127.0.0.1:5173:localhost:5173"]
    assert "ExitOnForwardFailure=yes" in arguments
    assert "StrictHostKeyChecking=yes" in arguments
    assert arguments[-3:] == ["-l", "workspace", "127.0.0.1"]
    assert arguments[arguments.index("-p") + 1] == "22001"
    assert not any(each.startswith("ProxyCommand=") for each in arguments)


@pytest.mark.parametrize(
    ("port", "says"),
    [
        ("18789", "the wake door"),
        ("80:7392", "the worker"),
        ("0", "beyond 1 to 65535"),
        ("8080:70000", "beyond 1 to 65535"),
        ("53:53/udp", "UDP is not carried"),
        ("-oProxyCommand=x", "No such option"),
        ("8080:evil:3000", "is no port"),
    ],
)
def test_what_is_refused(alpha: FakeAgent, perry_: Perry, port: str, says: str) -> None:
    result = perry_("proxy", "alpha", port)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_stopped_workspace(alpha: FakeAgent, perry_: Perry) -> None:
    alpha.workspaces["alpha"] = workspace("alpha", tailnet=OFF, status=WorkspaceStatus.STOPPED)
    result = perry_("proxy", "alpha", "3000")
    assert result.exit_code == 7
    assert "`perry start alpha`" in result.stderr


def test_ports_that_cannot_be_had_here_are_said_before_ssh(alpha: FakeAgent, perry_: Perry) -> None:
    (perry_.folder / "ssh").mkdir()
    (perry_.folder / "ssh" / "id_ed25519").write_text("key")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("alpha", f"{port}:3000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: Port {port} of this device cannot be listened on (Address already in use)")
    done = run("alpha", "8080:3000", "8080:3001")
    assert (done.returncode, done.stdout) == (2, "") and "port of its own" in done.stderr


@pytest.mark.parametrize("here", [True, False], ids=["on the tailnet", "elsewhere"])
def test_ports_are_shown_as_this_device_reaches_them(
    perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    agent.workspaces["alpha"] = workspace("alpha")
    monkeypatch.setattr("cli.commands.ssh.on_tailnet", lambda _: "alpha" if here else None)
    agent.answers["workspaces.ports"] = ListeningPorts(
        items=[
            ListeningPort(port=port, protocol=protocol, address=address, loopback=address.startswith("127."))
            for port, protocol, address in (
                (22, "tcp", "0.0.0.0"), (3000, "tcp", "::"), (3001, "tcp", "127.0.0.1"), (5353, "udp", "::"),
            )
        ]
    )  # fmt: skip
    rows = [line.split(None, 3) for line in perry_("ports", "alpha").stdout.splitlines()[1:]]
    assert [row[3] for row in rows] == (
        ["perry ssh alpha", "http://alpha:3000", "perry proxy alpha 3001", "alpha:5353"]
        if here
        else ["perry ssh alpha", "perry proxy alpha 3000", "perry proxy alpha 3001", "-"]
    )
