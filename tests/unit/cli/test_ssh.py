"""``perry ssh``: which way it goes, and that a host is never trusted on first use. A program stands in for ssh."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.commands import ssh
from protocol.config import Config, ConfigValue
from protocol.workspaces import TailnetState, WorkspaceStatus, WorkspaceTailnet
from tests.unit.cli.agent import HOST_KEY, FakeAgent, workspace
from tests.unit.cli.conftest import Perry

FAKE_SSH = f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\nsys.exit(7)\n"
OFF = WorkspaceTailnet(status=TailnetState.NONE, hostname="alpha", ips=[])


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ``ssh`` that prints its arguments, and ends with 7."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(FAKE_SSH)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder / "ssh"


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """``perry ssh`` in a process of its own, which the program replaces."""
    command = [sys.executable, "-P", "-c", "from cli.main import main; main()", "ssh", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)


@pytest.fixture
def local(agent: FakeAgent, perry_: Perry) -> FakeAgent:
    """The agent's own machine, without a tailnet."""
    agent.workspaces["alpha"] = workspace("alpha", tailnet=OFF)
    agent.answers["config.get"] = Config(
        folder="/x", items=[ConfigValue(key="ssh.bind", value="0.0.0.0", source="file")]
    )
    (perry_.folder / "ssh").mkdir()
    (perry_.folder / "ssh" / "id_ed25519").write_text("key")
    return agent


@pytest.mark.usefixtures("program")
def test_by_the_published_port_on_the_agents_machine(local: FakeAgent, perry_: Perry) -> None:
    done = run("alpha", "ls", "-l", "$HOME; x")
    assert done.returncode == 7, done.stderr
    given = json.loads(done.stdout)
    known = perry_.folder / "ssh" / "workspaces" / "alpha"
    assert known.read_text() == f"alpha {HOST_KEY}\n"
    assert f'UserKnownHostsFile="{known}"' in given
    for option in ("StrictHostKeyChecking=yes", "HostKeyAlias=alpha", "GlobalKnownHostsFile=/dev/null"):
        assert given[given.index(option) - 1] == "-o"
    assert given[given.index("-i") + 1] == str(perry_.folder / "ssh" / "id_ed25519")
    assert given[given.index("-p") + 1] == "22001"
    assert given[-6:] == ["-l", "workspace", "127.0.0.1", "ls", "-l", "$HOME; x"]


@pytest.mark.usefixtures("program")
def test_after_two_dashes_all_is_the_command(local: FakeAgent) -> None:
    assert json.loads(run("alpha", "--", "-x", "y").stdout)[-4:] == ["--", "127.0.0.1", "-x", "y"]


@pytest.mark.usefixtures("program")
def test_the_persons_agent_is_forwarded_when_asked(
    local: FakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path))
    assert "-A" in json.loads(run("-A", "alpha").stdout)
    assert "-A" not in json.loads(run("alpha").stdout)


@pytest.mark.usefixtures("program")
def test_a_setting_forwards_it_where_there_is_one(
    local: FakeAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wished = [ConfigValue(key="ssh.forwardAgent", value=True, source="file")]
    local.answers["config.get"] = Config(folder="/x", items=wished)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path))
    assert "-A" in json.loads(run("alpha").stdout)
    assert "-A" not in json.loads(run("--no-forward-agent", "alpha").stdout)
    monkeypatch.setenv("SSH_AUTH_SOCK", "/nowhere")
    assert "-A" not in json.loads(run("alpha").stdout)


@pytest.mark.parametrize(("agent_socket", "says"), [("", "SSH_AUTH_SOCK is not set"), ("/nowhere", "is gone")])
@pytest.mark.usefixtures("program")
def test_no_agent_to_forward(local: FakeAgent, monkeypatch: pytest.MonkeyPatch, agent_socket: str, says: str) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", agent_socket)
    done = run("-A", "alpha")
    assert done.returncode == 7
    assert says in done.stderr and "ssh-agent" in done.stderr


