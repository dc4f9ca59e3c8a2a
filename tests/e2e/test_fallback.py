"""The insurance of dispatched tasks: agents that stop, end without a word, or cannot be looked at, in a real workspace.

Thresholds are as short as settings take them: ten seconds to a stall, five to a fallback.
"""

import json
import re
import time
from collections.abc import Iterator

import msgspec
import pytest

from protocol.cron import Job, JobRuns
from protocol.tasks import Checked, Task, TaskState
from protocol.workspaces import Workspace
from tests.e2e.dispatching import AUTHOR, PROJECT, dispatch, ended, start_alpha, until
from tests.e2e.system import System, docker, eventually, running
from tests.e2e.woken import Gateway
from tests.fakes.model_server.inside import log_ins

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

STALL = 10
MINUTE = 60
RECORDS = "/home/workspace/.local/state/perry/tasks"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, gateway: Gateway) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("agent")
    settings = {
        "PERRY_HOOKS_GATEWAYS": gateway.settings(folder),
        "PERRY_TASKS_STALL": str(STALL),
        "PERRY_CREDENTIALS_ENV": json.dumps(log_ins() | AUTHOR),
    }
    yield from running(folder, tailnet="none", environment=settings)


@pytest.fixture(scope="module")
def alpha(system: System) -> Workspace:
    return start_alpha(system, "claude", "codex")


def appears(system: System, path: str) -> None:
    """A task has come to where it makes this file."""
    container = system.container("alpha")
    eventually(lambda: docker("exec", container, "sh", "-c", f"ls {PROJECT}/{path} 2>/dev/null", check=False), path)


def told(gateway: Gateway, task: Task, words: str) -> str:
    """The wake about a task with these words."""
    text: str = eventually(lambda: next((each for each in gateway.of(task.id) if words in each), None), words)
    return text


def test_an_agent_that_is_stopped_has_stalled(system: System, alpha: Workspace, gateway: Gateway) -> None:
    """And one whose end nobody tells of, beside it."""
    container = system.container("alpha")
    stopped = dispatch(system, "[[run: touch begun; sleep 600]] [[say: I went on.]]", agent="claude")
    work = "until [ -e go ]; do sleep 0.1; done; git add begun; git commit -q -m 'Done in silence'"
    silent = dispatch(system, f"[[run: touch at-it; {work}]] [[say: All is in.]]", agent="codex", fallback=5.0)
    appears(system, "begun")
    docker("exec", container, "pkill", "-STOP", "-f", "claude")
    at = time.monotonic()

    appears(system, "at-it")
    # Who stands around the agent hears of nothing any more, and so nobody tells.
    runner = json.loads(docker("exec", container, "cat", f"{RECORDS}/{silent.id}/state.json"))["pid"]
    docker("exec", container, "kill", "-STOP", str(runner))
    docker("exec", "-u", "workspace", container, "touch", f"{PROJECT}/go")

    text = told(gateway, stopped, "has stalled")
    assert time.monotonic() - at < STALL + MINUTE
    assert re.search(r"for \d\d s it printed nothing, .*its processes used no CPU", text), text
    assert "are stopped (as by kill -STOP)" in text
    for command in (f"perry tasks logs {stopped.id}", "perry ssh alpha", f"perry tasks cancel {stopped.id}"):
        assert f"`{command}`" in text, text
    assert until(system, stopped, TaskState.STALLED).reason is not None

    text = told(gateway, silent, "finished and told nobody")
    commit = system.inside("alpha", "git", "-C", PROJECT, "log", "-1", "--format=%h").strip()
    assert f"1 commit since it began; the last is {commit}" in text and "“Done in silence”" in text, text

    # A person who asks hears the same, and so does one who has a job ask.
    checked = msgspec.json.decode(system.perry("check", stopped.id, "--json").stdout, type=Checked)
    assert (checked.conclusion, len(gateway.of(f"{stopped.id}-stalled"))) == ("stalled", 1)
    job = msgspec.json.decode(
        system.perry("cron", "add", "--name", "look", "--at", "1s", "--check", "alpha", "--json").stdout, type=Job
    )
    (said,) = eventually(lambda: [each for each in gateway.taken if "Job look: " in each], "the job's wake")
    assert "has stalled" in said and silent.id in said
    (run,) = msgspec.convert(system.call("cron.history", {"job": job.id}), JobRuns).items
    assert str(run.detail).startswith("stalled; wake cron-")

    docker("exec", container, "kill", "-CONT", str(runner))
    assert ended(system, silent).state is TaskState.SUCCEEDED
    docker("exec", container, "pkill", "-CONT", "-f", "claude")
    docker("exec", container, "pkill", "-f", "sleep 600")
    assert ended(system, stopped).state is TaskState.SUCCEEDED
    assert told(gateway, stopped, "is done")


def test_a_workspace_that_cannot_be_looked_into(system: System, alpha: Workspace, gateway: Gateway) -> None:
    container = system.container("alpha")
    task = dispatch(system, "until [ -e back ]; do sleep 0.1; done", agent="command", fallback=5.0)
    until(system, task, TaskState.RUNNING)
    docker("exec", container, "s6-svc", "-d", "/run/perry-services/worker")
    text = told(gateway, task, "cannot be looked at")
    assert "`perry info alpha`" in text and "`perry doctor`" in text
    checked = msgspec.json.decode(system.perry("check", "alpha", "--json").stdout, type=Checked)
    assert checked.conclusion == "unreachable"
    docker("exec", container, "s6-svc", "-u", "/run/perry-services/worker")
    docker("exec", "-u", "workspace", container, "touch", f"{PROJECT}/back")
    assert ended(system, task).state is TaskState.SUCCEEDED


def test_a_job_dispatches_a_task(system: System, alpha: Workspace, gateway: Gateway) -> None:
    words = ("--dispatch", "alpha", "--message", "echo I came by a job", "--agent", "command")
    system.perry("cron", "add", "--name", "nightly", "--at", "1s", *words)
    assert eventually(lambda: [each for each in gateway.taken if "I came by a job" in each], "the wake of its end")
    (run,) = msgspec.convert(system.call("cron.history", {"job": "nightly"}), JobRuns).items
    assert run.outcome == "ok" and str(run.detail).startswith("task t-")


def test_a_job_whose_workspace_vanished(system: System, gateway: Gateway) -> None:
    system.start_workspace("brief", docker=False, clone=None)
    system.call("cron.add", {"name": "looks", "at": "3s", "check": "brief"})
    task = {"workspace": "brief", "task": "true", "agent": "command"}
    system.call("cron.add", {"name": "works", "at": "3s", "dispatch": task})
    system.call("workspaces.delete", {"name": "brief"})
    for job in ("looks", "works"):
        (said,) = eventually(
            lambda job=job: [each for each in gateway.taken if f"Job {job}: " in each],  # type: ignore[misc]
            f"the wake of {job}",
        )
        assert "'brief'" in said
        (run,) = msgspec.convert(system.call("cron.history", {"job": job}), JobRuns).items
        assert run.outcome == "failed" and "'brief'" in str(run.detail)
