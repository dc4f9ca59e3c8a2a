"""What reaches a workspace from a stock tailnet device, what a workspace reaches, and what is refused."""

import json
import subprocess

import pytest

from protocol.workspaces import Workspace
from tests.e2e.system import Device, System, docker, eventually
from tests.fakes.model_server.agents import AGENTS
from tests.fakes.model_server.inside import ModelInside

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(400)]

SERVER = "import http.server as h; h.ThreadingHTTPServer(('', 3000), h.SimpleHTTPRequestHandler).serve_forever()"
ECHO = (
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 3000))\n"
    "while True: d, a = s.recvfrom(99); s.sendto(d.upper(), a)"
)


def serve(system: System, name: str, program: str) -> None:
    docker("exec", "-d", "-u", "workspace", "-w", "/home/workspace", system.container(name), "python3", "-c", program)


def test_ssh_by_short_name_with_no_key(laptop: Device) -> None:
    code, output = laptop.ssh("workspace@alpha", "id -un; hostname")
    assert code == 0 and output.split() == ["workspace", "alpha"]


def test_scp_both_ways(laptop: Device) -> None:
    laptop.run("sh", "-c", "echo precious > /tmp/up")
    options = ("-q", "-o", "BatchMode=yes")
    laptop.run("scp", *options, "/tmp/up", "workspace@alpha:there")
    laptop.run("scp", *options, "workspace@alpha:there", "/tmp/down")
    assert laptop.run("cat", "/tmp/down")[1] == "precious\n"


def test_a_port_is_open_to_the_owner_by_tcp_and_udp(system: System, laptop: Device) -> None:
    serve(system, "alpha", SERVER)
    serve(system, "alpha", ECHO)
    eventually(
        lambda: laptop.run("curl", "-sf", "-m", "5", "http://alpha:3000/", check=False)[0] == 0, "http on port 3000"
    )
    _, output = laptop.run("sh", "-c", "echo hello | socat -t 3 - UDP4:alpha:3000")
    assert output.strip() == "HELLO"


def test_workspaces_reach_each_other_by_name_over_the_tailnet(system: System, laptop: Device, beta: Workspace) -> None:
    serve(system, "beta", SERVER)
    eventually(
        lambda: "200" in system.inside("alpha", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}",
                                       "-m", "5", "http://beta:3000/"),
        "alpha reaches beta",
    )  # fmt: skip
    assert system.inside("alpha", "getent", "ahostsv4", "beta").split()[0] in beta.tailnet.ips


def test_public_names_resolve_in_a_workspace(system: System) -> None:
    system.inside("alpha", "sudo", "apt-get", "update", "-o", "Acquire::Retries=2")


