"""``perry ssh-config``: what it writes, what it leaves alone, and what a real ssh makes of it."""

import subprocess
from pathlib import Path

import pytest

from protocol.config import Config, ConfigValue
from protocol.workspaces import TailnetState, WorkspaceTailnet
from tests.unit.cli.agent import HOST_KEY, FakeAgent, workspace
from tests.unit.cli.conftest import Perry

OFF = WorkspaceTailnet(status=TailnetState.NONE, hostname="alpha", ips=[])
THEIRS = "# mine\nHost work\n  HostName work.example\n\n\nHost *\n  ForwardAgent no\n"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder ``.ssh`` of a person."""
    monkeypatch.setenv("HOME", str(tmp_path / "a home"))
    return tmp_path / "a home" / ".ssh"


@pytest.fixture
def local(agent: FakeAgent, perry_: Perry, home: Path) -> FakeAgent:
    """The agent's own machine."""
    agent.workspaces["alpha"] = workspace("alpha", tailnet=OFF)
    agent.answers["config.get"] = Config(
        folder="/x", items=[ConfigValue(key="ssh.bind", value="0.0.0.0", source="file")]
    )
    (perry_.folder / "ssh").mkdir()
    (perry_.folder / "ssh" / "id_ed25519").write_text("key")
    return agent


def effective(home: Path, host: str) -> dict[str, str]:
    """What a real ssh would do for a host."""
    done = subprocess.run(["ssh", "-G", "-F", home / "config", host], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


def test_a_real_ssh_finds_the_published_port(local: FakeAgent, perry_: Perry, home: Path) -> None:
    assert perry_("ssh-config").exit_code == 0
    options = effective(home, "alpha")
    assert (options["hostname"], options["port"], options["user"]) == ("127.0.0.1", "22001", "workspace")
    assert options["stricthostkeychecking"] == "true"
    assert options["hostkeyalias"] == "alpha"
    assert options["identityfile"] == str(perry_.folder / "ssh" / "id_ed25519")
    assert options["userknownhostsfile"] == str(home / "perry" / "known_hosts")
    assert (home / "perry" / "known_hosts").read_text() == f"alpha {HOST_KEY}\n"


def test_elsewhere_it_is_the_tailnets_name(
    agent: FakeAgent, perry_: Perry, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.commands.ssh_config.on_tailnet", lambda _: "alpha")
    agent.workspaces["alpha"] = workspace("alpha")
    assert perry_("ssh-config").exit_code == 0
    options = effective(home, "alpha")
    assert (options["hostname"], options["port"]) == ("alpha.perry.internal", "22")


@pytest.mark.parametrize("changes", [{"tailnet": OFF}, {}], ids=["none", "one that this device is not on"])
def test_without_a_tailnet_it_goes_through_the_agent(
    agent: FakeAgent, perry_: Perry, home: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, WorkspaceTailnet]
) -> None:
    monkeypatch.setattr("cli.commands.ssh_config.on_tailnet", lambda _: None)
    agent.workspaces["alpha"] = workspace("alpha", **changes)
    assert perry_("ssh-config").exit_code == 0
    assert effective(home, "alpha")["proxycommand"].endswith("exec --stdin alpha -- socat - TCP:localhost:22")


def test_what_is_the_persons_stays(local: FakeAgent, perry_: Perry, home: Path) -> None:
    home.mkdir(parents=True)
    real = home / "real-config"
    real.write_text(THEIRS)
    real.chmod(0o644)
    (home / "config").symlink_to(real)
    assert perry_("ssh-config").exit_code == 0
    assert (home / "config").is_symlink()
    assert real.read_text().endswith("\n" + THEIRS)
    assert real.stat().st_mode & 0o777 == 0o644
    assert effective(home, "work")["hostname"] == "work.example"
    once = real.read_text()
    assert "up to date" in perry_("ssh-config").stdout
    assert real.read_text() == once
    assert perry_("ssh-config", "--remove").exit_code == 0
    assert real.read_text() == THEIRS
    assert not (home / "perry").exists()
    assert "nothing to remove" in perry_("ssh-config", "--remove").stdout


def test_removed_where_there_was_nothing_before(local: FakeAgent, perry_: Perry, home: Path) -> None:
    perry_("ssh-config")
    perry_("ssh-config", "--remove")
    assert list(home.iterdir()) == []


def test_a_host_of_the_same_name_stays_theirs(local: FakeAgent, perry_: Perry, home: Path) -> None:
    home.mkdir(parents=True)
    (home / "config").write_text("Host alpha beta\n  HostName mine.example\n")
    result = perry_("ssh-config")
    assert "alpha.perry" in result.stderr
    assert effective(home, "alpha")["hostname"] == "mine.example"
    assert effective(home, "alpha.perry")["port"] == "22001"


def test_print_writes_nothing(local: FakeAgent, perry_: Perry, home: Path) -> None:
    assert "Host alpha" in perry_("ssh-config", "--print").stdout
    assert not home.exists()


def test_a_delete_keeps_it_up_to_date_only_where_it_is_wanted(local: FakeAgent, perry_: Perry, home: Path) -> None:
    def delete(wanted: dict[str, str]) -> dict[str, str]:
        del local.workspaces[wanted["name"]]
        return {}

    local.workspaces["beta"] = workspace("beta", tailnet=OFF)
    local.answers["workspaces.delete"] = delete
    assert perry_("delete", "beta").exit_code == 0
    assert not home.exists()
    local.workspaces["beta"] = workspace("beta", tailnet=OFF)
    perry_("ssh-config")
    assert "Host beta" in (home / "perry" / "config").read_text()
    assert perry_("delete", "beta").exit_code == 0
    assert "Host beta" not in (home / "perry" / "config").read_text()


def test_another_agents_hosts_are_left_alone(local: FakeAgent, perry_: Perry, home: Path) -> None:
    perry_("ssh-config")
    config = home / "perry" / "config"
    config.write_text(config.read_text().replace(local.url, "http://elsewhere:7391"))
    before = config.read_text()
    local.answers["workspaces.delete"] = {}
    assert perry_("delete", "alpha").exit_code == 0
    assert config.read_text() == before


@pytest.mark.parametrize("name", ["x\nHost *\n  ProxyCommand evil", "-oProxyCommand=evil", "a b", ""])
def test_a_hostile_tailnet_name_is_refused(
    agent: FakeAgent, perry_: Perry, home: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("cli.commands.ssh_config.on_tailnet", lambda _: name)
    tailnet = WorkspaceTailnet(status=TailnetState.ONLINE, hostname=name, ips=[])
    agent.workspaces["alpha"] = workspace("alpha", tailnet=tailnet)
    result = perry_("ssh-config")
    assert result.exit_code == 1
    assert "tailnet name" in result.stderr
    assert not home.exists()
