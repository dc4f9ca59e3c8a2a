"""What would be lost with a workspace, on real repositories: what is nowhere else goes only where that is wished."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from controlplane.errors import Conflict
from controlplane.ports import ExecOutput
from protocol.workspaces import DeleteWorkspace, StartWorkspace, UnsavedWork
from tests.fakes.engine import FakeContainer
from tests.unit.workspaces.conftest import Agent

pytestmark = pytest.mark.anyio


class Home:
    """A home on this machine, in which the commands of a workspace run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "alpha"
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def git(self, *arguments: str) -> str:
        """In the project."""
        return subprocess.run(
            ["git", *arguments], cwd=self.project, env=self._env, check=True, capture_output=True, text=True
        ).stdout

    def commit(self, subject: str) -> None:
        self.git("commit", "-q", "--allow-empty", "-m", subject)

    async def run(self, _container: FakeContainer, command: Sequence[str], _stdin: bytes) -> ExecOutput:
        ran = await anyio.run_process(command, cwd=self.folder, env=self._env, check=False)
        return ExecOutput(exit_code=ran.returncode, stdout=ran.stdout, stderr=ran.stderr)


@pytest.fixture
async def home(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Of the workspace alpha: its project has one commit, which is pushed."""
    folder = tmp_path / "home"
    it = Home(folder)
    it.project.mkdir(parents=True)
    it.git("init", "-q", "-b", "main")
    it.commit("before")
    it.git("clone", "-q", "--bare", ".", str(tmp_path / "origin"))
    it.git("remote", "add", "origin", str(tmp_path / "origin"))
    it.git("fetch", "-q")
    await agent.workspaces.start(StartWorkspace(name="alpha"))
    monkeypatch.setattr("controlplane.workspaces.checkout.HOME", str(folder))
    agent.engine.command = it.run
    return it


async def lost(agent: Agent) -> tuple[str, UnsavedWork]:
    with pytest.raises(Conflict) as caught:
        await agent.workspaces.delete(DeleteWorkspace(name="alpha"))
    assert isinstance(caught.value.data, UnsavedWork)
    return caught.value.message, caught.value.data


async def test_what_is_pushed_goes(agent: Agent, home: Home) -> None:
    await agent.workspaces.delete(DeleteWorkspace(name="alpha"))
    assert await agent.workspaces.list() == []


async def test_what_was_pulled_from_a_branch_next_to_it_is_nowhere_else(agent: Agent, home: Home) -> None:
    home.git("checkout", "-q", "-b", "feature", "--track", "main")
    home.git("checkout", "-q", "main")
    home.commit("Mine")
    home.git("checkout", "-q", "feature")
    home.git("pull", "-q", "--ff-only")
    assert "pull" in home.git("reflog", "-1", "feature")
    (line,) = (await lost(agent))[1].unpushed
    assert line.endswith(" Mine")


async def test_a_repository_that_git_refuses_may_have_something_to_lose(agent: Agent, home: Home) -> None:
    (home.project / ".git" / "index").write_bytes(b"broken")
    message, work = await lost(agent)
    assert work.unknown == "git cannot look into alpha."
    assert (
        message.startswith("git cannot look into alpha. See in the workspace what would be lost")
        and "--force" in message
    )
    await agent.workspaces.delete(DeleteWorkspace(name="alpha", force=True))


async def test_a_repository_without_commits_has_nothing_to_lose(agent: Agent, home: Home) -> None:
    empty = home.folder / "beta"
    home.git("init", "-q", str(empty))
    await agent.workspaces.delete(DeleteWorkspace(name="alpha"))


async def test_what_git_can_no_longer_tell_apart_counts(agent: Agent, home: Home) -> None:
    home.git("fetch", "-q", "origin", "main:theirs")
    home.commit("Mine")

    async def run(container: FakeContainer, command: Sequence[str], stdin: bytes) -> ExecOutput:
        if len(command[-1]) == 40:
            return ExecOutput(exit_code=128, stdout=b"", stderr=b"fatal: bad object")
        return await home.run(container, command, stdin)

    agent.engine.command = run
    (line,) = (await lost(agent))[1].unpushed
    assert line.endswith(" Mine")
