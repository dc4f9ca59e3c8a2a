"""From the embedded tailnet to a person's own headscale: the workspace comes over, is reached there, and leaves it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.workspaces import TailnetState
from tests.contract.tailnet.bench import write_secret
from tests.contract.tailnet.their_headscale import TheirHeadscale
from tests.e2e.system import System, docker, eventually, free_port

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(300)]


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    system = System(tmp_path / "agent")
    # What is set by a variable cannot be set by `perry config set`.
    del system.environment["PERRY_TAILNET_PROVIDER"]
    try:
        system.start()
        yield system
    finally:
        system.remove()


@pytest.fixture
def theirs(system: System) -> Iterator[TheirHeadscale]:
    headscale = TheirHeadscale(f"{system.instance}-theirs", free_port())
    try:
        headscale.start()
        yield headscale
    finally:
        headscale.remove()


def test_a_workspace_moves_to_their_headscale_and_is_deleted_there(
    system: System, theirs: TheirHeadscale, tmp_path: Path
) -> None:
    first = system.start_workspace("alpha", docker=False)
    assert first.tailnet.status is TailnetState.ONLINE, first
    key = theirs.api_key()
    file = tmp_path / "api-key"
    write_secret(file, key)

    file.chmod(0o644)
    refused = system.perry("config", "set", "tailnet.credentialFile", str(file), check=False)
    assert refused.returncode != 0 and f"`chmod 600 {file}`" in refused.stderr, refused
    file.chmod(0o600)
    for setting in (
        ("tailnet.credentialFile", str(file)),
        ("tailnet.url", theirs.url),
        ("tailnet.provider", "headscale"),
        ("auth.owners", "owner"),
    ):
        said = system.perry("config", "set", *setting).stderr
    assert "perry agent run -d" in said

    system.stop()
    system.start()
    shown = eventually(lambda: (s := system.call("tailnet.status"))["ready"] and s, "their headscale answers")
    assert shown["provider"] == "headscale" and shown["controlUrl"] == theirs.url and "ownersWarning" not in shown
    assert shown["credential"].startswith("API key ") and shown["credentialExpires"]
    assert "alpha is still on the tailnet that was configured before" in shown["warning"]
    assert "alpha" not in theirs.nodes(), "until its next start"

    system.perry("restart", "alpha")
    moved = system.workspace("alpha")
    assert moved.tailnet.status is TailnetState.ONLINE and moved.tailnet.dns_name == "alpha.home.example", moved
    assert "alpha" in theirs.nodes() and "warning" not in system.call("tailnet.status")

    laptop = system.device("laptop")
    laptop.join(theirs.device_key(), theirs.url)
    laptop.knows(moved)
    assert laptop.ssh("workspace@alpha", "hostname")[1].strip() == "alpha"

    everything = docker("ps", "-aq", "--filter", f"label=perry.instance={system.instance}").split()
    seen = docker("inspect", *everything) + system.log() + (system.folder / "config.json").read_text()
    assert key not in seen and key.split("-")[3] not in seen

    system.perry("delete", "alpha", "--force")
    eventually(lambda: "alpha" not in theirs.nodes(), "the node is gone")
    assert "laptop" in theirs.nodes()

    eventually(lambda: "perry" in theirs.nodes(), "the gateway has come over too")
    assert "has left the tailnet" in system.perry("tailnet", "leave").stdout
    assert theirs.nodes() == ["laptop"]
    system.perry("config", "set", "tailnet.provider", "embedded")
    system.stop()
    system.start()
    eventually(lambda: gateway_at_home(system), "the gateway is back on the embedded tailnet, under its own name")


def gateway_at_home(system: System) -> bool:
    nodes = {node["name"]: node["online"] for node in system.call("tailnet.status")["nodes"]}
    return nodes == {"perry": True}
