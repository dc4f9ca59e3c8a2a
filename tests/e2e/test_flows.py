"""The how-to pages of the coding workflow: each command on them is run, as it stands there, in the order of the page.

What is real: the CLI, the control plane, workspaces, coding agents, ``gh``, git and the server that it pushes to. What
stands in: the model (``tests/fakes/model_server``), which does for each task what ``WORK`` says, and GitHub's API
(``tests/fakes/github``). Nothing in a page is replaced, not even addresses: workspaces reach ``github.com`` by a proxy,
as in many a company, and behind that is the stand-in.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from tests.consoles import Command, commands
from tests.e2e.stand_ins import bridge
from tests.e2e.system import CHECKOUT, System, eventually
from tests.fakes.github import GitHub, Repository
from tests.fakes.model_server import ModelServer
from tests.fakes.model_server.agents import AGENTS
from tests.fakes.wake_gateway import Gateway

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

TOKEN = "ghp_canary_of_the_flows"

WORK = {
    r"Review pull request 90\b": (
        "[[run: gh pr checkout 90 && gh pr diff 90 && gh pr view 90]]"
        "[[run: gh pr comment 90 --body 'Tidy. One question: `login()` is never called?']]"
        "[[say: I have commented on pull request 90: it is tidy, and login() is never called.]]"
    ),
    r"Review pull request 86\b": (
        "[[run: gh pr checkout 86 && gh pr diff 86]] [[run: gh pr comment 86 --body 'Of the same repository.']]"
        "[[say: I have commented on pull request 86: it is fine.]]"
    ),
    r"Review pull request 87\b": (
        "[[run: gh pr checkout 87 && gh pr diff 87]] [[run: gh pr comment 87 --body 'Of a fork.']]"
        "[[say: I have commented on pull request 87: it is fine.]]"
    ),
    r"Review pull request 88\b": "[[fail: 400]]",
    r"Try again: review pull request 88\b": (
        "[[run: gh pr checkout 88]] [[run: gh pr comment 88 --body 'At the second try.']]"
        "[[say: I have commented on pull request 88.]]"
    ),
    **{
        rf"Fix issue {number}\b": (
            f"[[run: gh issue view {number} && echo fixed >{number}.txt && git add . && git commit -qm 'Fix {number}']]"
            f"{push} [[say: Issue {number} is fixed.]]"
        )
        for number, push in (
            (71, "[[run: git push -q -u origin HEAD]] [[run: gh pr create --fill]]"),
            (72, "[[run: git push -q -u origin HEAD]] [[run: gh pr create --fill]]"),
            (73, ""),
        )
    },
}
"""What the model does for a prompt like that. For number 88 its provider fails, and it does not push number 73."""

PAGES = ("pr-review.md", "batch-review.md", "parallel-issues.md")

ENDS_WITH_1 = "perry dispatch --each 86,87,88 "
"""The page tells of this one's failure."""


class Walked:
    """What came of the pages: output and exit code of each command."""

    def __init__(self, system: System, github: GitHub, project: Repository, gateway: Gateway) -> None:
        self.system = system
        self.github = github
        self.project = project
        self.gateway = gateway
        self.pages: dict[str, Future[None]] = {}

    def run(self, command: Command, folder: Path) -> None:
        """Type a command, as a person of this machine would."""
        began = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", command.typed],
            cwd=folder,
            env={
                **os.environ,
                **self.system.environment,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
        )
        print(f"{time.monotonic() - began:5.1f} s  {command.typed}\n{done.stdout}")  # noqa: T201
        shown = f"{command.typed}: {done.stdout}"
        assert done.returncode == command.typed.startswith(ENDS_WITH_1), shown
        missing = command.missing(done.stdout)
        assert missing is None, f"{shown} lacks {missing!r}"

    def walk(self, page: str, folder: Path) -> None:
        """Every command of a page, one after the other."""
        for command in commands(CHECKOUT / "docs" / "howto" / page):
            self.run(command, folder)

    def woken(self, words: str) -> list[str]:
        return [text for text in self.gateway.told if words in text]

    def gone(self, *names: str) -> None:
        """No workspace of these names is left."""
        eventually(
            lambda: {each["name"] for each in self.system.call("workspaces.list")}.isdisjoint(names),
            f"{names} are gone",
        )


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walked]:
    folder = tmp_path_factory.mktemp("flows")
    home = folder / "home"
    system = System(folder / "agent", tailnet="none")
    system.of_person(home)
    gateway = Gateway()
    with ExitStack() as stack:
        stack.callback(system.remove)
        github = stack.enter_context(GitHub(folder, bridge(), token=TOKEN, viewer="you"))
        model = stack.enter_context(ModelServer(host=bridge(), scripts=WORK))
        portal = stack.enter_context(start_blocking_portal())
        stack.enter_context(portal.wrap_async_context_manager(gateway.open()))
        settle(system, home, github, f"http://{bridge()}:{model.port}", gateway)
        system.start()
        system.call("secrets.set", {"name": "github", "value": TOKEN})
        walked = Walked(system, github, a_project(github), gateway)
        pages = stack.enter_context(ThreadPoolExecutor())
        walked.pages = {page: pages.submit(walked.walk, page, folder) for page in PAGES}
        yield walked


