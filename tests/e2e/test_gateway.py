"""The control plane on its own tailnet: who reaches it, as whom, and what happens when parts of it are away."""

import base64
import json
import subprocess
from collections.abc import Iterator

import pytest

from protocol.workspaces import Workspace
from tests.e2e.system import Device, System, answer, docker, eventually, rpc

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(300)]

OWNER = base64.urlsafe_b64encode(b'{"login":"owner","node":"laptop","nodeId":"1"}').decode().rstrip("=")
UPGRADE = ("-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
           "-H", "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==")  # fmt: skip
FORGERIES = [
    ("-H", f"Perry-Identity: {OWNER}"),
    ("-H", f"pERRY-iDENTITY: {OWNER}", "-H", f"Perry-Identity: {OWNER}"),
    ("-H", f"Perry_Identity: {OWNER}"),
    ("-H", f"Perry-Identity: {OWNER}", "-H", "Connection: close, Perry-Identity"),
    ("-H", "Connection: Perry-Identity"),
    ("-H", "Tailscale-User-Login: owner", "-H", "X-Forwarded-For: 127.0.0.1", "-H", "Authorization: Bearer x"),
]


@pytest.fixture(scope="module")
def phone(system: System, alpha: Workspace) -> Device:
    """A device of the owner that has joined, and has the CLI; nothing is set up on it."""
    device = system.device("phone")
    device.join_as_owner()
    device.install_perry()
    eventually(lambda: device.run("curl", "-sf", "-m", "5", "http://perry/health", check=False)[0] == 0, "http://perry")
    return device


@pytest.fixture(scope="module")
def strangers(system: System, phone: Device) -> Iterator[list[tuple[Device, str]]]:
    """Devices that are no owner's, with what each is recognised as."""
    headscale = ["exec", f"{system.instance}-coordinator", "headscale", "-c", "/var/lib/headscale/config.yaml"]
    url = system.call("tailnet.status")["controlUrl"]
    user = json.loads(docker(*headscale, "users", "create", "mallory", "-o", "json"))["id"]
    found = []
    for name, options, known_as in (
        ("mallory", ("-u", str(user)), "mallory, on mallory"),
        ("ci", ("--tags", "tag:ci"), "the tagged device ci (tag:ci)"),
    ):
        key = json.loads(docker(*headscale, "preauthkeys", "create", *options, "-e", "1h", "-o", "json"))["key"]
        device = system.device(name)
        device.join(key, url)
        device.install_perry()
        found.append((device, known_as))
    yield found


def test_an_owners_device_reaches_the_api_by_name(phone: Device, alpha: Workspace) -> None:
    for base in ("http://perry", "http://perry:7391", "http://perry.perry.internal"):
        status, found = phone.rpc("workspaces.list", base=base)
        assert status == 200 and [each["name"] for each in found] == ["alpha"], base
    status, who = phone.rpc("auth.whoami")
    assert status == 200
    assert (who["kind"], who["login"], who["node"]) == ("owner", "owner", "phone.perry.internal")


def test_a_foreign_page_is_refused_there_too(phone: Device) -> None:
    for headers in (
        ("-H", "Host: evil.example"),
        ("-H", "Origin: http://evil.example"),
        ("-H", "Sec-Fetch-Site: cross-site"),
    ):
        assert phone.rpc("workspaces.list", *headers)[0] == 403, headers
    assert phone.rpc("workspaces.list", "-H", "Origin: http://perry", "-H", "Sec-Fetch-Site: same-origin")[0] == 200


@pytest.mark.parametrize("forged", FORGERIES)
def test_a_forged_header_changes_nothing(
    phone: Device, strangers: list[tuple[Device, str]], forged: tuple[str, ...]
) -> None:
    status, who = phone.rpc("auth.whoami", *forged)
    assert (status, who.get("node")) == (200, "phone.perry.internal"), who
    mallory, known_as = strangers[0]
    status, said = mallory.rpc("workspaces.list", *forged)
    assert status == 403 and known_as in said["message"], said


