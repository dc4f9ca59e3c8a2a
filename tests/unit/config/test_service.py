"""``perry config set`` and ``unset``, on a real file."""

import json
import stat
from pathlib import Path

import pytest

from controlplane.config.service import Configuration
from controlplane.errors import Conflict, InvalidInput, NotReady
from controlplane.settings import load


def configuration(folder: Path, **environ: str) -> Configuration:
    return Configuration(load(folder, environ))


def test_a_value_is_put_and_taken_out_again(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text('{"terminal": {"theirs": 1}, "port": 7000}')
    changing = configuration(tmp_path)
    changed = changing.set("ssh.firstPort", "2222")
    assert (changed.key, changed.value, changed.restart, changed.file) == ("ssh.firstPort", 2222, True, str(file))
    assert json.loads(file.read_text()) == {"terminal": {"theirs": 1}, "port": 7000, "ssh": {"firstPort": 2222}}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and [each.name for each in tmp_path.iterdir()] == ["config.json"]
    changed = changing.unset("ssh.firstPort")
    assert (changed.value, changed.restart) == (22001, False), "as what runs was started"
    assert json.loads(file.read_text()) == {"terminal": {"theirs": 1}, "port": 7000}


def test_what_is_read_anew_is_shown_as_it_counts_now(tmp_path: Path) -> None:
    changing = configuration(tmp_path, PERRY_GIT_EMAIL="a@example.com")
    changing.set("git.name", "Ada")
    changing.set("port", "7000")

    def shown() -> list[tuple[object, str]]:
        items = {item.key: (item.value, item.source) for item in changing.get().items}
        return [items[key] for key in ("git.name", "git.email", "port")]

    assert shown() == [("Ada", "file"), ("a@example.com", "PERRY_GIT_EMAIL"), (7391, "default")]
    changing.unset("git.name")
    assert shown()[0] == ("", "default")
    (tmp_path / "config.json").write_text("{")
    assert shown()[0] == ("", "default")


def test_values_are_spelt_as_in_variables(tmp_path: Path) -> None:
    changing = configuration(tmp_path)
    assert changing.set("auth.owners", "a@b.c, d@e.f").value == ["a@b.c", "d@e.f"]
    assert changing.set("workspaces.docker", "false").value is False
    assert changing.set("tailnet.provider", "headscale").value == "headscale"
    assert load(tmp_path, {}).settings.auth.owners == ("a@b.c", "d@e.f")
    assert json.loads((tmp_path / "config.json").read_text())["workspaces"] == {"docker": False}


def test_secrets_of_the_file_are_not_shown(tmp_path: Path) -> None:
    held = {"credentials": {"env": {"A": "canary"}}, "git": {"signingKey": "-----BEGIN PGP PRIVATE KEY BLOCK canary"}}
    (tmp_path / "config.json").write_text(json.dumps(held))
    changing = configuration(tmp_path)
    shown = [*changing.get().items, changing.set("port", "7000"), changing.unset("credentials.env")]
    assert "canary" not in repr(shown) and changing.get().folder == str(tmp_path)


def test_a_link_stays_one(tmp_path: Path) -> None:
    there = tmp_path / "dotfiles.json"
    there.write_text("{}")
    folder = tmp_path / "perry"
    folder.mkdir()
    (folder / "config.json").symlink_to(there)
    configuration(folder).set("logLevel", "debug")
    assert (folder / "config.json").is_symlink() and json.loads(there.read_text()) == {"logLevel": "debug"}


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("port", "many", "port"),
        ("tailnet.provider", "tailscal", "one of embedded, tailscale, headscale, none"),
        ("credentials.env.EDITOR", "vim", "entry of the table credentials.env"),
        ("tailnet.url", "headscale.example.com", "url"),
        ("Port", "1", r"do you mean port\?"),
        ("firstPort", "1", r"do you mean ssh\.firstPort\?"),
        ("nonsense", "1", "no setting"),
        ("tailnet.authKey", "x", "only you can read.*tailnet.credentialFile"),
        ("tailscale.authKey", "tskey-auth-k1-abc", "only you can read"),
        ("tailnet.credentialFile", "tskey-client-k1-abc", "has stood in a command line"),
        ("credentials.env", '{"A": "secret"}', "`perry secrets set`"),
    ],
)
def test_what_cannot_be_set_changes_nothing(tmp_path: Path, key: str, value: str, says: str) -> None:
    (tmp_path / "config.json").write_text('{"port": 7000}')
    with pytest.raises(InvalidInput, match=says) as caught:
        configuration(tmp_path).set(key, value)
    assert "tskey" not in caught.value.message
    assert (tmp_path / "config.json").read_text() == '{"port": 7000}'


def test_a_variable_that_wins_is_named(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="PERRY_PORT, which wins"):
        configuration(tmp_path, PERRY_PORT="7000").set("port", "7001")
    assert not (tmp_path / "config.json").exists()


def test_a_credential_that_others_can_read_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("tskey-client-k1-abc\n")
    file.chmod(0o644)
    changing = configuration(tmp_path)
    with pytest.raises(NotReady, match=rf"`chmod 600 {file}`"):
        changing.set("tailnet.credentialFile", str(file))
    file.chmod(0o600)
    assert changing.set("tailnet.credentialFile", str(file)).value == str(file)
    assert changing.set("tailnet.credentialFile", "key").value == "key", "relative to the folder of the settings"
    with pytest.raises(NotReady, match="does not exist"):
        changing.set("tailnet.credentialFile", "elsewhere")


def test_a_file_that_is_broken_already_is_left_alone(tmp_path: Path) -> None:
    changing = configuration(tmp_path)
    (tmp_path / "config.json").write_text('{"port": "many"}')
    with pytest.raises(InvalidInput, match="port"):
        changing.set("host", "::1")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidInput, match="mend it first"):
        changing.set("host", "::1")


@pytest.mark.parametrize(("key", "value", "restart"), [("git.name", "Ada", False), ("ssh.firstPort", "23000", True)])
def test_what_workspaces_are_given_counts_without_a_restart(
    tmp_path: Path, key: str, value: str, restart: bool
) -> None:
    assert Configuration(load(tmp_path, {})).set(key, value).restart is restart
