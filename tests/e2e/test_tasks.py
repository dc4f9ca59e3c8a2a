"""Tasks from the dispatch to the wake: real agents in real workspaces, a control plane and a worker that are killed."""

import hashlib
import json
import shlex
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from protocol.tasks import TASK_LIMIT, Task, TaskResult, TaskState
from protocol.workspaces import TailnetState, Workspace
from tests.e2e import chaos
from tests.e2e.dispatching import AUTHOR, PROJECT, as_it_stands, dispatch, ended, start_alpha, until
from tests.e2e.system import System, docker, eventually, running
from tests.e2e.woken import Gateway
from tests.fakes.model_server.inside import ModelInside, log_ins

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

AWKWARD = "“$(touch /tmp/no)” `x` 'y' \\ 🙂"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, gateway: Gateway) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("agent")
    settings = {
        "PERRY_HOOKS_GATEWAYS": gateway.settings(folder),
        "PERRY_WAKE_SESSIONS": "true",
        "PERRY_CREDENTIALS_ENV": json.dumps(log_ins() | AUTHOR),
    }
    yield from running(folder, environment=settings)


@pytest.fixture(scope="module")
def alpha(system: System) -> Workspace:
    return start_alpha(system, "opencode", "claude", "codex")


def result(system: System, task: Task) -> TaskResult:
    return msgspec.convert(system.call("tasks.result", {"id": task.id}), TaskResult)


def test_each_agent_does_its_task_and_its_end_wakes(system: System, alpha: Workspace, gateway: Gateway) -> None:
    tasks = {}
    for agent in ("claude", "codex", "opencode"):
        commit = f"echo {agent} >{agent}; git add {agent}; git commit -q -m 'Add {agent}'"
        text = f"{AWKWARD} [[run: {commit}]] [[say: The {agent} is in.]]"
        tasks[agent] = dispatch(system, text, agent=agent)
    for agent, task in tasks.items():
        task = ended(system, task)
        assert task.state is TaskState.SUCCEEDED, (agent, task, system.raw("tasks.logs", {"id": task.id}).text)
        left = result(system, task)
        assert left.last_message == f"The {agent} is in."
        assert f"Add {agent}" in [commit.subject for commit in left.commits]
        sessions = system.call("sessions.list", {"workspace": "alpha", "agent": agent})["items"]
        assert task.session_id in [session["sessionId"] for session in sessions]
        (woken,) = eventually(partial(gateway.of, task.id), f"the wake of {agent}")
        assert f"The {agent} is in." in woken and "is done" in woken
    asked = ModelInside(system.container("alpha")).requests()
    for agent in tasks:
        assert any(AWKWARD in json.dumps(request, ensure_ascii=False).replace("\\\\", "\\") for request in asked), agent
    assert system.inside("alpha", "sh", "-c", "ls /tmp/no 2>/dev/null; true") == ""


def test_sessions_by_hand_wake_too_and_those_of_tasks_do_not(
    system: System, alpha: Workspace, gateway: Gateway
) -> None:
    model = ModelInside(system.container("alpha"))
    for agent in ("claude", "codex", "opencode"):
        task = dispatch(system, "[[say: This is a task.]]", agent=agent)
        model.prompt(agent, f"[[say: The hand of {agent} is done.]]")
        own = f"{agent} in alpha has done what it was asked."
        (woken,) = eventually(
            lambda own=own: [text for text in gateway.taken if own in text],  # type: ignore[misc]
            f"the wake of {agent}",
        )
        assert "perry sessions messages" in woken
        if agent != "opencode":
            assert f"The hand of {agent} is done." in woken
        assert ended(system, task).state is TaskState.SUCCEEDED
    assert [text for text in gateway.taken if "It said: “This is a task.”" in text] == []


def test_a_question_waits_for_a_person(system: System, alpha: Workspace, gateway: Gateway) -> None:
    task = dispatch(system, "[[ask: Which colour?]]", agent="opencode")
    waiting = until(system, task, TaskState.WAITING)
    assert waiting.reason is not None and "Which colour?" in waiting.reason
    (woken,) = eventually(lambda: gateway.of(task.id), "the wake")
    assert "waits for a person" in woken and "Which colour?" in woken
    assert system.perry("tasks", "wait", task.id, check=False).returncode == 8
    assert msgspec.convert(system.call("tasks.cancel", {"id": task.id}), Task).state is TaskState.CANCELLED