def test_the_socket_and_the_port_believe_no_header(system: System) -> None:
    """Whoever reaches the port may write what they like; whoever reaches the socket could read the token as well."""
    forged = ("-H", f"Perry-Identity: {OWNER}")
    assert answer(curl(*rpc("workspaces.list", *forged, base=system.url)))[0] == 401
    socket = ("--unix-socket", str(system.folder / "run" / "control.sock"))
    assert answer(curl(*rpc("workspaces.list", *socket, base="http://localhost")))[0] == 401
    doubled = (*socket, *forged, "-H", f"perry-identity: {OWNER}")
    assert answer(curl(*rpc("workspaces.list", *doubled, base="http://localhost")))[0] == 401
    assert (system.folder / "run").stat().st_mode & 0o777 == 0o700


def curl(*command: str) -> str:
    """Run on this machine."""
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def test_the_cli_finds_the_agent_and_is_told_of_it(phone: Device) -> None:
    assert "alpha" in phone.run("perry", "list")[1], "nothing is set up"
    assert "phone.perry.internal" in phone.run("perry", "auth", "whoami")[1]
    phone.run("perry", "config", "worker", "perry")
    assert phone.run("cat", "/root/.config/perry/client.json")[1].split() == ["{", '"worker":', '"perry"', "}"]
    assert "alpha" in phone.run("perry", "list")[1]
    assert "http://perry:7391" in phone.run("perry", "config", "worker")[1]


def test_a_workspace_is_started_and_deleted_from_there(system: System, phone: Device) -> None:
    """`perry start` follows the events over a WebSocket through the gateway."""
    _, output = phone.run("perry", "start", "gamma", "--no-docker")
    assert "gamma" in output
    assert system.workspace("gamma").tailnet.ips
    assert phone.run("perry", "exec", "gamma", "--", "hostname")[1].strip() == "gamma"
    phone.run("perry", "delete", "gamma", "--force")
    assert "gamma" not in phone.run("perry", "list")[1]


def test_others_are_refused_everywhere_in_a_sentence(strangers: list[tuple[Device, str]]) -> None:
    for device, known_as in strangers:
        for procedure in (
            "workspaces.list",
            "workspaces.start",
            "workspaces.exec",
            "config.get",
            "tailnet.join",
            "agent.kill",
        ):
            status, said = device.rpc(procedure)
            assert status == 403 and known_as in said["message"], (procedure, said)
        for path in ("/ready", "/metrics", "/schema"):
            assert device.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://perry{path}")[1] == "403"
        put = ("curl", "-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-T", "/etc/hostname")
        assert device.run(*put, "http://perry/uploads/abcdefgh12345678")[1] == "403"
        _, upgraded = device.run("curl", "-sS", "-i", "-m", "5", *UPGRADE, "http://perry/events", check=False)
        assert '"workspaces"' not in upgraded and "snapshot" not in upgraded, upgraded
        code, output = device.run("perry", "list", check=False)
        assert code == 6 and known_as in output
        code, output = device.run("perry", "start", "delta", check=False)
        assert code == 6 and known_as in output
    mallory, ci = strangers[0][0], strangers[1][0]
    assert mallory.rpc("auth.whoami")[0] == 403
    status, who = ci.rpc("auth.whoami")
    assert (status, who["kind"], who["tags"], who["may"]) == (200, "node", ["tag:ci"], ["health", "wake", "whoami"])
    code, output = mallory.run("perry", "config", "worker", "perry", check=False)
    assert code == 6 and "who is no owner here" in output


def test_a_workspace_is_known_by_its_node(system: System, alpha: Workspace) -> None:
    def ask(procedure: str, *more: str, base: str = "http://perry") -> tuple[int, dict[str, object]]:
        return answer(system.inside("alpha", *rpc(procedure, *more, base=base)))

    status, who = ask("auth.whoami")
    assert status == 200
    assert (who["kind"], who["workspace"], who["may"]) == ("workspace", "alpha", ["health", "wake", "whoami"])
    for forged in ((), *FORGERIES):
        status, said = ask("workspaces.list", *forged)
        assert status == 403 and "recognised as the workspace alpha" in str(said["message"]), forged
    wake = ["curl", "-sS", "-m", "20", "-w", "\n%{http_code}", "-d", '{"text":"Done: x"}']
    for base in ("http://perry:18789", "http://perry"):
        body, _, status_line = system.inside("alpha", *wake, f"{base}/hooks/wake").rpartition("\n")
        assert status_line == "503" and "hooks.gateways" in json.loads(body)["error"]
    assert ask("auth.whoami", base="http://perry:18789")[0] == 404, "that port is for wakes alone"


