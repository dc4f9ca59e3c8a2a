"""Who may log in: keys, and the tailnet's identity. Never a password, never root, never keyless by the bridge."""

import pytest

from tests.integration.images.conftest import (
    BRIDGE_SUBNET,
    SSH_OPTIONS,
    TAILNET_SUBNET,
    Client,
    Container,
    Lab,
    authorized,
)

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

WHOIS = """
import http.server, os, socketserver
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open("/tmp/asked", "a") as asked:
            asked.write(self.path + "\\n")
        self.send_response(int(open("/tmp/verdict").read()))
        self.end_headers()
    def address_string(self):
        return "peer"
    def log_message(self, *args):
        pass
class Server(socketserver.ThreadingUnixStreamServer):
    pass
server = Server("/run/perry/whois.sock", Answer)
os.chmod("/run/perry/whois.sock", 0o666)
server.serve_forever()
"""


@pytest.fixture(scope="module")
async def tailnet(lab: Lab) -> Client:
    return await lab.client("peer", await lab.network("tailnet", TAILNET_SUBNET))


@pytest.fixture(scope="module")
async def bridge(lab: Lab) -> Client:
    return await lab.client("neighbour", await lab.network("bridge", BRIDGE_SUBNET))


async def made(lab: Lab, client: Client, name: str) -> Container:
    state = await lab.engine.inspect(client.name)
    assert state is not None
    key = await client.out("cat /tmp/key.pub")
    kind = "tailnet" if client.name.endswith("peer") else "bridge"
    workspace = await lab.workspace(name, network=f"{lab.prefix}-{kind}", files=(authorized(key),))
    await client.until(f"ssh-keyscan -T 2 {workspace.name} 2>/dev/null | grep -q ed25519")
    # The sidecar's part: a socket that answers as the file says. Passwords are set that must never open anything.
    await workspace.put("/tmp/whois.py", WHOIS)
    await workspace.out("echo 200 >/tmp/verdict; setsid python3 /tmp/whois.py >/dev/null 2>&1 &")
    await workspace.until("test -S /run/perry/whois.sock")
    await workspace.out("printf 'workspace:secret\\nroot:secret\\n' | chpasswd")
    return workspace


@pytest.fixture(scope="module")
async def on_tailnet(lab: Lab, tailnet: Client) -> Container:
    return await made(lab, tailnet, "on-tailnet")


@pytest.fixture(scope="module")
async def on_bridge(lab: Lab, bridge: Client) -> Container:
    return await made(lab, bridge, "on-bridge")


async def with_password(client: Client, target: str) -> int:
    """Exit status of an ssh that answers every prompt with the right password."""
    await client.put("/tmp/askpass", "#!/bin/sh\necho secret\n", mode=0o755)
    done = await client.run(
        f"SSH_ASKPASS=/tmp/askpass SSH_ASKPASS_REQUIRE=force ssh {' '.join(SSH_OPTIONS)} -o PubkeyAuthentication=no "
        f"-o PreferredAuthentications=password,keyboard-interactive {target} true"
    )
    return done.exit_code


async def test_the_owners_device_needs_no_key(tailnet: Client, on_tailnet: Container) -> None:
    await on_tailnet.out("echo 200 >/tmp/verdict; rm -f /tmp/asked")
    done = await tailnet.ssh(f"workspace@{on_tailnet.name}", "whoami; echo $SSH_CONNECTION", key=False)
    user, connection = done.stdout.decode().splitlines()
    assert user == "workspace"
    source = connection.split()[0]
    assert source.startswith("100.127.213.")
    assert await on_tailnet.out("cat /tmp/asked") == f"/ssh?addr={source}&user=workspace"


async def test_sftp_and_scp_need_no_key_either(tailnet: Client, on_tailnet: Container) -> None:
    await on_tailnet.out("echo 200 >/tmp/verdict")
    await tailnet.out(
        f"echo carried >/tmp/parcel; scp -q -o BatchMode=yes {' '.join(SSH_OPTIONS)} -o IdentityFile=/dev/null "
        f"/tmp/parcel workspace@{on_tailnet.name}:parcel"
    )
    assert await on_tailnet.out("cat /home/workspace/parcel") == "carried"


@pytest.mark.parametrize("verdict", ["403", "500", "204", "302"])
async def test_anything_but_200_is_no(tailnet: Client, on_tailnet: Container, verdict: str) -> None:
    await on_tailnet.out(f"echo {verdict} >/tmp/verdict")
    assert (await tailnet.ssh(f"workspace@{on_tailnet.name}", "true", key=False)).exit_code == 255
    assert (await tailnet.ssh(f"workspace@{on_tailnet.name}", "true", key=True)).exit_code == 0