def settle(system: System, home: Path, github: GitHub, model: str, gateway: Gateway) -> None:
    """A person's machine: log-ins of agents, and what the agent is told."""
    agents = [make(model) for make in AGENTS.values()]
    for path, content in [item for agent in agents for item in agent.files.items()]:
        write(home / path, content)
    write(home / "ca.pem", github.certificate.read_text())
    write(system.folder / "hooks-token", gateway.token)
    certificate = "/home/workspace/ca.pem"
    environment = {
        "HTTPS_PROXY": github.proxy,
        "NO_PROXY": f"127.0.0.1,localhost,{bridge()}",
        "SSL_CERT_FILE": certificate,
        "GIT_SSL_CAINFO": certificate,
    }
    config = {
        "credentials": {
            "env": environment | {name: value for agent in agents for name, value in agent.environment.items()},
            "files": {"~/ca.pem": "~/ca.pem"},
        },
        "git": {"name": "Ada", "email": "ada@example.com"},
        "github": {"token": {"secret": "github"}},
        "hooks": {"gateways": [
            {"name": "assistant", "url": gateway.url, "tokenFile": "hooks-token", "kind": "openclaw"}
        ]},
    }  # fmt: skip
    write(system.folder / "config.json", json.dumps(config))
    for name in ("config.json", "hooks-token"):
        (system.folder / name).chmod(0o600)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def a_project(github: GitHub) -> Repository:
    """``you/project``, with what the pages speak of; one pull request is from a fork."""
    project = github.repository("you", "project")
    project.commit("main", {"README.md": "A project.\n"}, "Begin")
    fork = github.repository("ada", "project", parent=project)
    for number, source in ((86, project), (87, fork), (88, project), (90, project)):
        head = f"faster-{number}"
        source.commit(head, {f"{number}.py": "def login(): ...\n"}, f"Log in faster ({number})")
        project.open_pull(number, f"Log in faster ({number})", "It was slow.", source=source, head=head)
    for number in (71, 72, 73):
        project.open_issue(number, "It crashes", f"In line {number}.")
    return project


def test_one_review(walked: Walked) -> None:
    walked.pages["pr-review.md"].result()
    (comment,) = walked.project.pulls[90].comments
    assert comment.body == "Tidy. One question: `login()` is never called?"
    (woken,) = eventually(lambda: walked.woken("workspace review-90"), "the wake")
    assert "I have commented on pull request 90" in woken and "Log in faster" not in woken, woken
    walked.gone("review-90")


def test_reviews_in_parallel(walked: Walked) -> None:
    walked.pages["batch-review.md"].result()
    said = {number: [each.body for each in walked.project.pulls[number].comments] for number in (86, 87, 88)}
    assert said == {86: ["Of the same repository."], 87: ["Of a fork."], 88: ["At the second try."]}
    (woken,) = eventually(lambda: walked.woken("pull request 86"), "the wake")
    assert "(3 items) is done: 2 succeeded, 1 failed." in woken and "It was told to fail with 400" in woken, woken
    (again,) = eventually(lambda: walked.woken("pull request 88"), "the wake of the second try")
    assert "is done" in again
    walked.gone("review-86", "review-87", "review-88")


def test_issues_in_parallel(walked: Walked) -> None:
    walked.pages["parallel-issues.md"].result()
    project = walked.project
    made = {pull.head: pull for number, pull in project.pulls.items() if number > 90}
    assert {head: pull.title for head, pull in made.items()} == {f"fix/issue-{n}": f"Fix {n}" for n in (71, 72, 73)}
    for number in (71, 72, 73):
        assert project.show(f"fix/issue-{number}:{number}.txt") == "fixed"
        assert project.git("log", "-1", "--format=%an <%ae>", f"fix/issue-{number}") == "Ada <ada@example.com>"
    (woken,) = eventually(lambda: walked.woken("Issue 71 is fixed."), "the wake")
    assert "3 succeeded." in woken and "fix-73" in woken and "fix-72" not in woken, woken
    walked.gone("fix-71", "fix-72", "fix-73")


def test_nothing_is_left(walked: Walked) -> None:
    """And nobody asked what GitHub answers and its stand-in does not."""
    assert [page.result() for page in walked.pages.values()] == [None] * 3
    assert len(walked.gateway.told) == 4, walked.gateway.told
    assert walked.github.unanswered == []
    eventually(lambda: walked.system.objects() == [], "nothing is left of the workspaces")
