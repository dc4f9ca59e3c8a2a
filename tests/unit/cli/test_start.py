"""``perry start``: steps, lost connections, ctrl-C, and local repositories on their way."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlplane.workspaces import state
from controlplane.workspaces.state import StepId
from protocol.errors import ErrorCode
from protocol.events import WorkspaceDeleted
from protocol.workspaces import StepStatus, Workspace
from tests.unit.cli.agent import Answer, FakeAgent, ended, refuses, starting, with_step, workspace
from tests.unit.cli.conftest import Perry

Walk = Callable[[Workspace], None]
STEPS = len(state.begun(None).steps)


@contextlib.contextmanager
def walking(agent: FakeAgent, walk: Walk) -> Iterator[None]:
    """Starts answer at once, and then go the way of ``walk`` in a thread of their own."""
    threads: list[threading.Thread] = []

    def start(wanted: Any) -> Workspace:
        begun = starting(wanted["name"])
        agent.workspaces[begun.name] = begun
        threads.append(threading.Thread(target=walk, args=(begun,)))
        threads[-1].start()
        return begun

    agent.answers["workspaces.start"] = start
    yield
    for thread in threads:
        thread.join(10)


def whole_walk(agent: FakeAgent, *, failing: StepId | None = None) -> Walk:
    """Every step in turn; a step that fails does so with git's words."""

    def walk(now: Workspace) -> None:
        for step in StepId:
            now = with_step(now, step, StepStatus.RUNNING)
            agent.publish(now)
            bad = step is failing
            now = with_step(now, step, StepStatus.FAILED if bad else StepStatus.DONE, "fatal: no" if bad else None)
            agent.publish(now)
        agent.publish(ended(now, failed=failing is not None, error="git: fatal: no" if failing else None))

    return walk


def test_steps_are_plain_lines_in_a_pipe(perry_: Perry, agent: FakeAgent) -> None:
    with walking(agent, whole_walk(agent)):
        result = perry_("start", "alpha")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == STEPS + 3
    assert lines[0] == "done    Reserve the name and an ssh port (0.2 s)"
    assert lines[STEPS].startswith("alpha runs, after ")
    assert "ssh workspace@alpha" in lines[-2]
    assert "no security boundary" in result.stderr
    assert "\x1b" not in result.output


def test_json_is_one_object_on_stdout(perry_: Perry, agent: FakeAgent) -> None:
    with walking(agent, whole_walk(agent)):
        result = perry_("start", "alpha", "--json")
    assert msgspec.json.decode(result.stdout, type=Workspace).name == "alpha"
    assert "done    Start the workspace" in result.stderr


def test_what_is_asked_for(perry_: Perry, agent: FakeAgent) -> None:
    with walking(agent, whole_walk(agent)):
        perry_(
            "start", "alpha", "--clone", "https://example.com/x.git", "--branch", "main", "--image", "mine:1",
            "--no-docker", "--cpus", "1.5", "--memory", "1.5g", "--pids", "100",
        )  # fmt: skip
    assert agent.calls[0] == (
        "workspaces.start",
        {
            "name": "alpha",
            "clone": "https://example.com/x.git",
            "branch": "main",
            "image": "mine:1",
            "docker": False,
            "cpus": 1.5,
            "memory": 3 << 29,
            "pids": 100,
            "wait": False,
        },
    )


def test_a_clone_is_taken_back(perry_: Perry, agent: FakeAgent) -> None:
    with walking(agent, whole_walk(agent)):
        perry_("start", "alpha", "--no-clone")
    assert agent.calls[0] == ("workspaces.start", {"name": "alpha", "noClone": True, "wait": False})


def test_what_is_not_given_is_not_sent(perry_: Perry, agent: FakeAgent) -> None:
    with walking(agent, whole_walk(agent)):
        perry_("start", "alpha")
    assert agent.calls[0] == ("workspaces.start", {"name": "alpha", "wait": False})


@pytest.mark.parametrize(
    "arguments",
    [
        ["--memory", "lots"], ["--memory", "1m"], ["--cpus", "0"], ["--pids", "1"], ["--branch", "main"],
        ["--clone", "https://x/y", "--no-clone"],
        ["--clone", "nowhere"], ["--clone", "--upload-pack=touch /tmp/x"], ["--clone", ""], ["--clone", "/nowhere"],
    ],
)  # fmt: skip
def test_wrong_options_are_never_sent(perry_: Perry, agent: FakeAgent, arguments: list[str]) -> None:
    result = perry_("start", "alpha", *arguments)
    assert (result.exit_code, agent.calls) == (2, [])


