"""What ``perry agent run`` says before it listens to more than this machine."""

import json

import pytest

from cli.commands import agent
from tests.unit.cli.conftest import Perry


@pytest.fixture(autouse=True)
def began(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Control planes that would have been started."""
    begun: list[list[str]] = []
    monkeypatch.setattr(agent, "_exec", lambda arguments, environment: begun.append(arguments))
    monkeypatch.setattr(agent, "_run_in_background", lambda client, environment: None)
    return begun


@pytest.mark.parametrize(
    ("host", "where"), [("0.0.0.0", "every address"), ("::", "every address"), ("10.0.0.5", "10.0.0.5")]
)
def test_an_open_address_is_said(perry_: Perry, began: list[list[str]], host: str, where: str) -> None:
    result = perry_("agent", "run", "--host", host, "--port", "8000")
    assert result.exit_code == 0
    assert f"listens on {where}" in result.stderr and "port 8000, over plain http" in result.stderr
    assert "http://perry" in result.stderr
    assert began[0] == ["run"]


def test_in_the_background_it_is_said_unless_one_runs_already(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    for runs in (False, True):
        monkeypatch.setattr("cli.client.Client.answers", lambda _, runs=runs: runs)
        assert ("every address" in perry_("agent", "run", "-d", "--host", "0.0.0.0").stderr) is not runs


def test_a_configured_one_too(perry_: Perry) -> None:
    (perry_.folder / "config.json").write_text(json.dumps({"host": "0.0.0.0"}))
    assert "listens on every address" in perry_("agent", "run").stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_this_machine_alone_is_not_worth_a_word(perry_: Perry, host: str) -> None:
    assert perry_("agent", "run", "--host", host).stderr == ""
    assert perry_("agent", "run").stderr == ""