def test_a_provider_that_fails_is_the_reason(system: System, alpha: Workspace, gateway: Gateway) -> None:
    tasks = [dispatch(system, "[[fail: 400]]", agent=agent) for agent in ("claude", "codex", "opencode")]
    for task in tasks:
        task = ended(system, task)
        assert task.state is TaskState.FAILED and task.reason is not None
        assert "It was told to fail with 400" in task.reason
        assert eventually(partial(gateway.of, task.id), "the wake")


def test_a_control_plane_that_is_killed(system: System, alpha: Workspace, gateway: Gateway) -> None:
    task = dispatch(system, "until [ -e go ]; do sleep 0.1; done; echo I have gone")
    until(system, task, TaskState.RUNNING)
    system.stop(signal.SIGKILL)
    docker("exec", "-u", "workspace", system.container("alpha"), "touch", f"{PROJECT}/go")
    system.start()
    assert ended(system, task).state is TaskState.SUCCEEDED
    (woken,) = eventually(lambda: gateway.of(task.id), "the wake")
    assert "I have gone" in woken
    assert gateway.of(task.id) == [woken]


def test_a_worker_that_is_killed(system: System, alpha: Workspace) -> None:
    task = dispatch(system, "until [ -e on ]; do sleep 0.1; done; echo I went on; exit 3")
    until(system, task, TaskState.RUNNING)
    docker("exec", system.container("alpha"), "pkill", "-9", "-f", "worker serve")
    docker("exec", "-u", "workspace", system.container("alpha"), "touch", f"{PROJECT}/on")
    task = ended(system, task)
    assert (task.state, task.exit_code) == (TaskState.FAILED, 3)
    assert result(system, task).last_message == "I went on"


def test_opencodes_server_outlives_the_worker_and_its_tasks_do_not_outlive_it(
    system: System, alpha: Workspace, gateway: Gateway
) -> None:
    container = system.container("alpha")
    task = dispatch(system, "[[run: until [ -e along ]; do sleep 0.1; done]] [[say: I went along.]]", agent="opencode")
    eventually(lambda: "until [ -e along ]" in docker("exec", container, "ps", "axo", "args"), "it is at it")
    docker("exec", container, "pkill", "-9", "-f", "worker serve")
    docker("exec", "-u", "workspace", container, "touch", f"{PROJECT}/along")
    task = ended(system, task)
    assert (task.state, result(system, task).last_message) == (TaskState.SUCCEEDED, "I went along."), task
    task = dispatch(system, "[[run: sleep 612]]", agent="opencode")
    eventually(lambda: "sleep 612" in docker("exec", container, "ps", "axo", "args"), "it is at it")
    docker("exec", container, "pkill", "-9", "-f", "opencode serve")
    task = ended(system, task)
    assert task.state is TaskState.FAILED
    assert task.reason is not None and "OpenCode's server ended in the middle of the task" in task.reason
    assert eventually(lambda: gateway.of(task.id), "the wake")


def test_opencodes_server_ends_when_nobody_uses_it_and_not_before(system: System, alpha: Workspace) -> None:
    """By hand, as by a page in a browser that was closed again."""
    container = system.container("alpha")

    def runs(what: str) -> bool:
        return what in docker("exec", container, "ps", "axo", "args")

    asked = "[[run: until [ -e enough ]; do sleep 0.1; done]] [[say: It was enough.]]"
    docker("exec", container, "sh", "-c", "echo 1 >/etc/perry/opencode-keep")
    try:
        session = json.loads(opencode(system, "/session", {}))["id"]
        opencode(system, f"/session/{session}/prompt_async", {"parts": [{"type": "text", "text": asked}]})
        eventually(lambda: runs("until [ -e enough ]"), "it is at it")
        time.sleep(4)
        assert runs("opencode serve")
        system.inside("alpha", "touch", f"{PROJECT}/enough")
        eventually(lambda: not runs("opencode serve"), "it has ended")
        assert "It was enough." in opencode(system, f"/session/{session}/message")
    finally:
        docker("exec", container, "sh", "-c", "echo 600 >/etc/perry/opencode-keep")


