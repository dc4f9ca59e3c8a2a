"""What a person's workspaces are given, in a real one: git, gh, the coding agents, variables, scripts."""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.workspaces import StartupState
from tests.e2e import stand_ins
from tests.e2e.system import System, docker, eventually

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

ODD = "a=b # c 'd' \"e\" $HOME `id` \\"


class Given:
    """A person's machine: its home, what its agent was told, and the servers that it works with."""

    def __init__(self, home: Path, system: System) -> None:
        self.home = home
        self.system = system
        self.model = ""
        self.model_keys: set[str] = set()
        self.url = ""

    def sync(self) -> dict[str, Any]:
        done: dict[str, Any] = self.system.call("workspaces.sync", {"name": "alpha"})
        return done

    def ssh(self, command: str) -> str:
        """As a person's ssh would run it: not by Docker, not in a log-in shell."""
        port = self.system.workspace("alpha").ports.ssh
        key = self.system.folder / "ssh" / "id_ed25519"
        done = subprocess.run(
            ["ssh", "-p", str(port), "-i", str(key), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
             "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "workspace@127.0.0.1", command],
            capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Given]:
    folder = tmp_path_factory.mktemp("person")
    home = folder / "home"
    (home / ".ssh").mkdir(parents=True)
    key = home / ".ssh" / "id_work"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "work", "-f", str(key)], check=True)
    system = System(folder / "agent", tailnet="none")
    system.of_person(home)
    it = Given(home, system)
    pem = stand_ins.certificate(folder)
    try:
        it.url, known_host = stand_ins.git_server(system, (home / ".ssh/id_work.pub").read_text())
        with stand_ins.served() as (model, keys), stand_ins.served(pem) as (github, _):
            it.model, it.model_keys = model, keys
            write(home / "own.txt", "one")
            write(home / "ca.pem", (folder / "cert").read_text())
            write(home / "post.sh", '#!/bin/sh\npwd; echo "$ODD" >~/post-start\n')
            write(home / ".config/opencode/opencode.json", json.dumps(opencode(model)))
            write(home / ".claude/settings.json", json.dumps({"env": {"ANTHROPIC_BASE_URL": f"http://{model}"}}))
            config = {
                "credentials": {
                    "env": {
                        "ODD": ODD,
                        "SSL_CERT_FILE": "/home/workspace/ca.pem",
                        "ANTHROPIC_API_KEY": {"secret": "claude"},
                    },
                    "files": {"~/own.txt": "~/own.txt", "~/ca.pem": "~/ca.pem"},
                },
                "git": {"name": 'Ada "L" Love', "email": "ada@example.com"},
                "ssh": {"global": {"copy": ["~/.ssh/id_work"]}, "knownHosts": [known_host]},
                "github": {"token": {"secret": "github"}, "host": github},
                "scripts": {"post_start": ["~/post.sh"]},
                "dotfiles": {"repository": it.url, "install": "cp README ~/from-dotfiles"},
            }
            write(system.folder / "config.json", json.dumps(config))
            system.start()
            system.call("secrets.set", {"name": "claude", "value": "sk-ant-canary-claude"})
            system.call("secrets.set", {"name": "github", "value": "ghp_canary_github"})
            workspace = system.start_workspace("alpha", clone=it.url, docker=False)
            assert workspace.startup is not None and workspace.startup.state is StartupState.SUCCEEDED, workspace
            yield it
    finally:
        system.remove()


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def opencode(model: str) -> dict[str, Any]:
    return {
        "model": "fake/fake-1", "small_model": "fake/fake-1", "autoupdate": False, "share": "disabled",
        "enabled_providers": ["fake"],
        "provider": {"fake": {
            "npm": "@ai-sdk/openai-compatible", "name": "Fake",
            "options": {"baseURL": f"http://{model}/v1", "apiKey": "{env:ANTHROPIC_API_KEY}"},
            "models": {"fake-1": {"name": "Fake 1", "tool_call": True, "limit": {"context": 100000, "output": 4096}}},
        }},
    }  # fmt: skip


