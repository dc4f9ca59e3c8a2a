"""``perry sync``, ``perry secrets``, and ``perry config`` by itself."""

import msgspec

from protocol.config import Config, ConfigValue
from protocol.credentials import Brought, BroughtItem, SecretNames, Synced
from protocol.errors import ErrorCode
from protocol.workspaces import WorkspaceStatus
from tests.unit.cli.agent import FakeAgent, refuses, workspace
from tests.unit.cli.conftest import Perry


def synced(name: str, *, problems: list[str] | None = None, kept: list[str] | None = None) -> Synced:
    return Synced(name=name, brought=["~/.npmrc"], removed=[], kept=kept or [], problems=problems or [], seconds=0.2)


def test_sync_says_what_came_and_what_was_kept(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["workspaces.sync"] = lambda wanted: synced(wanted["name"], kept=["~/x has been changed."])
    result = perry_("sync", "alpha")
    assert result.exit_code == 0 and "alpha got 1 change, in 0.2 s." in result.stdout and "~/.npmrc" in result.stdout
    assert "Kept: ~/x has been changed." in result.stderr
    assert msgspec.json.decode(perry_("sync", "alpha", "--json").stdout)["name"] == "alpha"


def test_sync_of_all_is_of_those_that_run_and_fails_where_one_did(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["workspaces.list"] = [
        workspace("alpha"),
        workspace("beta"),
        workspace("gamma", status=WorkspaceStatus.STOPPED),
    ]
    agent.answers["workspaces.sync"] = lambda wanted: synced(
        wanted["name"], problems=["~/y does not exist; make it."] if wanted["name"] == "beta" else []
    )
    result = perry_("sync", "--all")
    assert [wanted["name"] for call, wanted in agent.calls if call == "workspaces.sync"] == ["alpha", "beta"]
    assert result.exit_code != 0 and "beta" in result.stderr and "does not exist; make it." in result.stderr


def test_sync_of_all_says_what_is_the_same_for_all_once(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["workspaces.list"] = [workspace("alpha"), workspace("beta")]
    agent.answers["workspaces.sync"] = lambda wanted: synced(
        wanted["name"], problems=["~/y does not exist.", f"{wanted['name']} has no room."]
    )
    said = perry_("sync", "--all").stderr
    assert said.count("~/y does not exist.") == 1
    assert "alpha has no room." in said and "beta has no room." in said and "brought into alpha, beta." in said


def test_sync_wants_one_or_all(agent: FakeAgent, perry_: Perry) -> None:
    assert perry_("sync").exit_code == perry_("sync", "alpha", "--all").exit_code == 2


def test_sync_passes_a_refusal_on(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["workspaces.sync"] = refuses(ErrorCode.PRECONDITION_FAILED, "'alpha' does not run.")
    assert "'alpha' does not run." in perry_("sync", "alpha").stderr


def test_a_secret_comes_from_standard_input_and_is_never_printed(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["secrets.set"] = SecretNames(items=["npm"])
    result = perry_("secrets", "set", "npm", input="top-secret\n")
    assert agent.calls[-1] == ("secrets.set", {"name": "npm", "value": "top-secret"})
    assert result.exit_code == 0 and "top-secret" not in result.output
    assert perry_("secrets", "set", "npm", input="").exit_code == 2


def test_secrets_are_listed_and_removed_by_name(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["secrets.list"] = SecretNames(items=["github", "npm"])
    agent.answers["secrets.remove"] = SecretNames(items=["github"])
    assert perry_("secrets", "list").stdout.split() == ["github", "npm"]
    assert "npm is forgotten" in perry_("secrets", "remove", "npm").stderr


def test_config_shows_what_is_set_and_what_is_brought_from_where(agent: FakeAgent, perry_: Perry) -> None:
    agent.answers["config.get"] = Config(
        folder="/c",
        items=[
            ConfigValue(key="port", value=7391, source="default"),
            ConfigValue(key="git.name", value="Ada", source="file"),
            ConfigValue(key="host", value="::", source="PERRY_HOST"),
        ],
    )
    agent.answers["credentials.list"] = Brought(
        items=[BroughtItem(path="~/.npmrc", setting="credentials.files.~/.npmrc", source="~/.npmrc", present=False)],
        problems=["credentials.files.~/.npmrc: it does not exist."],
    )
    result = perry_("config")
    assert result.exit_code == 0
    assert "git.name" in result.stdout and "config.json" in result.stdout and "PERRY_HOST" in result.stdout
    assert "7391" not in result.stdout.split("SETTING")[1] and "~/.npmrc (not there)" in result.stdout
    assert "it does not exist." in result.stderr
    assert set(msgspec.json.decode(perry_("config", "--json").stdout)) == {"config", "brought"}