def opencode(system: System, path: str, body: object = None) -> str:
    """What alpha's own OpenCode answers to its user."""
    data = "" if body is None else f"-H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
    url = f"http://127.0.0.1:4096{path}?directory={PROJECT}"
    return system.inside(
        "alpha", "sh", "-c", f'curl -sS -m 60 -u "opencode:$(cat /etc/perry/opencode-password)" {data} {url}'
    )


def test_the_largest_task_reaches_its_agent_byte_for_byte(system: System, alpha: Workspace) -> None:
    head, tail = "cat >large <<'END'\n", "END\n"
    room = TASK_LIMIT - len(head) - len(tail)
    body = (f'{AWKWARD}\n\t"' * room).encode()[: room - 1].decode(errors="ignore") + "\n"
    task = ended(system, dispatch(system, f"{head}{body}{tail}"))
    assert task.state is TaskState.SUCCEEDED, task
    said = system.inside("alpha", "sha256sum", f"{PROJECT}/large")
    assert said.split()[0] == hashlib.sha256(body.encode()).hexdigest()


def test_an_agent_that_takes_more_memory_than_there_is(system: System, gateway: Gateway) -> None:
    system.start_workspace("delta", docker=False, memory=400 << 20)
    try:
        task = dispatch(system, "python3 -c \"b'x' * (2 << 30)\"", workspace="delta")
        task = ended(system, task)
        assert task.state is TaskState.FAILED
        assert task.reason is not None and "out of memory; give it more with --memory" in task.reason
        assert eventually(lambda: gateway.of(task.id), "the wake")
    finally:
        system.call("workspaces.delete", {"name": "delta", "force": True})


def test_a_workspace_that_is_restarted(system: System, alpha: Workspace, gateway: Gateway) -> None:
    task = dispatch(system, "sleep 600")
    until(system, task, TaskState.RUNNING)
    docker("restart", "-t", "1", system.container("alpha"))
    task = ended(system, task)
    assert task.state is TaskState.FAILED
    assert task.reason is not None and "stopped while the task was running" in task.reason
    assert eventually(lambda: gateway.of(task.id), "the wake")


def test_from_nothing_to_nothing(system: System, alpha: Workspace, gateway: Gateway, tmp_path: Path) -> None:
    """A workspace is made for a task, and goes when there is nothing in it that is nowhere else."""
    dispatched = system.perry(
        "dispatch", "gamma", "git branch --show-current", "--agent", "command", "--create", "--clone", ".",
        "--branch", "fix/new",
        "--remove-when", "success", "--wait", "--json",
    )  # fmt: skip
    left = msgspec.json.decode(dispatched.stdout, type=TaskResult)
    assert (left.task.state, left.last_message) == (TaskState.SUCCEEDED, "fix/new")
    logs = system.call("tasks.list", {"workspace": "gamma"})["items"]
    assert [each["id"] for each in logs] == [left.task.id]

    def removal() -> str | None:
        return as_it_stands(system, left.task).removal

    assert eventually(removal, "what becomes of the workspace") == "deleted"
    assert system.raw("workspaces.get", {"name": "gamma"}).status_code == 404
    assert result(system, left.task).last_message == left.last_message


@pytest.mark.timeout(300 + 2 * chaos.SECONDS)
def test_wakes_out_of_a_workspace_whose_every_part_is_killed(
    system: System, alpha: Workspace, gateway: Gateway
) -> None:
    """None is lost, each is shown once, and in order."""
    count = int(chaos.SECONDS * 10)
    docker("exec", "-d", "-u", "workspace", system.container("alpha"), "python3", "-c", chaos.WAKING, str(count))
    died, seed = chaos.kill(system, "alpha")

    def of(texts: list[str]) -> list[str]:
        return [text.rpartition("“")[2].removesuffix("”") for text in texts if "“chaos " in text]

    eventually(lambda: len(of(gateway.shown)) >= count, f"all of {count} wakes (seed {seed})", seconds=40)
    assert of(gateway.shown) == [f"chaos {number}" for number in range(count)], f"seed {seed}"
    print(f"{count} wakes, killed {died}, {len(of(gateway.taken)) - count} sent again (seed {seed})")  # noqa: T201
    eventually(lambda: system.workspace("alpha").tailnet.status is TailnetState.ONLINE, "alpha is whole again")