@pytest.mark.parametrize("clone", ["ext::sh -c id", "git@host:a/b.git", "https://x/y", "a:b\nc"])
def test_urls_go_as_they_stand_and_the_server_judges(perry_: Perry, agent: FakeAgent, clone: str) -> None:
    agent.answers["workspaces.start"] = refuses(ErrorCode.BAD_REQUEST, "No such repository may be handed to git.")
    result = perry_("start", "alpha", "--clone", clone)
    assert result.exit_code == 2
    assert agent.calls[0][1]["clone"] == clone


def test_a_failed_clone_is_exit_code_1_and_gits_words(perry_: Perry, agent: FakeAgent) -> None:
    with walking(agent, whole_walk(agent, failing=StepId.CLONE)):
        result = perry_("start", "alpha")
    assert result.exit_code == 1
    assert "failed  Clone the repository: fatal: no (0.2 s)" in result.stdout
    assert "runs, after" not in result.stdout
    again = "Start it again to try again, and with --no-clone it goes without the repository."
    assert result.stderr == f"alpha runs all the same: `perry ssh alpha`. {again}\nError: git: fatal: no\n"


@pytest.mark.parametrize("given", ["nan", "inf", "0", "-1", "many"])
def test_cpus_are_a_number(perry_: Perry, agent: FakeAgent, given: str) -> None:
    result = perry_("start", "alpha", f"--cpus={given}")
    assert (result.exit_code, agent.calls) == (2, []) and "--cpus" in result.stderr


def test_a_lost_connection_does_not_end_it(perry_: Perry, agent: FakeAgent) -> None:
    def walk(now: Workspace) -> None:
        agent.wait_for_subscriptions(1)
        now = with_step(now, StepId.KEY, StepStatus.DONE)
        agent.publish(now)
        agent.drop_connections()
        agent.wait_for_subscriptions(2)
        agent.publish(ended(with_step(now, StepId.CREATE, StepStatus.DONE)))

    with walking(agent, walk):
        result = perry_("start", "alpha")
    assert result.exit_code == 0, result.output
    assert "done    Create network" in result.stdout
    assert agent.subscriptions == ["workspace=alpha", "workspace=alpha&epoch=e1&after=1"]


def test_an_end_that_came_while_the_connection_was_lost(perry_: Perry, agent: FakeAgent) -> None:
    def walk(now: Workspace) -> None:
        agent.wait_for_subscriptions(1)
        agent.workspaces[now.name] = ended(now)  # Nobody is told: only the next snapshot has it.
        agent.drop_connections()

    with walking(agent, walk):
        assert perry_("start", "alpha").exit_code == 0


def test_a_workspace_that_is_gone_after_a_lost_connection(perry_: Perry, agent: FakeAgent) -> None:
    def walk(now: Workspace) -> None:
        agent.wait_for_subscriptions(1)
        del agent.workspaces[now.name]
        agent.drop_connections()

    with walking(agent, walk):
        result = perry_("start", "alpha")
    assert result.exit_code == 4


def test_a_workspace_that_is_deleted_meanwhile(perry_: Perry, agent: FakeAgent) -> None:
    def walk(now: Workspace) -> None:
        agent.wait_for_subscriptions(1)
        agent._tell(WorkspaceDeleted(seq=1, name="alpha"))

    with walking(agent, walk):
        result = perry_("start", "alpha")
    assert (result.exit_code, "was deleted while" in result.stderr) == (1, True)


def test_an_older_start_that_failed_is_not_taken_for_this_one(perry_: Perry, agent: FakeAgent) -> None:
    agent.workspaces["alpha"] = ended(starting("alpha", attempt=1), failed=True, error="old")
    begun = starting("alpha", attempt=2)

    def start(_: Any) -> Workspace:
        agent.publish(agent.workspaces["alpha"])
        agent.publish(ended(begun))
        return begun

    agent.answers["workspaces.start"] = start
    result = perry_("start", "alpha")
    assert result.exit_code == 0, result.output