def test_ssh_between_workspaces_needs_a_key(system: System, beta: Workspace) -> None:
    options = ["-o", "BatchMode=yes", "-o", "UserKnownHostsFile=/tmp/known", "-o", "StrictHostKeyChecking=yes"]
    lines = "".join(f"beta {key}\n" for key in beta.ssh_host_keys)
    system.inside("alpha", "sh", "-c", f"printf %s '{lines}' > /tmp/known")

    def is_refused() -> bool:
        command = {"name": "alpha", "command": ["ssh", *options, "workspace@beta", "true"]}
        tried = system.call("workspaces.exec", command)
        return tried["exitCode"] == 255 and "Permission denied" in tried["stderr"]

    assert is_refused()
    system.inside("alpha", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/home/workspace/.ssh/id_ed25519")
    key = system.inside("alpha", "cat", "/home/workspace/.ssh/id_ed25519.pub").strip()
    system.perry("config", "set", "ssh.authorizedKeys", key)
    system.perry("sync", "beta")
    system.inside("alpha", "ssh", *options, "workspace@beta", "true")
    system.perry("config", "unset", "ssh.authorizedKeys")
    system.perry("sync", "beta")
    assert is_refused()


def test_docker_inside_and_a_published_port_of_a_nested_container(system: System, laptop: Device) -> None:
    eventually(
        lambda: system.call("workspaces.exec", {"name": "alpha", "command": ["docker", "info"]})["exitCode"] == 0,
        "dockerd inside",
        seconds=60,
    )
    # An image of what is here: no registry is needed for it.
    system.inside(
        "alpha",
        "sh",
        "-c",
        "tar -C / -chf - $(ldd /usr/bin/python3 | grep -o '/[^ ]*') usr/bin/python3 usr/lib/python3.13 2>/dev/null"
        " | docker import - nested:1",
    )
    system.inside(
        "alpha", "docker", "run", "-d", "--name", "nested", "-p", "5000:5000", "nested:1",
        "/usr/bin/python3", "-c", SERVER.replace("3000", "5000"),
    )  # fmt: skip
    eventually(
        lambda: laptop.run("curl", "-sf", "-m", "5", "-o", "/dev/null", "http://alpha:5000/", check=False)[0] == 0,
        "the nested container's port",
    )


def test_root_is_refused(laptop: Device, alpha: Workspace) -> None:
    code, output = laptop.ssh("root@alpha", "true", check=False)
    assert code == 255 and "Permission denied" in output


def test_a_tagged_device_is_refused(system: System, alpha: Workspace, beta: Workspace) -> None:
    command = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=accept-new", "workspace@alpha", "true"]
    result = system.call("workspaces.exec", {"name": "beta", "command": command})
    assert result["exitCode"] == 255 and "Permission denied" in result["stderr"]


def test_another_user_of_the_tailnet_is_refused(system: System, alpha: Workspace) -> None:
    headscale = ["exec", f"{system.instance}-coordinator", "headscale", "-c", "/var/lib/headscale/config.yaml"]
    user = json.loads(docker(*headscale, "users", "create", "mallory", "-o", "json"))["id"]
    key = json.loads(docker(*headscale, "preauthkeys", "create", "-u", str(user), "-e", "1h", "-o", "json"))["key"]
    device = system.device("mallory")
    device.join(key, system.call("tailnet.status")["controlUrl"])
    (address,) = [ip for ip in alpha.tailnet.ips if "." in ip]
    known = device.run("sh", "-c", "mkdir -p ~/.ssh && cat > ~/.ssh/known_hosts", stdin=b"")
    assert known[0] == 0
    options = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=5")
    assert device.run("ssh", *options, f"workspace@{address}", "true", check=False)[0] == 255
    ports = [f"http://{address}:{port}/" for port in (3000, 4096)]
    assert device.run("curl", "-Zs", "-m", "3", "-w", "%{http_code} ", *ports, check=False)[1] == "000 000 "


def test_keyless_by_the_published_port_is_refused(system: System, alpha: Workspace) -> None:
    ssh = f"ssh -p {alpha.ports.ssh} -o BatchMode=yes -o StrictHostKeyChecking=no workspace@127.0.0.1 true"
    output = docker(
        "run", "--rm", "--network", "host", "--entrypoint", "sh", "perry/device:latest", "-c", f"{ssh} 2>&1; echo $?"
    )
    assert "Permission denied (publickey" in output and output.endswith("255")


def test_no_secret_shows_where_it_must_not(system: System, alpha: Workspace) -> None:
    for part in ("", ".net", ".tailnet"):
        shown = docker("inspect", system.container("alpha", part)) + docker("logs", system.container("alpha", part))
        assert "hskey-" not in shown and (system.folder / "token").read_text().strip() not in shown
    assert "hskey-" not in system.log()
    keys = "find / -xdev -name auth-key -o -xdev -name tailscaled.state"
    assert docker("exec", system.container("alpha"), "sh", "-c", f"{keys} 2>/dev/null") == ""


def asks_opencode(*more: str) -> list[str]:
    """What prints the status, and the answer, of OpenCode's server behind alpha's door."""
    return ["curl", "-s", "-m", "10", "-w", "\n%{http_code}", *more, "http://alpha:4096/session"]


def test_the_door_to_opencode_knows_its_owner_and_asks_for_no_password(
    system: System, alpha: Workspace, laptop: Device
) -> None:
    """The server is OpenCode's own, which the worker keeps alive; the password is in no hand."""
    # It never answers what is asked in the moment in which it begins to listen.
    answers = asks_opencode("-m", "2")
    eventually(lambda: laptop.run(*answers, check=False)[1].endswith("\n200"), "OpenCode answers", seconds=40)
    said = laptop.run(*asks_opencode("-u", "opencode:guessed", "-D", "-"))[1]
    assert said.endswith("\n200") and "www-authenticate" not in said.lower()
    assert json.loads(laptop.run(*asks_opencode())[1].rpartition("\n")[0]) == []
    events = laptop.run("sh", "-c", "curl -sN -m 5 http://alpha:4096/event | head -n 1")[1]
    assert events.startswith("data: "), "what happens is told as it happens"
    for what, refused in {
        "another page": laptop.run(*asks_opencode("-H", "Origin: http://evil.example"))[1],
        "another name": laptop.run(*asks_opencode("-H", "Host: evil.example:4096"))[1],
        "another workspace": system.inside("beta", *asks_opencode()),
        "the workspace itself": system.inside(
            "alpha", *asks_opencode("--connect-to", f"::{alpha.tailnet.ips[0]}:4096")
        ),
    }.items():
        assert refused.endswith("\n403"), f"{what}: {refused}"
    file = system.inside("alpha", "stat", "-c", "%U %a", "/etc/perry/opencode-password")
    assert file == "workspace 400\n"
    without = system.inside(
        "alpha", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:4096/session"
    )
    assert without == "401"


def test_opencode_on_another_device_works_in_the_workspace(system: System, alpha: Workspace, laptop: Device) -> None:
    """What a person types there is done here; their device has no log-in, no project and no password."""
    folder = "/home/workspace/attached"
    model = ModelInside(system.container("alpha"))
    model.start()
    settings = AGENTS["opencode"](model.url).files[".config/opencode/opencode.json"]
    system.inside("alpha", "sh", "-c", 'mkdir -p "$1" && printf %s "$2" >"$1/opencode.json"', "sh", folder, settings)
    copy = 'docker cp "$1":/opt/opencode/bin/opencode - | docker cp - "$2":/usr/local/bin'
    subprocess.run(["sh", "-c", copy, "sh", system.container("alpha"), laptop.container], check=True, timeout=90)
    prompt = "[[run: hostname >made-here]] [[say: It is done there.]]"
    attached = ["opencode", "run", "--attach", "http://alpha:4096", "--dir", folder, prompt]
    # OpenCode 1.18 often ends before it has printed the last words, also where it speaks to its server directly.
    assert "hostname >made-here" in laptop.run("timeout", "80", *attached)[1]
    assert system.inside("alpha", "cat", f"{folder}/made-here") == "alpha\n"


def test_a_program_that_has_the_doors_port_keeps_it_and_that_is_said(system: System, laptop: Device) -> None:
    system.start_workspace("delta", docker=False)
    try:
        # The door and the worker have the port, or will have it in a moment; without them a program can be the first.
        delta, service = system.container("delta"), "/run/perry-services/worker"
        docker("exec", delta, "s6-svc", "-wD", "-d", service)
        docker("stop", "-t", "0", system.container("delta", ".tailnet"))
        serve(system, "delta", SERVER.replace("3000", "4096"))
        eventually(lambda: "0.0.0.0:4096" in docker("exec", delta, "ss", "-Htln"), "it listens")
        docker("exec", delta, "s6-svc", "-u", service)
        eventually(lambda: "port 4096" in str(system.workspace("delta").tailnet.error), "it is said", seconds=30)
        assert "have it listen on another port" in system.perry("list").stdout
        said = "leads to a program of its own, and not to Perry's OpenCode"
        eventually(lambda: said in system.perry("logs", "delta").stdout, "the worker says so too", seconds=30)
    finally:
        system.call("workspaces.delete", {"name": "delta", "force": True})