async def test_a_sidecar_that_is_away_or_silent_is_no(tailnet: Client, on_tailnet: Container) -> None:
    await on_tailnet.out("echo 200 >/tmp/verdict; mv /run/perry/whois.sock /run/perry/away")
    assert (await tailnet.ssh(f"workspace@{on_tailnet.name}", "true", key=False)).exit_code == 255
    await on_tailnet.out(
        "setsid socat UNIX-LISTEN:/run/perry/whois.sock,fork EXEC:'sleep 9' >/dev/null 2>&1 & sleep 0.3"
    )
    assert (await tailnet.ssh(f"workspace@{on_tailnet.name}", "true", key=False)).exit_code == 255
    await on_tailnet.out("pkill socat; rm -f /run/perry/whois.sock; mv /run/perry/away /run/perry/whois.sock")
    assert (await tailnet.ssh(f"workspace@{on_tailnet.name}", "true", key=False)).exit_code == 0


@pytest.mark.parametrize("user", ["root", "nobody", "daemon"])
async def test_others_are_refused_whatever_the_sidecar_says(tailnet: Client, on_tailnet: Container, user: str) -> None:
    await on_tailnet.out("echo 200 >/tmp/verdict")
    for key in (False, True):
        assert (await tailnet.ssh(f"{user}@{on_tailnet.name}", "true", key=key)).exit_code == 255


@pytest.mark.parametrize("user", ["workspace", "root"])
async def test_no_password_is_accepted_on_the_tailnet(tailnet: Client, on_tailnet: Container, user: str) -> None:
    await on_tailnet.out("echo 403 >/tmp/verdict")
    assert await with_password(tailnet, f"{user}@{on_tailnet.name}") == 255


async def test_a_typed_password_is_a_no_by_itself(on_tailnet: Container) -> None:
    """sshd passes it to the helper, where a peer that may in does not have to type."""
    await on_tailnet.out("echo 200 >/tmp/verdict")
    asked = "PAM_TYPE=auth PAM_SERVICE=sshd PAM_USER=workspace PAM_RHOST={} /usr/lib/perry/ssh-identity"
    assert (await on_tailnet.run(f"printf '' | {asked.format('100.64.0.9')}")).exit_code == 0
    assert (await on_tailnet.run(f"printf '\\0' | {asked.format('fd7a:115c:a1e0::9')}")).exit_code == 0
    assert (await on_tailnet.run(f"printf secret | {asked.format('100.64.0.9')}")).exit_code != 0
    assert (await on_tailnet.run(f"printf '' | {asked.format('10.0.0.9')}")).exit_code != 0


async def test_keyless_is_refused_by_the_bridge(bridge: Client, on_bridge: Container) -> None:
    assert (await bridge.ssh(f"workspace@{on_bridge.name}", "true", key=False)).exit_code == 255
    assert (await on_bridge.run("test -e /tmp/asked")).exit_code == 1
    assert (await bridge.ssh(f"workspace@{on_bridge.name}", "true", key=True)).exit_code == 0


@pytest.mark.parametrize("user", ["workspace", "root"])
async def test_no_password_is_accepted_by_the_bridge(bridge: Client, on_bridge: Container, user: str) -> None:
    offered = await bridge.run(
        f"ssh -o BatchMode=yes -o LogLevel=DEBUG1 {' '.join(SSH_OPTIONS)} -o PubkeyAuthentication=no "
        f"{user}@{on_bridge.name} true 2>&1 | grep 'can continue'"
    )
    assert offered.stdout.decode().strip().endswith("continue: publickey")
    assert await with_password(bridge, f"{user}@{on_bridge.name}") == 255


async def test_the_persons_own_keys_count(bridge: Client, on_bridge: Container) -> None:
    await bridge.out("rm -f /tmp/second*; ssh-keygen -q -t ed25519 -N '' -f /tmp/second")
    second = await bridge.out("cat /tmp/second.pub")
    assert (await bridge.ssh(f"workspace@{on_bridge.name}", "true", options="-i /tmp/second")).exit_code == 0
    only = "-o IdentitiesOnly=yes -i /tmp/second"
    assert (await bridge.ssh(f"workspace@{on_bridge.name}", "true", key=False, options=only)).exit_code == 255
    await on_bridge.out(f"mkdir -p -m 700 .ssh; echo '{second}' >.ssh/authorized_keys", user="workspace")
    assert (await bridge.ssh(f"workspace@{on_bridge.name}", "true", key=False, options=only)).exit_code == 0


async def test_failed_logins_do_not_lock_out_the_others_behind_the_same_address(
    bridge: Client, on_bridge: Container
) -> None:
    for _ in range(12):
        await bridge.ssh(f"workspace@{on_bridge.name}", "true", key=False)
        await bridge.run(f"timeout 2 ssh-keyscan {on_bridge.name} >/dev/null 2>&1")
    assert (await bridge.ssh(f"workspace@{on_bridge.name}", "true", key=True)).exit_code == 0