def test_a_wake_comes_out_of_a_workspace(system: System, alpha: Workspace) -> None:
    """By its own door with any token or none, and by `perry wake`: marked as the workspace's, and kept."""
    body = json.dumps({"text": "Done: it's $(done) ✅\x1b[31m", "mode": "next-heartbeat"})
    curl = ("curl", "-sS", "-m", "20", "-X", "POST", "-H", "Authorization: Bearer whatever", "-d", body)
    by_curl = json.loads(system.inside("alpha", *curl, "http://127.0.0.1:18789/hooks/wake"))
    assert by_curl == {"ok": True, "mode": "next-heartbeat", "id": by_curl["id"]}
    by_perry = system.inside("alpha", "perry", "wake", "second").strip()

    def kept() -> list[dict[str, object]]:
        found: list[dict[str, object]] = system.call("wakes.list", {"workspace": "alpha"})["items"]
        return [wake for wake in found if wake["id"] in (by_curl["id"], by_perry)]

    eventually(lambda: len(kept()) == 2, "the control plane has both")
    assert [(wake["id"], wake["text"]) for wake in kept()] == [
        (by_perry, "It says: “second”"),
        (by_curl["id"], "It says: “Done: it's $(done) ✅[31m”"),
    ]
    shown = system.call("wakes.show", {"id": by_perry})
    assert shown["text"] == f"[Perry {by_perry}, from workspace alpha] It says: “second”"
    spool = "/home/workspace/.local/state/perry/wakes"
    eventually(lambda: not system.inside("alpha", "ls", spool).split(), "the spool has forgotten them")


def test_no_secret_of_the_gateway_shows(system: System, phone: Device) -> None:
    name = f"{system.instance}-gateway"
    shown = docker("inspect", name) + docker("logs", name)
    assert "hskey-" not in shown and (system.folder / "token").read_text().strip() not in shown
    assert docker("exec", name, "ls", "/var/lib/perry").split() == ["enrolled", "lock", "node"], "the key is gone"
    config = json.loads(docker("inspect", name))[0]["HostConfig"]
    assert config["ReadonlyRootfs"] and config["CapAdd"] == ["DAC_OVERRIDE"] and config["Memory"] == 384 << 20


def test_the_control_plane_goes_away_and_comes_back(system: System, phone: Device) -> None:
    system.stop()
    status, said = phone.rpc("workspaces.list")
    assert status == 502 and "`perry agent run`" in said["message"]
    code, output = phone.run("perry", "list", check=False)
    assert code == 1 and "the control plane behind it does not answer" in output
    system.start()
    assert phone.rpc("workspaces.list")[0] == 200, "at once: the owners are known before the first request"


def test_the_gateway_comes_back_by_itself(system: System, phone: Device) -> None:
    name = f"{system.instance}-gateway"

    def address() -> str:
        return phone.run("tailscale", "ip", "-4", "perry", check=False)[1].strip()

    def answers() -> bool:
        return phone.run("curl", "-sf", "-m", "3", "-o", "/dev/null", "http://perry/health", check=False)[0] == 0

    before = address()
    docker("restart", "-t", "3", name)
    eventually(answers, "after a restart", seconds=15)
    docker("rm", "-f", name)
    eventually(answers, "after its container was removed", seconds=20)
    assert address() == before
    docker("rm", "-f", name)
    docker("volume", "rm", name)
    eventually(lambda: answers() and address() != before, "after its volume was removed", seconds=40)
    status = system.call("tailnet.status")
    assert status["gateway"]["online"] and status["gateway"]["name"] == "perry" and "error" not in status["gateway"]
    assert [node["name"] for node in status["nodes"] if node["tags"] == ["tag:perry-gateway"]] == ["perry"]