def test_one_that_is_busy_is_refused(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.start"] = refuses(ErrorCode.CONFLICT, "'alpha' is being started with other options.")
    result = perry_("start", "alpha")
    assert (result.exit_code, result.stdout) == (5, "")


def test_no_wait(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.start"] = starting("alpha")
    assert "`perry info alpha`" in perry_("start", "alpha", "--no-wait").stdout
    assert agent.subscriptions == []


def test_a_wrong_token(perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRY_TOKEN", "wrong")
    assert perry_("start", "alpha").exit_code == 6


PERRY_AT_A_TERMINAL = """
import signal
# A shell's background job, as a run of the tests may be, begins with Ctrl-C ignored, and so does all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
from cli.main import main
main()
"""


def test_ctrl_c_says_that_it_goes_on(agent: FakeAgent) -> None:
    with walking(agent, lambda now: agent.publish(with_step(now, StepId.KEY, StepStatus.RUNNING))):
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", PERRY_AT_A_TERMINAL, "start", "alpha"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ),
        )  # fmt: skip
        agent.wait_for_call("workspaces.start")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "the start of alpha goes on" in stderr
    assert "`perry info alpha`" in stderr


# --- a local repository


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One commit on ``main``, a remote with a credential in its URL, and things that are not committed."""
    folder = tmp_path / "repo with space"
    folder.mkdir()
    for command in (
        ["init", "-q", "-b", "main"],
        ["remote", "add", "origin", "https://me:secret@example.com/x.git"],
    ):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    (folder / "a").write_text("1")
    (folder / ".gitignore").write_text("ignored\n")
    subprocess.run(["git", "-C", str(folder), "add", "."], check=True)
    identity = ["-c", "user.name=T", "-c", "user.email=t@example.com"]
    subprocess.run(["git", "-C", str(folder), *identity, "commit", "-qm", "One"], check=True)
    for name in ("a", "new", "ignored"):
        (folder / name).write_text("2")
    return folder


@pytest.mark.parametrize("as_url", [False, True])
def test_a_folder_travels_as_a_bundle(
    perry_: Perry, agent: FakeAgent, repository: Path, tmp_path: Path, as_url: bool
) -> None:
    with walking(agent, whole_walk(agent)):
        result = perry_("start", "alpha", "--clone", repository.as_uri() if as_url else str(repository))
    assert result.exit_code == 0, result.output
    assert "Not committed, so left out: 1 changed file, 1 untracked, 1 ignored." in result.stderr
    ((upload, body),) = agent.uploads.items()
    assert agent.calls[0][1] == {
        "name": "alpha",
        "clone": f"upload:{upload}",
        "origin": "https://example.com/x.git",
        "branch": "main",
        "wait": False,
    }
    (tmp_path / "bundle").write_bytes(body)
    subprocess.run(["git", "clone", "-q", str(tmp_path / "bundle"), str(tmp_path / "clone")], check=True)
    assert (tmp_path / "clone" / "a").read_text() == "1"


def test_a_dot_and_a_home_are_folders(
    perry_: Perry, agent: FakeAgent, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(repository)
    monkeypatch.setenv("HOME", str(repository.parent))
    for path in (".", "~/repo with space"):
        with walking(agent, whole_walk(agent)):
            assert perry_("start", "alpha", "--clone", path).exit_code == 0
    assert len(agent.uploads) == 2


def test_an_upload_that_is_refused(perry_: Perry, agent: FakeAgent, repository: Path) -> None:
    agent.upload_answer = refuses(ErrorCode.PAYLOAD_TOO_LARGE, "The bundle is larger than the agent takes.")
    result = perry_("start", "alpha", "--clone", str(repository))
    assert result.exit_code == 1
    assert "larger than the agent takes" in result.stderr
    assert agent.calls == []


def test_an_upload_is_answered_by_something_strange(perry_: Perry, agent: FakeAgent, repository: Path) -> None:
    agent.upload_answer = Answer(404, b"nope")
    assert perry_("start", "alpha", "--clone", str(repository)).exit_code == 1


def test_a_start_of_what_runs(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.start"] = workspace("alpha")
    with walking(agent, whole_walk(agent)):
        pass
    agent.answers["workspaces.start"] = ended(starting("alpha", attempt=3))
    result = perry_("start", "alpha")
    assert result.exit_code == 0
    assert "no security boundary" not in result.stderr
