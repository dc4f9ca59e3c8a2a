"""Settings from the file and the environment, and their page."""

import json
from pathlib import Path

import msgspec
import pytest

from controlplane.config.service import Configuration
from controlplane.errors import SettingsError
from controlplane.settings import document, leaves, load, variable
from controlplane.settings.personal import Reference

CHECKOUT = Path(__file__).parents[3]


def test_the_page_is_what_the_source_says() -> None:
    assert (CHECKOUT / "docs" / "settings.md").read_text() == document.page(), "run `make generate`"


def test_no_two_settings_share_a_variable() -> None:
    names = [variable(path) for path, _ in leaves()]
    assert len(names) == len(set(names))


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"port": 1111, "ssh": {"firstPort": 2222}}))
    loaded = load(tmp_path, {"PERRY_PORT": "3333", "PERRY_AUTH_OWNERS": "a@b, c@d", "HOME": "/"})
    assert (loaded.settings.port, loaded.settings.ssh.first_port) == (3333, 2222)
    assert loaded.settings.auth.owners == ("a@b", "c@d")
    assert (loaded.sources["port"], loaded.sources["ssh.firstPort"], loaded.sources["host"]) == (
        "PERRY_PORT",
        "file",
        "default",
    )


@pytest.mark.parametrize(
    ("text", "environ", "named"),
    [
        ('{"prot": 1}', {}, "prot"),
        ('{"ssh": {"bnid": ""}}', {}, "bnid"),
        ('{"port": "many"}', {}, "port"),
        ("{", {}, "config.json"),
        ("[]", {}, "config.json"),
        ("{}", {"PERRY_PROT": "1"}, "PERRY_PROT"),
        ("{}", {"PERRY_PORT": "99999"}, "port"),
        ('{"ssh": 1}', {"PERRY_SSH_BIND": "0.0.0.0"}, "ssh"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, environ: dict[str, str], named: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, environ)
    assert named in caught.value.message


def test_a_file_of_the_original_loads(tmp_path: Path) -> None:
    original = {
        "port": 7391,
        "workspacePrefix": "workspace-",
        "imageTag": "latest",
        "credentials": {"env": {}, "files": {}},
        "scripts": {"post_start": ["~/.perry/setup.sh"], "fail_on_error": False},
        "agents": {"github": {"token": "ghp_x"}, "opencode": {"server": {"hostname": "0.0.0.0"}}},
        "ssh": {
            "autoAuthorizeHostKeys": True,
            "global": {"copy": ["~/.ssh/id_ed25519"], "authorize": []},
            "workspaces": {"alpha": {"authorize": ["~/.ssh/other.pub"]}},
        },
        "skills": [{"id": "s", "name": "s", "description": "", "enabled": True, "appliesTo": "all", "skillMd": "# S"}],
        "mcpServers": [{"id": "m", "name": "m", "enabled": True, "type": "local", "command": "npx", "args": ["m"]}],
        "allowHostAccess": True,
        "tailscale": {"authKey": "secret"},
    }
    (tmp_path / "config.json").write_text(json.dumps(original))
    loaded = load(tmp_path, {})
    assert loaded.settings.port == 7391
    assert set(loaded.ignored) == {"allowHostAccess", "tailscale"}
    assert loaded.settings.scripts.post_start == ("~/.perry/setup.sh",) and not loaded.settings.scripts.fail_on_error
    assert loaded.settings.agents.github.token == "ghp_x"
    assert loaded.settings.ssh.all.copy == ("~/.ssh/id_ed25519",)


def test_a_variable_holds_an_object_as_json(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"PERRY_CREDENTIALS_ENV": '{"A": "1", "B": {"secret": "b"}}'})
    assert loaded.settings.credentials.env == {"A": "1", "B": Reference(secret="b")}


def test_what_is_shown_of_settings_holds_no_secret(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "credentials": {"env": {"KEY": "canary-1", "OTHER": {"secret": "named"}}},
                "github": {"token": "canary-2"},
                "agents": {
                    "github": {"token": "canary-3"},
                    "claude_code": {"oauth_token": "canary-4"},
                    "opencode": {"zen_token": "canary-5"},
                },
                "mcpServers": [{"name": "m", "env": {"A": "canary-6"}, "headers": {"Authorization": "canary-7"}}],
            }
        )
    )
    shown = msgspec.json.encode(Configuration(load(tmp_path, {})).get()).decode()
    assert "canary" not in shown and '"OTHER":{"secret":"named"}' in shown and "Authorization" in shown
