"""Which control plane, and which token goes to it."""

import json
from pathlib import Path

import pytest

from cli import config
from cli.errors import Misused, NotAuthorised


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"PERRY_CONFIG_DIR": str(folder), **more}


def test_the_own_control_plane_is_the_default(tmp_path: Path) -> None:
    found = config.target(environment(tmp_path))
    assert (found.url, found.local, found.source) == ("http://127.0.0.1:7391", True, "default")


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({"port": 8000}, "http://127.0.0.1:8000"),
        ({"host": "0.0.0.0"}, "http://127.0.0.1:7391"),
        ({"host": "10.0.0.5", "port": 9}, "http://10.0.0.5:9"),
        ({"host": "::1"}, "http://[::1]:7391"),
    ],
)
def test_its_address_is_the_configured_one(tmp_path: Path, settings: dict[str, object], url: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert config.target(environment(tmp_path)).url == url


@pytest.mark.parametrize(
    ("worker", "url", "local"),
    [
        ("box", "http://box:7391", False),
        ("box:80", "http://box:80", False),
        ("http://box", "http://box:80", False),
        ("https://box.example/perry/", "https://box.example:443/perry", False),
        ("[::1]:7391", "http://[::1]:7391", True),
        ("localhost", "http://localhost:7391", True),
    ],
)
def test_client_json_names_another(tmp_path: Path, worker: str, url: str, local: bool) -> None:
    (tmp_path / "client.json").write_text(json.dumps({"worker": worker}))
    found = config.target(environment(tmp_path))
    assert (found.url, found.local) == (url, local)


def test_the_variable_wins(tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text('{"worker": "box"}')
    assert config.target(environment(tmp_path, PERRY_URL="http://other:1")).host == "other"


@pytest.mark.parametrize("wrong", ["ftp://box", "http://", "box:port", "http://me:pw@box", "a b", "http://[::1"])
def test_a_wrong_address_is_named_with_its_source(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(Misused, match="PERRY_URL"):
        config.target(environment(tmp_path, PERRY_URL=wrong))


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text("{")
    with pytest.raises(Misused, match=r"client\.json is no JSON"):
        config.target(environment(tmp_path))


def token(folder: Path, **more: str) -> str | None:
    variables = environment(folder, **more)
    return config.token(config.target(variables), variables)


def test_the_local_token_goes_to_the_local_control_plane_only(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("local\n")
    assert token(tmp_path) == "local"
    assert token(tmp_path, PERRY_URL="http://127.0.0.1:9") == "local"
    assert token(tmp_path, PERRY_URL="http://elsewhere:7391") is None


def test_the_token_of_client_json_goes_to_its_worker_only(tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text('{"worker": "box", "token": "theirs"}')
    (tmp_path / "client.json").chmod(0o644)
    with pytest.raises(NotAuthorised, match=r"`chmod 600 .*client\.json`"):
        token(tmp_path)
    (tmp_path / "client.json").chmod(0o600)
    assert token(tmp_path) == "theirs"
    assert token(tmp_path, PERRY_URL="http://elsewhere:7391") is None
    assert token(tmp_path, PERRY_URL="http://elsewhere:7391", PERRY_TOKEN="given") == "given"


def test_an_unreadable_token_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "token").mkdir()
    with pytest.raises(NotAuthorised, match="cannot be read"):
        token(tmp_path)
