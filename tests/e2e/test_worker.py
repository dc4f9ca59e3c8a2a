"""The worker in real workspaces: there from the start, reached by nobody else, and not to be got rid of."""

import json
import shlex
from collections.abc import Iterator

import httpx
import pytest

from protocol.workspaces import WorkerState, Workspace, WorkspaceWorker
from tests.e2e.system import Device, System, docker, eventually

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(400)]

SESSION = '{"type":"user","uuid":"u","sessionId":"s","timestamp":"2026-01-01T00:00:00Z","cwd":"/","message":%s}'


def worker(system: System, name: str = "alpha") -> WorkspaceWorker:
    found = system.workspace(name).worker
    assert found is not None
    return found


def connected(system: System, name: str = "alpha") -> WorkspaceWorker:
    def look() -> WorkspaceWorker | None:
        found = system.workspace(name).worker
        return found if found and found.state is WorkerState.CONNECTED else None

    found: WorkspaceWorker = eventually(look, f"the worker of {name} is heard")
    return found


def shipped() -> str:
    return docker("inspect", "-f", '{{index .Config.Labels "perry.worker"}}', "perry/worker:latest")


def process(system: System, name: str = "alpha") -> str:
    return docker("exec", system.container(name), "pgrep", "-o", "perry-worker", check=False)


def test_it_is_there_from_the_start_as_the_persons_own_user(system: System, alpha: Workspace, beta: Workspace) -> None:
    for name in ("alpha", "beta"):
        assert connected(system, name).version == shipped()
        assert system.workspace(name).startup is not None
        said = docker("exec", system.container(name), "ps", "-o", "user:20=", "-p", process(system, name))
        assert said == "workspace"
        assert "watching" in system.inside(name, "perry", "worker", "status", "--json")
    steps = {step.id: step.status for step in (alpha.startup.steps if alpha.startup else [])}
    assert steps["worker"] == "done"


def test_its_secret_is_a_file_of_its_user_and_nowhere_else(system: System, alpha: Workspace) -> None:
    container = system.container("alpha")
    secret = docker("exec", container, "cat", "/etc/perry/worker-secret")
    assert len(secret) == 43
    assert docker("exec", container, "stat", "-c", "%a %U", "/etc/perry/worker-secret") == "400 workspace"
    everything = docker("inspect", container) + docker("logs", container) + system.log()
    everything += docker("exec", container, "sh", "-c", "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline")
    everything += json.dumps(system.call("workspaces.list")) + docker("image", "inspect", "perry/worker:latest")
    assert secret not in everything
    assert secret != docker("exec", system.container("beta"), "cat", "/etc/perry/worker-secret", check=False)


def test_nobody_reaches_it_but_who_has_the_secret_on_this_machine(
    system: System, alpha: Workspace, beta: Workspace, laptop: Device
) -> None:
    container = system.container("alpha", ".net")
    bridge = docker("inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", container)
    for address in ("alpha", alpha.tailnet.ips[0]):
        reached = laptop.run("curl", "-sS", "-m", "2", f"http://{address}:7392/v1/stream", check=False)
        assert reached[0] in (7, 28), reached
        # Not because nothing is reached: ssh is.
        assert laptop.ssh("workspace@alpha", "true")[0] == 0
    for address in (bridge, alpha.tailnet.ips[0]):
        knock = shlex.join(["curl", "-sS", "-m", "2", f"http://{address}:7392/v1/stream"])
        assert system.inside("beta", "sh", "-c", f"{knock} >/dev/null 2>&1; echo $?").strip() in ("7", "28")
    stream = f"http://{bridge}:7392/v1/stream"
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    others = docker("exec", system.container("beta"), "cat", "/etc/perry/worker-secret")
    for wrong in ({}, {"Authorization": "Bearer x"}, {"Authorization": f"Bearer {others}"}):
        assert httpx.get(stream, headers={**upgrade, **wrong}, timeout=10).status_code == 401
    own = docker("exec", system.container("alpha"), "cat", "/etc/perry/worker-secret")
    with httpx.stream("GET", stream, headers={**upgrade, "Authorization": f"Bearer {own}"}, timeout=10) as answer:
        assert answer.status_code == 101


@pytest.mark.parametrize("how", ["the worker is killed", "Docker restarts the workspace"])
def test_it_comes_back_with_all_that_it_knew(system: System, alpha: Workspace, how: str) -> None:
    file = "~/.claude/projects/-x/11111111-2222-4333-8444-555555555555.jsonl"
    line = SESSION % '{"role":"user","content":"remember me"}'
    system.inside("alpha", "sh", "-c", f"mkdir -p ~/.claude/projects/-x && echo {shlex.quote(line)} > {file}")
    connected(system)
    before = process(system)
    if how == "the worker is killed":
        docker("exec", system.container("alpha"), "kill", "-9", before)
    else:
        docker("restart", "-t", "2", system.container("alpha"))
    eventually(lambda: process(system) not in ("", before) or how.startswith("Docker"), "another process")
    connected(system)
    eventually(lambda: "11111111" in system.inside("alpha", "perry", "worker", "sessions", "list"), "the session")


def test_one_of_another_version_goes_on_until_sync_renews_it(system: System, alpha: Workspace) -> None:
    old = (
        "cd /opt/perry/worker && cp -a current/. other && chmod -R u+w other && "
        "echo other | tee other/lib/python3*/worker/VERSION && sh other/install"
    )
    docker("exec", system.container("alpha"), "sh", "-c", old)
    eventually(lambda: connected(system).version == "other", "the other version")
    assert worker(system).outdated
    assert "other" in system.inside("alpha", "perry", "worker", "status")
    assert "`perry sync alpha` brings that" in " ".join(system.perry("list").stdout.split())
    # It runs on over a restart of the control plane, which then knows as much.
    renewed = system.perry("sync", "alpha").stdout
    assert f"the worker, version {shipped()}" in renewed
    assert connected(system).version == shipped() and not worker(system).outdated
    assert "worker" not in system.perry("sync", "alpha").stdout


def test_it_is_known_by_its_place_on_the_tailnet(system: System, alpha: Workspace) -> None:
    who = json.loads(system.inside("alpha", "perry", "auth", "whoami", "--json"))
    assert (who["kind"], who["workspace"]) == ("workspace", "alpha")


@pytest.fixture
def bare(system: System) -> Iterator[str]:
    """A person's own image on top of a workspace-base from before there were workers."""
    tag = f"{system.instance}-bare:1"
    recipe = (
        "FROM perry/workspace-base:latest\n"
        'LABEL perry.worker=""\n'
        "RUN rm -rf /opt/perry /usr/local/bin/perry /usr/lib/perry/services/worker\n"
    )
    docker("build", "-t", tag, "-", stdin=recipe.encode())
    yield tag
    docker("rm", "-f", system.container("gamma"), check=False)
    docker("rmi", tag, check=False)


def test_an_image_without_one_is_brought_one(system: System, bare: str) -> None:
    workspace = system.start_workspace("gamma", image=bare, docker=False)
    assert workspace.worker is not None and workspace.worker.version == shipped()
    docker("restart", "-t", "2", system.container("gamma"))
    assert connected(system, "gamma").version == shipped()
    assert system.inside("gamma", "perry", "--version").strip() == f"perry worker {shipped()}"
    system.call("workspaces.delete", {"name": "gamma", "force": True})
