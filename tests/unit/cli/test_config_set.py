"""``perry config set`` and ``unset``."""

from pathlib import Path

import msgspec
import pytest

from protocol.config import ConfigChange
from protocol.errors import ErrorCode
from tests.unit.cli.agent import FakeAgent, refuses
from tests.unit.cli.conftest import Perry


def change(key: str, value: object, *, restart: bool = True) -> ConfigChange:
    return ConfigChange(key=key, value=value, file="/c/config.json", restart=restart)


def test_it_says_what_counts_now_and_how_it_takes_effect(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["config.set"] = lambda wanted: change(wanted["key"], ["a@b.c"])
    result = perry_("config", "set", "auth.owners", "a@b.c")
    assert agent.calls[-1] == ("config.set", {"key": "auth.owners", "value": "a@b.c"})
    assert result.exit_code == 0 and 'auth.owners is ["a@b.c"] now, in /c/config.json.' in result.stderr
    assert "`perry agent kill`, then `perry agent run -d`" in result.stderr


def test_unset_needs_no_restart_where_nothing_changes(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["config.unset"] = change("tailnet.url", "", restart=False)
    result = perry_("config", "unset", "tailnet.url")
    assert agent.calls[-1] == ("config.unset", {"key": "tailnet.url"})
    assert "tailnet.url is empty now" in result.stderr and "kill" not in result.stderr
    shown = msgspec.json.decode(perry_("config", "unset", "tailnet.url", "--json").stdout)
    assert shown == {"key": "tailnet.url", "value": "", "file": "/c/config.json", "restart": False}


def test_a_credential_file_is_named_from_where_one_stands(
    agent: FakeAgent, perry_: Perry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.answers["config.set"] = lambda wanted: change(wanted["key"], wanted["value"])
    (tmp_path / "key").write_text("x")
    monkeypatch.chdir(tmp_path)
    perry_("config", "set", "tailnet.credentialFile", "key")
    assert agent.calls[-1][1]["value"] == str(tmp_path / "key")
    perry_("config", "set", "tailnet.credentialFile", "not-here")
    assert agent.calls[-1][1]["value"] == "not-here", "the agent says what is wrong with it"


def test_a_refusal_is_passed_on(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["config.set"] = refuses(
        ErrorCode.BAD_REQUEST, "There is no setting 'x'; docs/settings.md lists them."
    )
    result = perry_("config", "set", "x", "1")
    assert result.exit_code != 0 and "There is no setting 'x'" in result.stderr