@pytest.mark.usefixtures("program")
def test_a_real_ssh_would_take_these_options(local: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    given = json.loads(run("alpha").stdout)
    real = subprocess.run(
        ["/usr/bin/ssh", "-G", *given], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert "stricthostkeychecking true" in real
    assert "hostkeyalias alpha" in real
    assert f"userknownhostsfile {perry_.folder}/ssh/workspaces/alpha" in real


@pytest.fixture
def ssh_server() -> Iterator[int]:
    """Something that greets as an ssh server does; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.sendall(b"SSH-2.0-x\r\n")
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def resolving(monkeypatch: pytest.MonkeyPatch, port: int, **names: str) -> None:
    """These names resolve to these addresses, and port 22 of all is ``port`` here."""
    connect, look_up = socket.create_connection, socket.getaddrinfo

    def getaddrinfo(host: str, *rest: Any, **more: Any) -> list[Any]:
        if host == "127.0.0.1":
            return list(look_up(host, *rest, **more))
        if host not in names:
            raise socket.gaierror("unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (names[host], 22))]

    def create_connection(_: Any, **more: Any) -> socket.socket:
        return connect(("127.0.0.1", port), **more)

    monkeypatch.setattr("cli.commands.ssh.socket.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("cli.commands.ssh.socket.create_connection", create_connection)


def test_on_the_tailnet_by_name(monkeypatch: pytest.MonkeyPatch, ssh_server: int) -> None:
    resolving(monkeypatch, ssh_server, **{"alpha.perry.internal": "100.64.0.3"})
    assert ssh.on_tailnet(workspace("alpha")) == "alpha.perry.internal"
    resolving(monkeypatch, ssh_server, alpha="100.64.0.3")
    assert ssh.on_tailnet(workspace("alpha")) == "alpha"


def test_a_name_that_means_something_else_here(monkeypatch: pytest.MonkeyPatch, ssh_server: int) -> None:
    resolving(monkeypatch, ssh_server, alpha="192.168.1.5")
    assert ssh.on_tailnet(workspace("alpha")) is None


def test_a_name_without_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    resolving(monkeypatch, port, alpha="100.64.0.3")
    assert ssh.on_tailnet(workspace("alpha")) is None


def test_a_hanging_resolver_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        released.wait(30)
        return []

    monkeypatch.setattr("cli.commands.ssh.socket.getaddrinfo", getaddrinfo)
    monkeypatch.setattr("cli.commands.ssh.PROBE_SECONDS", 0.05)
    assert ssh.on_tailnet(workspace("alpha")) is None
    released.set()


def test_by_the_tailnet_the_host_is_known_too(
    agent: FakeAgent, perry_: Perry, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.workspaces["alpha"] = workspace("alpha")
    monkeypatch.setattr("cli.commands.ssh.on_tailnet", lambda _: "alpha")
    given: list[str] = []

    def execv(path: str, arguments: list[str]) -> None:
        given.extend([path, *arguments])
        raise SystemExit(0)

    monkeypatch.setattr("cli.commands.ssh.os.execv", execv)
    assert perry_("ssh", "alpha").exit_code == 0
    assert given[:2] == [str(program), "ssh"]
    assert given[-3:] == ["-l", "workspace", "alpha"]
    assert "StrictHostKeyChecking=yes" in given
    assert "-i" not in given


@pytest.mark.usefixtures("program", "perry_")
def test_elsewhere_and_off_the_tailnet_it_goes_through_the_agent(agent: FakeAgent) -> None:
    agent.workspaces["alpha"] = workspace("alpha", tailnet=OFF)
    done = run("alpha", "ls")
    assert done.returncode == 7, done.stderr
    given = json.loads(done.stdout)
    (proxy,) = [each for each in given if each.startswith("ProxyCommand=")]
    assert proxy.endswith("exec --stdin alpha -- socat - TCP:localhost:22")
    assert "StrictHostKeyChecking=yes" in given and given[-4:] == ["-l", "workspace", "alpha", "ls"]
    assert "`perry tailnet join`" in done.stderr and "`perry exec -t alpha" in done.stderr


Change = Callable[[FakeAgent], None]


def test_without_an_ssh_client(local: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = perry_("ssh", "alpha")
    assert result.exit_code == 1
    assert "`perry exec alpha" in result.stderr


@pytest.mark.parametrize(
    ("changes", "exit_code", "says"),
    [
        ({"status": WorkspaceStatus.STOPPED}, 7, "`perry start alpha`"),
        ({"ssh_host_keys": []}, 7, "no ssh host key yet"),
        ({"ssh_host_keys": ["ssh-ed25519 AAAA\n* ssh-ed25519 AAAA"]}, 1, "host key"),
    ],
)
@pytest.mark.usefixtures("program")
def test_what_cannot_be(local: FakeAgent, perry_: Perry, changes: dict[str, Any], exit_code: int, says: str) -> None:
    local.workspaces["alpha"] = workspace("alpha", tailnet=OFF, **changes)
    result = perry_("ssh", "alpha")
    assert result.exit_code == exit_code
    assert says in result.stderr
    assert not (perry_.folder / "ssh" / "workspaces" / "alpha").exists()