def test_a_private_repository_is_cloned_changed_and_pushed(given: Given) -> None:
    given.ssh("cd alpha && grep precious README && echo more >>README && git commit -qam more && git push -q")
    seen = docker("exec", "-u", "workspace", f"{given.system.instance}-git", "git", "-C", stand_ins.REPOSITORY,
                  "log", "-1", "--format=%an <%ae> %s")  # fmt: skip
    assert seen == 'Ada "L" Love <ada@example.com> more'


def test_dotfiles_were_installed_and_commits_are_the_persons(given: Given) -> None:
    assert given.ssh("cat ~/from-dotfiles; git config user.email").split() == ["precious", "ada@example.com"]


def test_what_the_person_sets_in_the_workspace_wins(given: Given) -> None:
    shown = given.ssh("git config --global user.name Own; git config user.name; git config --global --unset user.name")
    assert shown.strip() == "Own"


def test_gh_is_logged_in_and_git_has_the_token_for_https(given: Given) -> None:
    assert "Logged in to" in given.ssh("gh auth status 2>&1")
    host = given.ssh("head -1 ~/.perry/credentials/github").strip()
    filled = given.ssh(f"printf 'protocol=https\\nhost={host}\\n\\n' | git credential fill")
    assert "password=ghp_canary_github" in filled


def test_claude_answers_with_what_was_brought(given: Given) -> None:
    said = given.ssh("cd alpha && timeout 60 claude -p hello --model claude-fake-1 </dev/null 2>&1")
    assert stand_ins.REPLY in said
    assert "sk-ant-canary-claude" in given.model_keys


def test_opencode_answers_with_what_was_brought(given: Given) -> None:
    said = given.ssh("cd alpha && OPENCODE_DISABLE_MODELS_FETCH=1 timeout 80 opencode run hello </dev/null 2>&1")
    assert stand_ins.REPLY in said
    assert "Bearer sk-ant-canary-claude" in given.model_keys


def test_a_variable_is_the_same_in_every_session(given: Given) -> None:
    show = 'printf %s "$ODD"'
    assert given.ssh(show) == ODD
    assert given.ssh(f"bash -lc '{show}'") == ODD
    assert given.system.inside("alpha", "sh", "-c", show) == ODD
    assert given.system.perry("exec", "alpha", "--", "sh", "-c", show).stdout == ODD
    assert given.system.inside("alpha", "cat", "/home/workspace/post-start").strip() == ODD
    file = "/home/workspace/.perry/credentials/environment"
    assert given.system.inside("alpha", "stat", "-c", "%a %U", file).split() == ["600", "workspace"]


def test_cron_has_the_variables_too(given: Given) -> None:
    given.ssh("echo '@reboot printf \\%s \"$ODD\" >~/from-cron' | crontab -")
    given.ssh("sudo rm -f /run/*.reboot && sudo s6-svc -r /run/perry-services/cron")
    found = eventually(lambda: given.ssh("cat ~/from-cron 2>/dev/null || true"), "cron ran", seconds=25)
    assert found == ODD


def test_a_changed_source_is_there_by_itself_and_what_the_user_changed_stays(given: Given) -> None:
    fresh = given.home / ".fresh"
    fresh.write_text("two")
    began = time.monotonic()
    os.replace(fresh, given.home / "own.txt")
    eventually(lambda: given.system.inside("alpha", "cat", "/home/workspace/own.txt") == "two", "the change", seconds=5)
    assert time.monotonic() - began < 10
    given.ssh("echo mine >own.txt")
    (given.home / "own.txt").write_text("three")
    assert any("own.txt" in kept for kept in given.sync()["kept"])
    assert given.ssh("cat own.txt").strip() == "mine"
    assert given.sync()["seconds"] < 3


def test_a_stopped_workspace_says_so(given: Given) -> None:
    given.system.call("workspaces.stop", {"name": "alpha"})
    answer = given.system.raw("workspaces.sync", {"name": "alpha"})
    assert answer.status_code == 412 and "perry start alpha" in answer.text
