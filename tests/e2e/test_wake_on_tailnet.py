"""From a dispatch on a laptop to an assistant that is woken, both on a tailnet that the agent's machine is not on."""

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from protocol.tasks import Task, TaskState
from protocol.wake import WAKE_PORT, ShownWake, Wakes, WakeState, WakeWay
from tests.e2e.assistant import NAME, TOKEN, Assistant
from tests.e2e.stand_ins import bridge
from tests.e2e.system import Device, System, docker, eventually, running
from tests.fakes.model_server.inside import ModelInside, log_ins
from tests.fakes.model_server.server import ModelServer

pytestmark = [pytest.mark.tailnet, pytest.mark.timeout(300)]

GATE = "until [ -e /home/workspace/go ]; do sleep 0.1; done"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("agent")
    token = folder / "hooks-token"
    token.write_text(TOKEN)
    token.chmod(0o600)
    known = {"name": "home", "url": Assistant.url, "tokenFile": str(token), "kind": "openclaw"}
    settings = {
        "PERRY_HOOKS_GATEWAYS": json.dumps([known]),
        "PERRY_CREDENTIALS_ENV": json.dumps(log_ins("claude")),
    }
    yield from running(folder, environment=settings)


@pytest.fixture(scope="module")
def assistant(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Assistant]:
    with ModelServer(host=bridge()) as model:
        made = Assistant(system, tmp_path_factory.mktemp("assistant") / "home", model)
        with ThreadPoolExecutor() as pool:
            # Beside each other, since each waits for the most part.
            workspace = pool.submit(system.start_workspace, "alpha", docker=False)
            made.join()
            made.begin()
            workspace.result()
            ModelInside(system.container("alpha")).start("claude")
        made.listens()
        yield made


@pytest.fixture(scope="module")
def laptop(system: System, assistant: Assistant) -> Device:
    device = system.device("laptop")
    device.join_as_owner()
    device.install_perry()
    return device


@pytest.fixture(scope="module")
def elsewhere(system: System, assistant: Assistant) -> Iterator[socket.socket]:
    """A question for another port of that device, which is open and which the list has. Its answer takes a while."""
    assistant.device.run("sh", "-c", "socat TCP-LISTEN:22,fork,reuseaddr OPEN:/dev/null </dev/null >/dev/null 2>&1 &")
    places = system.folder / "run" / "places.json"
    assert json.loads(places.read_text()) == [f"{NAME}:{WAKE_PORT}"]
    places.write_text(json.dumps([f"{NAME}:{WAKE_PORT}", f"{NAME}:22"]))
    with asked(system, f"{NAME}:22") as question:
        yield question


def dispatched(laptop: Device, text: str) -> tuple[Task, str]:
    """The task, and the id of the wake that its success will be."""
    said = laptop.run("perry", "dispatch", "alpha", text, "--agent", "claude", "--json")[1]
    task = msgspec.json.decode(said, type=Task)
    return task, f"{task.id}-{TaskState.SUCCEEDED}"


def test_the_assistant_is_woken_with_the_result(laptop: Device, assistant: Assistant, elsewhere: socket.socket) -> None:
    task, wake = dispatched(laptop, "[[run: echo it is in >result]] [[say: Issue 78 is fixed.]]")
    (told,) = eventually(lambda: assistant.told(wake), "the assistant's model is told", seconds=40)
    assert f"from workspace alpha, task {task.id}]" in told and "Issue 78 is fixed." in told
    said = laptop.run("perry", "wakes", "show", wake, "--json")[1]
    (attempt,) = msgspec.json.decode(said, type=ShownWake).attempts
    assert (attempt.status, attempt.way) == (200, WakeWay.TAILNET)


def test_a_control_plane_that_is_killed_in_mid_task(laptop: Device, assistant: Assistant, system: System) -> None:
    task, wake = dispatched(laptop, f"[[run: {GATE}]] [[say: I have gone.]]")
    eventually(lambda: system.call("tasks.get", {"id": task.id})["state"] == TaskState.RUNNING, "it runs")
    system.stop(signal.SIGKILL)
    docker("exec", "-u", "workspace", system.container("alpha"), "touch", "/home/workspace/go")
    system.start()
    (told,) = eventually(lambda: assistant.told(wake), "the assistant's model is told", seconds=40)
    assert "I have gone." in told


def test_the_list_and_the_assistants_own_record_agree(laptop: Device, assistant: Assistant) -> None:
    assert "was woken by Perry's node on the tailnet" in laptop.run("perry", "wakes", "test")[1]
    found = msgspec.json.decode(laptop.run("perry", "wakes", "list", "--json")[1], type=Wakes)
    assert [each.problem for each in found.gateways] == [None]
    assert {each.state for each in found.items} == {WakeState.DELIVERED} and len(found.items) >= 3
    eventually(lambda: len(assistant.record()) == len(found.items), "it was told all of them")
    assert assistant.record() == {each.id: 1 for each in found.items}


def test_nothing_else_is_reached_by_that_way(system: System, assistant: Assistant, elsewhere: socket.socket) -> None:
    """Neither past the list, nor past the tailnet's policy where the list is another; and nothing past the tailnet."""
    with asked(system, f"{NAME}:{WAKE_PORT}") as way:
        assert way.recv(4096).startswith(b"HTTP/1.1 200")
    with asked(system, f"{NAME}:22") as way:
        assert way.recv(4096).startswith(b"HTTP/1.1 403"), "the control plane has told its list anew"
    assert elsewhere.recv(4096).startswith(b"HTTP/1.1 504")
    with pytest.raises(OSError):
        socket.create_connection((container_address(assistant), WAKE_PORT), timeout=5)


def asked(system: System, place: str) -> socket.socket:
    """A connection on which the gateway is asked for a place, as the control plane does it."""
    way = socket.socket(socket.AF_UNIX)
    way.settimeout(60)
    way.connect(str(system.folder / "run" / "out" / "forward.sock"))
    way.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
    return way


def container_address(assistant: Assistant) -> str:
    format_ = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return docker("inspect", "--format", format_, assistant.device.container)
