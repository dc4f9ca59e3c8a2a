"""What a person's workspaces are given, in a real one: git, gh, the coding agents, variables, scripts."""

import json
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import stand_ins
from tests.e2e.person import ODD, Person, at_work
from tests.e2e.system import docker, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

KEYS = Path(__file__).parents[1] / "unit/credentials/keys"
AGENTS = [
    ("claude", "env -u ANTHROPIC_API_KEY claude --model claude-fake-1 -p", "mcp__ledger__write", "canary-claude-login"),
    ("opencode", "env OPENCODE_DISABLE_MODELS_FETCH=1 opencode run", "ledger_write", "canary-opencode"),
    ("codex", "codex exec --skip-git-repo-check", "mcp__ledger.write", "canary-codex"),
    ("gemini", "env GEMINI_CLI_TRUST_WORKSPACE=true gemini --model gemini-2.5-flash --yolo -p", "mcp_ledger_write",
     "canary-gemini"),
]  # fmt: skip
"""Name, command, what it calls the tool, and the key by which the model knows it."""


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    with at_work(tmp_path_factory.mktemp("person")) as it:
        yield it


def test_a_private_repository_is_cloned_changed_and_pushed(person: Person) -> None:
    person.ssh("cd alpha && grep precious README && echo more >>README && git commit -qam more && git push -q")
    seen = docker("exec", "-u", "workspace", f"{person.system.instance}-git", "git", "-C", stand_ins.REPOSITORY,
                  "log", "-1", "--format=%an <%ae> %s")  # fmt: skip
    assert seen == 'Ada "L" Love <ada@example.com> more'


def test_a_key_that_may_log_in_does_until_it_may_not(person: Person) -> None:
    phone = person.home / ".ssh/phone"
    assert person.ssh("hostname", phone) == "alpha\n"
    settings = person.config["ssh"]
    person.settle(ssh=settings | {"global": {"copy": settings["global"]["copy"]}})
    person.sync()
    with pytest.raises(AssertionError, match="Permission denied"):
        person.ssh("hostname", phone)


def test_dotfiles_were_installed_and_commits_are_the_persons(person: Person) -> None:
    assert person.ssh("cat ~/from-dotfiles; git config user.email").split() == ["precious", "ada@example.com"]


def test_what_the_person_sets_in_the_workspace_wins(person: Person) -> None:
    shown = person.ssh("git config --global user.name Own; git config user.name; git config --global --unset user.name")
    assert shown.strip() == "Own"


@pytest.mark.parametrize("kind", ["ssh", "openpgp"])
def test_commits_are_signed_and_known(person: Person, kind: str) -> None:
    git = {name: value for name, value in person.config["git"].items() if name != "signingKey"}
    held = {"ssh": person.home / ".ssh/signing", "openpgp": KEYS / "subkey.asc"}[kind].read_text()
    person.system.call("secrets.set", {"name": "signing", "value": held})
    person.settle(git=git | {"signingKey": "~/.ssh/signing" if kind == "ssh" else {"secret": "signing"}})
    assert person.sync()["problems"] == []
    commit = (
        "cd alpha && git commit -q --allow-empty -m signed && git verify-commit HEAD 2>&1 && git log -1 --format=%G?"
    )
    said = person.ssh(commit).splitlines()
    assert said[-1] == "G" and any("Good" in line for line in said)
    person.ssh("cd alpha && git tag -m signed v1 && git verify-tag v1 && git tag -d v1")
    container = person.system.container("alpha")
    shown = docker("inspect", container) + stand_ins.logs(container) + person.system.log() + person.ssh("ps axww")
    assert [line for line in held.splitlines()[2:-2] if line in shown] == []
    assert person.ssh("ls -A /dev/shm; ls ~/.gnupg/private-keys-v1.d 2>/dev/null || true") == ""
    person.settle(git=git)
    assert person.sync()["problems"] == []
    left = person.ssh(
        "cd alpha && git commit -q --allow-empty -m plain && git log -1 --format=%G?; ls ~/.ssh ~/.perry/credentials"
    )
    assert left.splitlines()[0] == "N" and "sign" not in left


def test_gh_is_logged_in_and_git_has_the_token_for_https(person: Person) -> None:
    assert "Logged in to" in person.ssh("gh auth status 2>&1")
    host = person.ssh("head -1 ~/.perry/credentials/github").strip()
    filled = person.ssh(f"printf 'protocol=https\\nhost={host}\\n\\n' | git credential fill")
    assert "password=ghp_canary_github" in filled


@pytest.mark.parametrize(("agent", "command", "tool", "key"), AGENTS, ids=[each[0] for each in AGENTS])
def test_an_agent_answers_with_the_persons_log_in_and_has_their_mcp_server_and_skill(
    person: Person, agent: str, command: str, tool: str, key: str
) -> None:
    line = json.dumps({"line": f"{agent} was here"})
    prompt = f"Note that {agent} was here"
    person.model.scripts[prompt] = f"[[tool: {tool} {line}]] [[say: The {agent} ledger is written.]]"
    said = person.ssh(f"cd alpha && timeout 80 {command} {shlex.quote(prompt)} </dev/null 2>&1")
    assert f"The {agent} ledger is written." in said
    asked = [each for each in person.model.requests() if prompt in each["prompt"]]
    assert {each["key"] for each in asked} == {key}
    sent = json.dumps([each["body"] for each in asked])
    assert "How Ada keeps her ledger." in sent
    assert f"The ledger has '{agent} was here' now." in sent
    assert f"canary-ledger {agent} was here" in person.ssh("cat ~/ledger.txt").splitlines()


def test_a_variable_is_the_same_in_every_session(person: Person) -> None:
    show = 'printf %s "$ODD"'
    assert person.ssh(show) == ODD
    assert person.ssh(f"bash -lc '{show}'") == ODD
    assert person.system.inside("alpha", "sh", "-c", show) == ODD
    assert person.system.perry("exec", "alpha", "--", "sh", "-c", show).stdout == ODD
    assert person.system.inside("alpha", "cat", "/home/workspace/post-start").strip() == ODD
    file = "/home/workspace/.perry/credentials/environment"
    assert person.system.inside("alpha", "stat", "-c", "%a %U", file).split() == ["600", "workspace"]


def test_cron_has_the_variables_too(person: Person) -> None:
    person.ssh("echo '@reboot printf \\%s \"$ODD\" >~/from-cron' | crontab -")
    person.ssh("sudo rm -f /run/*.reboot && sudo s6-svc -r /run/perry-services/cron")
    found = eventually(lambda: person.ssh("cat ~/from-cron 2>/dev/null || true"), "cron ran", seconds=25)
    assert found == ODD


def test_a_changed_source_is_there_by_itself_and_what_the_user_changed_stays(person: Person) -> None:
    fresh = person.home / ".fresh"
    fresh.write_text("two")
    began = time.monotonic()
    os.replace(fresh, person.home / "own.txt")
    eventually(
        lambda: person.system.inside("alpha", "cat", "/home/workspace/own.txt") == "two", "the change", seconds=5
    )
    assert time.monotonic() - began < 10
    person.ssh("echo mine >own.txt")
    (person.home / "own.txt").write_text("three")
    assert any("own.txt" in kept for kept in person.sync()["kept"])
    assert person.ssh("cat own.txt").strip() == "mine"
    assert person.sync()["seconds"] < 3


def test_a_stopped_workspace_says_so(person: Person) -> None:
    person.system.call("workspaces.stop", {"name": "alpha"})
    answer = person.system.raw("workspaces.sync", {"name": "alpha"})
    assert answer.status_code == 412 and "perry start alpha" in answer.text
