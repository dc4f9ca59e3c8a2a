"""What is read from this machine, and what is said of what cannot be."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from controlplane.credentials import sources
from controlplane.credentials.plan import Merge, Person, destination, environment, plan
from controlplane.credentials.sources import Gathered, gather
from controlplane.credentials.store import Secrets
from controlplane.errors import InvalidInput, NotFound
from controlplane.settings import Settings
from controlplane.settings.personal import Reference
from tests.unit.credentials.test_receiver import bring


def gathered(home: Path, **raw: Any) -> Gathered:
    settings = msgspec.convert(raw, Settings)

    def lookup(reference: Reference) -> str:
        return sources.read_text(reference.file, home)

    return gather(plan(settings, "alpha", Person("Ada", "ada@example.com"), lookup), home)


def content(found: Gathered, path: str) -> str:
    return next(item.content for item in found.items if item.path == path).decode()


def test_a_folder_is_brought_with_the_modes_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "f/sub").mkdir(parents=True)
    (tmp_path / "f/sub/run").write_text("x")
    (tmp_path / "f/sub/run").chmod(0o755)
    (tmp_path / "f/plain").write_text("y")
    found = gathered(tmp_path, credentials={"files": {"~/there": "~/f"}})
    modes = {item.path: item.mode for item in found.items if item.path.startswith("there")}
    assert modes == {"there/sub/run": 0o700, "there/plain": 0o600} and not found.problems


@pytest.mark.parametrize("kind", ["missing", "unreadable", "fifo", "device", "huge"])
def test_a_source_that_cannot_be_read_is_said_and_the_rest_is_brought(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    if kind == "unreadable":
        source.write_text("x")
        real = os.open

        def refuse(path: Any, *rest: Any, **more: Any) -> int:
            if path == source:
                raise PermissionError(13, "Permission denied")
            return real(path, *rest, **more)

        # Root reads everything, so the refusal is played.
        monkeypatch.setattr(os, "open", refuse)
    elif kind == "fifo":
        os.mkfifo(source)
    elif kind == "device":
        source.symlink_to("/dev/zero")
    elif kind == "huge":
        source.touch()
        os.truncate(source, 1 << 30)
    (tmp_path / "fine").write_text("fine")
    found = gathered(tmp_path, credentials={"files": {"~/a": "~/source", "~/b": "~/fine"}})
    (problem,) = found.problems
    words = {
        "missing": "does not exist",
        "unreadable": "cannot be read by the agent's user",
        "fifo": "is no plain file",
        "device": "is no plain file",
        "huge": "1024 MB, and 64 MB is all",
    }
    assert words[kind] in problem and "credentials.files.~/a" in problem
    assert content(found, "b") == "fine" and "a" in found.spared


def test_a_link_out_of_a_folder_is_left_out_and_said(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f/inside").write_text("in")
    (tmp_path / "f/near").symlink_to("inside")
    (tmp_path / "secret").write_text("out")
    (tmp_path / "f/far").symlink_to(tmp_path / "secret")
    found = gathered(tmp_path, credentials={"files": {"~/f": "~/f"}})
    assert content(found, "f/near") == "in" and "far is a link out of its folder" in found.problems[0]
    assert not any(b"out" in item.content for item in found.items)


def test_more_than_there_is_room_for_is_refused_with_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FILES", 3)
    (tmp_path / "f").mkdir()
    for number in range(9):
        (tmp_path / f"f/{number}").write_text("x")
    assert "more than 3 files" in gathered(tmp_path, credentials={"files": {"~/f": "~/f"}}).problems[0]


@pytest.mark.parametrize("given", ["/etc/passwd", "../x", "~/a/../../x", "~", "", "/", "~/.perry/x", "~/a\nb", "~/\0"])
def test_a_place_outside_of_home_is_refused(given: str) -> None:
    with pytest.raises(InvalidInput):
        destination(given)


@pytest.mark.parametrize("given", ["~/.ssh/config", ".ssh/config", "/home/workspace/.ssh/config", "~/./.ssh//config"])
def test_a_place_in_home_is_understood(given: str) -> None:
    assert destination(given) == ".ssh/config"


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [("A", "a\nb", "line break"), ("A B", "x", "no name"), ("A", "\0", "no text"), ("A", "x" * 70_000, "longer")],
)
def test_a_variable_that_not_every_session_could_have_is_refused(name: str, value: str, word: str) -> None:
    problems: list[str] = []
    assert environment({name: value, "FINE": "a=b '\"# \\"}, problems) == b"FINE=a=b '\"# \\\n"
    assert word in problems[0] and value[:50] not in problems[0].replace(name, "")


def test_a_reference_that_stands_for_nothing_is_said(tmp_path: Path) -> None:
    found = gathered(tmp_path, credentials={"env": {"A": {"file": "~/no"}, "B": {}}})
    assert len(found.problems) == 2 and "does not exist" in found.problems[0] and "either" in found.problems[1]


def test_settings_of_agents_are_put_together_with_mcp_servers(tmp_path: Path) -> None:
    (tmp_path / ".codex").mkdir()
    (tmp_path / ".codex/config.toml").write_text('model = "m"\n')
    (tmp_path / ".claude.json").write_text(json.dumps({"projects": {"/x": 1}, "mcpServers": {"own": {}}}))
    server = {"name": "s", "command": "run", "args": ['"q"'], "env": {"K": "v"}}
    found = gathered(tmp_path, mcpServers=[server], skills=[{"id": "do", "skillMd": "# Do"}])
    assert set(json.loads(content(found, ".claude.json"))["mcpServers"]) == {"own", "s"}
    assert "projects" not in content(found, ".claude.json")
    assert content(found, ".codex/config.toml").startswith('model = "m"\n')
    assert 'args = ["\\"q\\""]' in content(found, ".codex/config.toml")
    assert content(found, ".codex/skills/do/SKILL.md") == "# Do"
    home = tmp_path / "workspace"
    (home / ".perry/credentials").mkdir(parents=True)
    assert not bring(home, *found.items)["kept"]


def test_an_agent_that_is_turned_off_stays_at_home(tmp_path: Path) -> None:
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude/.credentials.json").write_text("{}")
    assert any(".claude" in item.path for item in gathered(tmp_path).items)
    assert not any(".claude" in item.path for item in gathered(tmp_path, agents={"claude": {"sync": False}}).items)


def test_json_with_comments_is_brought_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("// mine\n{}")
    found = gathered(tmp_path, credentials={"files": {"~/a.json": "~/a.json"}})
    assert next(item for item in found.items if item.path == "a.json").merge is Merge.FILE


def test_commits_are_signed_with_what_there_is_and_what_is_wrong_with_it_is_said(tmp_path: Path) -> None:
    key = (Path(__file__).parent / "keys/ed25519.asc").read_text()
    (tmp_path / "signing.asc").write_text(key)
    found = gathered(tmp_path, git={"signingKey": {"file": "~/signing.asc"}})
    assert 'signingkey = "FFE1AC39' in content(found, ".perry/credentials/gitconfig")
    modes = {item.path.rpartition("/")[2]: item.mode for item in found.items}
    assert (modes["gpg"], modes["signing-key"]) == (0o700, 0o600)
    found = gathered(tmp_path, git={"signingKey": {"file": "~/missing"}})
    assert found.problems[0].startswith("git.signingKey: ") and "does not exist" in found.problems[0]
    assert "gpgsign" not in content(found, ".perry/credentials/gitconfig")


def test_a_private_key_is_never_taken_for_a_public_one(tmp_path: Path) -> None:
    (tmp_path / "id").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    problems: list[str] = []
    assert sources.authorized_keys(["~/id", "ssh-ed25519 AAAA me"], tmp_path, problems) == b"ssh-ed25519 AAAA me\n"
    assert "id.pub" in problems[0]


def test_secrets_are_files_for_their_owner_alone(tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "secrets")
    secrets.set("npm", "one")
    secrets.set("npm", "two\nlines")
    assert secrets.names() == ["npm"] and secrets.get("npm") == "two\nlines"
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "secrets/npm").stat().st_mode & 0o777 == 0o600
    secrets.remove("npm")
    with pytest.raises(NotFound):
        secrets.get("npm")
    for bad in ("../x", "", ".hidden", "a/b"):
        with pytest.raises(InvalidInput):
            secrets.set(bad, "x")
