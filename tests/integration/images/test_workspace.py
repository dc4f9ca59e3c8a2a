"""The workspace image in the plain default profile: tools, supervisor, home, certificates."""

import re
from pathlib import Path

import anyio
import pytest

from controlplane.images.plan import versions
from controlplane.ports import File
from controlplane.workspaces.greeting import Greeting, host_key
from tests.integration.images.conftest import BRIDGE_SUBNET, CHECKOUT, Client, Container, Lab, authorized

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

TOOLS = (
    "opencode claude codex node npm npx bun bunx go gofmt python python3 pip uv uvx git gh curl jq rg tmux gcc make "
    "docker ssh sudo crontab"
)
LOOK = f"for tool in {TOOLS}; do command -v $tool >/dev/null || echo missing $tool; done; echo CA=$NODE_EXTRA_CA_CERTS"
FOUND = "CA=/etc/ssl/certs/ca-certificates.crt"


@pytest.fixture(scope="module")
async def network(lab: Lab) -> str:
    return await lab.network("plain", BRIDGE_SUBNET)


@pytest.fixture(scope="module")
async def client(lab: Lab, network: str) -> Client:
    return await lab.client("client", network)


@pytest.fixture(scope="module")
async def alpha(lab: Lab, network: str, client: Client) -> Container:
    key = await client.out("cat /tmp/key.pub")
    workspace = await lab.workspace("alpha", network=network, files=(authorized(key),))
    await client.until(f"ssh-keyscan -T 2 {workspace.name} 2>/dev/null | grep -q ed25519")
    return workspace


async def said(client: Client, workspace: Container, command: str) -> str:
    done = await client.ssh(f"workspace@{workspace.name}", command)
    assert done.exit_code == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param("sh -c '{}'", id="non-login"),
        pytest.param("bash -lc '{}'", id="login"),
        pytest.param("bash -ic '{}' 2>/dev/null", id="interactive"),
        pytest.param("sudo sh -c '{}'", id="sudo"),
        pytest.param("sudo -i sh -c '{}'", id="sudo-login"),
        pytest.param("tmux new-session -d \"sh -c '{}' >/tmp/tmux.out\"; sleep 1; cat /tmp/tmux.out", id="tmux"),
    ],
)
async def test_ssh_finds_every_tool(client: Client, alpha: Container, wrapped: str) -> None:
    look = LOOK.replace("$", r"\$") if '"' in wrapped else LOOK
    assert await said(client, alpha, wrapped.format(look)) == FOUND


@pytest.mark.parametrize("user", ["workspace", "root"])
async def test_docker_exec_finds_every_tool(alpha: Container, user: str) -> None:
    assert await alpha.out(LOOK, user=user) == FOUND


async def test_cron_finds_every_tool(alpha: Container) -> None:
    await alpha.put("/tmp/look", LOOK)
    await alpha.out(
        "echo '* * * * * sh /tmp/look >/tmp/cron.new 2>&1; mv /tmp/cron.new /tmp/cron.out' | crontab -",
        user="workspace",
    )
    assert await alpha.until("cat /tmp/cron.out", seconds=90) == FOUND
    await alpha.out("crontab -r", user="workspace")


async def test_versions_are_the_pinned_ones(client: Client, alpha: Container) -> None:
    pinned = versions((CHECKOUT / "images/workspace/versions.env").read_text())
    told = await said(
        client, alpha,
        "node --version; go version; for tool in uv bun gh opencode claude codex; do $tool --version | head -1; done",
    )  # fmt: skip
    for name, line in zip(
        ("NODE", "GO", "UV", "BUN", "GH", "OPENCODE", "CLAUDE", "CODEX"), told.splitlines(), strict=True
    ):
        assert pinned[f"{name}_VERSION"] in line


async def test_global_npm_packages_go_to_the_home_volume(alpha: Container) -> None:
    assert await alpha.out("npm prefix --global", user="workspace") == "/home/workspace/.local"
    assert Path(await alpha.out("readlink -f $(npm prefix --global)")) == Path("/usr/local")


async def test_pid_1_reaps_orphans(alpha: Container) -> None:
    await alpha.out("for i in 1 2 3 4 5; do setsid sh -c 'sleep 0.1 & exit 0' & done; sleep 1")
    zombies = await alpha.out("ps -eo stat=,ppid= | awk '$1 ~ /^Z/ {n++} END {print n+0}'")
    assert zombies == "0"


@pytest.mark.parametrize(("service", "pattern"), [("sshd", "sshd: /usr/sbin/sshd"), ("cron", "crond -n")])
async def test_a_killed_service_comes_back(client: Client, alpha: Container, service: str, pattern: str) -> None:
    before = await alpha.out(f"pgrep -o -f '{pattern}'")
    await alpha.out(f"kill -9 {before}")
    after = await alpha.until(f"pid=$(pgrep -o -f '{pattern}') && [ $pid != {before} ] && echo $pid")
    assert after != before
    await client.until(f"ssh-keyscan -T 2 {alpha.name} 2>/dev/null | grep -q ed25519")


async def test_the_plain_profile_has_no_capability_to_speak_of_and_no_docker(alpha: Container) -> None:
    assert await alpha.out("ls /run/perry-services") == "cron\nsshd\nworker"
    bounding = int(re.search(r"CapBnd:\s+(\w+)", await alpha.out("cat /proc/1/status")).group(1), 16)  # type: ignore[union-attr]
    sys_admin, net_admin = 21, 12
    assert not bounding >> sys_admin & 1
    assert not bounding >> net_admin & 1


