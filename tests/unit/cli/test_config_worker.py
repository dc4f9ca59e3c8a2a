"""``perry config worker``: the whole set-up of a device."""

import json
import os
from pathlib import Path

import msgspec
import pytest

from protocol.auth import IdentityKind, WhoAmI
from protocol.health import Health
from tests.unit.cli.agent import Answer, FakeAgent
from tests.unit.cli.conftest import Perry
from tests.unit.cli.test_client import free_port

OWNER = WhoAmI(kind=IdentityKind.OWNER, may=["health", "manage", "whoami"], login="owner", node="laptop")
GUEST = WhoAmI(kind=IdentityKind.NODE, may=["health", "whoami"], login="guest", node="phone")


@pytest.fixture(autouse=True)
def elsewhere(agent: FakeAgent, perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent is one that nothing names yet."""
    monkeypatch.delenv("PERRY_URL")
    agent.answers["auth.whoami"] = OWNER


def written(perry_: Perry) -> object:
    return json.loads((perry_.folder / "client.json").read_text())


def secret(folder: Path, text: str, mode: int = 0o600) -> str:
    file = folder / "secret"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


@pytest.mark.parametrize("word", ["worker", "agent"])
def test_a_host_is_written_down_and_used(perry_: Perry, agent: FakeAgent, word: str) -> None:
    host = agent.url.removeprefix("http://")
    result = perry_("config", word, host)
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert written(perry_) == {"worker": host}
    assert (perry_.folder / "client.json").stat().st_mode & 0o777 == 0o600
    agent.answers["workspaces.list"] = []
    assert perry_("list").exit_code == 0


def test_other_keys_stay(perry_: Perry, agent: FakeAgent) -> None:
    (perry_.folder / "client.json").write_text('{"colour": "red", "worker": "old", "token": "of the old one"}')
    assert perry_("config", "worker", agent.url).exit_code == 0
    assert written(perry_) == {"colour": "red", "worker": agent.url}
    assert perry_("config", "worker", "--remove").exit_code == 0
    assert written(perry_) == {"colour": "red"}
    assert "nothing to remove" in perry_("config", "worker", "--remove").stderr


@pytest.mark.parametrize("what", ["nothing", "something else", "an ill agent"])
def test_nothing_is_written_where_no_agent_answers(perry_: Perry, agent: FakeAgent, what: str) -> None:
    url = f"http://127.0.0.1:{free_port()}" if what == "nothing" else agent.url
    agent.health = Answer(200, b"<html>") if what == "something else" else Answer(503, agent.health.body)
    result = perry_("config", "worker", url)
    assert result.exit_code == (3 if what == "nothing" else 1)
    assert "hing was changed" in result.stderr
    assert not (perry_.folder / "client.json").exists()


def test_an_agent_of_another_version_is_refused(perry_: Perry, agent: FakeAgent) -> None:
    agent.health = Answer(200, msgspec.json.encode(Health(ok=True, version="7.0.0", api_version=7)))
    result = perry_("config", "worker", agent.url)
    assert (result.exit_code, "install the same version" in result.stderr) == (7, True)


def test_a_wrong_address_is_misuse(perry_: Perry) -> None:
    result = perry_("config", "worker", "ftp://box")
    assert (result.exit_code, "HOST has 'ftp://box'" in result.stderr) == (2, True)


def test_it_says_when_a_token_is_needed(perry_: Perry, agent: FakeAgent) -> None:
    (perry_.folder / "token").unlink()
    result = perry_("config", "worker", agent.url)
    assert result.exit_code == 0
    assert "--token-file" in result.stderr


def test_it_says_who_may_not(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["auth.whoami"] = GUEST
    result = perry_("config", "worker", agent.url)
    assert result.exit_code == 0
    assert "It knows you as guest on phone, who may not use it; its `auth.owners` says who may." in result.stderr


def test_a_token_comes_from_a_file_and_is_kept(perry_: Perry, agent: FakeAgent, tmp_path: Path) -> None:
    (perry_.folder / "token").unlink()
    result = perry_("config", "worker", agent.url, "--token-file", secret(tmp_path, "secret\n"))
    assert result.exit_code == 0, result.stderr
    assert written(perry_) == {"worker": agent.url, "token": "secret"}
    assert perry_("config", "worker", agent.url).exit_code == 0
    assert written(perry_) == {"worker": agent.url, "token": "secret"}
    shown = perry_("config", "worker")
    assert f"the agent at {agent.url};" in shown.stdout
    assert "secret" not in shown.stdout + shown.stderr
    assert json.loads(perry_("config", "worker", "--json").stdout)["hasToken"] is True


def test_a_wrong_token_is_not_written(perry_: Perry, agent: FakeAgent, tmp_path: Path) -> None:
    result = perry_("config", "worker", agent.url, "--token-file", secret(tmp_path, "wrong"))
    assert (result.exit_code, "The token is wrong" in result.stderr) == (6, True)
    assert not (perry_.folder / "client.json").exists()


def test_a_token_that_others_can_read_is_refused_with_the_mend(perry_: Perry, agent: FakeAgent, tmp_path: Path) -> None:
    file = secret(tmp_path, "secret", 0o640)
    result = perry_("config", "worker", agent.url, "--token-file", file)
    assert (result.exit_code, f"`chmod 600 {file}`" in result.stderr) == (6, True)
    assert not (perry_.folder / "client.json").exists()


@pytest.mark.parametrize("content", ["", "\n", "two words", "x" * 5000, "ä", "a\nb"])
def test_a_file_that_holds_no_token(perry_: Perry, agent: FakeAgent, tmp_path: Path, content: str) -> None:
    result = perry_("config", "worker", agent.url, "--token-file", secret(tmp_path, content))
    assert (result.exit_code, "holds no token" in result.stderr) == (2, True)


def test_a_fifo_or_no_file_is_no_token(perry_: Perry, agent: FakeAgent, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "is no file" in perry_("config", "worker", agent.url, "--token-file", str(tmp_path / "fifo")).stderr
    assert "cannot be read" in perry_("config", "worker", agent.url, "--token-file", str(tmp_path / "none")).stderr


def test_what_does_not_go_together(perry_: Perry, agent: FakeAgent) -> None:
    assert perry_("config", "worker", agent.url, "--remove").exit_code == 2
    assert perry_("config", "worker", "--token-file", "x").exit_code == 2


def test_nothing_set_is_said(perry_: Perry) -> None:
    assert "nothing else is set" in perry_("config", "worker").stdout


def test_the_variable_wins_and_that_is_said(perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRY_URL", "http://other:1")
    assert "PERRY_URL is set here" in perry_("config", "worker", agent.url).stderr