async def test_the_home_is_filled_once_and_belongs_to_its_user(lab: Lab, network: str, alpha: Container) -> None:
    assert await alpha.out("stat -c %U:%a /home/workspace/.bashrc /home/workspace") == "workspace:644\nworkspace:755"
    assert await alpha.out("stat -c %U:%a /home/workspace/.perry/sshd") == "root:700"
    await alpha.out("echo mine >.bashrc; rm .profile", user="workspace")
    await lab.engine.stop(alpha.name)
    await lab.engine.start(alpha.name)
    assert await alpha.until("cat /home/workspace/.bashrc") == "mine"
    assert (await alpha.run("test -e /home/workspace/.profile")).exit_code == 1


async def test_the_host_key_belongs_to_the_home_volume(lab: Lab, network: str, client: Client) -> None:
    home = await lab.volume("kept-home")

    async def key_of(name: str, home: str | None) -> str:
        workspace = await lab.workspace(name, network=network, home=home)
        shown = await client.until(f"ssh-keyscan -T 2 -t ed25519 {workspace.name} 2>/dev/null | grep -o 'ssh-ed.*'")
        await lab.engine.remove_container(workspace.name)
        return shown

    first = await key_of("kept", home)
    assert await key_of("kept-again", home) == first
    assert await key_of("other", None) != first


async def test_each_boot_says_the_host_key(lab: Lab, network: str) -> None:
    workspace = await lab.workspace("greets", network=network)
    public = host_key(await workspace.until("cat /home/workspace/.perry/sshd/ssh_host_ed25519_key.pub"))
    for _ in range(2):
        greeting = Greeting()
        with anyio.fail_after(20):
            await greeting.hear(workspace.engine, workspace.name)
        assert greeting.host_key == public is not None
        await workspace.engine.stop(workspace.name)
        await workspace.engine.start(workspace.name)


async def test_a_half_made_host_key_is_made_again(lab: Lab, network: str, client: Client) -> None:
    home = await lab.volume("half-home")
    maker = await lab.workspace("half", network=network, home=home)
    key = "/home/workspace/.perry/sshd/ssh_host_ed25519_key"
    await maker.until(f"test -s {key}")
    await maker.out(f": >{key}; : >/home/workspace/.perry/sshd/.new")
    await lab.engine.stop(maker.name)
    await lab.engine.start(maker.name)
    await client.until(f"ssh-keyscan -T 2 {maker.name} 2>/dev/null | grep -q ed25519")


async def test_a_certificate_added_later_is_trusted_by_all(lab: Lab, network: str, client: Client) -> None:
    await client.out(
        "cd /tmp; openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=later "
        "-addext subjectAltName=DNS:localhost -keyout later.key -out later.crt 2>/dev/null"
    )
    pem, private = await client.out("cat /tmp/later.crt"), await client.out("cat /tmp/later.key")
    added = File(path="/usr/local/share/ca-certificates/later.crt", content=pem.encode() + b"\n")
    workspace = await lab.workspace("trusting", network=network, files=(added,))
    await workspace.put("/tmp/key.pem", private)
    serve = (
        "openssl s_server -quiet -www -accept 8443 -cert /usr/local/share/ca-certificates/later.crt -key /tmp/key.pem"
    )
    await workspace.out(f"setsid {serve} >/dev/null 2>&1 & sleep 0.5")
    # At once, while update-ca-certificates may still be at work.
    asks = {
        "curl": "curl --silent --fail --output /dev/null https://localhost:8443/",
        "node": "node -e \"fetch('https://localhost:8443/').then(() => process.exit(0), () => process.exit(1))\"",
        "python": "python3 -c \"import urllib.request as r; r.urlopen('https://localhost:8443/')\"",
        "git": "git ls-remote https://localhost:8443/x 2>&1 | grep -v -i certificate >/dev/null",
    }
    for ask in asks.values():
        await workspace.out(ask, user="workspace")
    # And for good: OpenSSL's folder of hashes has it as well.
    await workspace.until("ls -l /etc/ssl/certs | grep -q later")
    await lab.engine.stop(workspace.name)
    await lab.engine.start(workspace.name)
    await workspace.until("grep -q later.crt /var/lib/perry/certificates.sha256")


async def test_stopping_is_quick_and_graceful(lab: Lab, network: str) -> None:
    workspace = await lab.workspace("stopping", network=network)
    await workspace.until("pgrep crond")
    await workspace.put(
        "/tmp/agent", "trap 'echo ended >/home/workspace/ended; exit' TERM\nwhile :; do sleep 0.1; done\n"
    )
    await workspace.out("setsid sh /tmp/agent >/dev/null 2>&1 & sleep 0.3", user="workspace")
    began = anyio.current_time()
    await lab.engine.stop(workspace.name, seconds=10)
    assert anyio.current_time() - began < 3
    state = await lab.engine.inspect(workspace.name)
    assert state is not None
    assert state.exit_code == 0
    await lab.engine.start(workspace.name)
    assert await workspace.until("cat /home/workspace/ended") == "ended"


async def test_git_refuses_programs_as_transports(alpha: Container) -> None:
    refused = await alpha.run("git clone 'ext::sh -c touch% /tmp/owned' /tmp/x", user="workspace")
    assert refused.exit_code != 0
    assert b"not allowed" in refused.stderr
    assert (await alpha.run("test -e /tmp/owned")).exit_code == 1


async def test_the_large_git_hosts_are_known(alpha: Container) -> None:
    for host in ("github.com", "gitlab.com", "bitbucket.org", "codeberg.org"):
        shown = await alpha.out(f"ssh-keygen -l -F {host} -f /etc/ssh/ssh_known_hosts")
        assert len(re.findall(r"SHA256:", shown)) == 3
