"""Secrets in a config.json that others can read."""

import json
from pathlib import Path
from typing import Any

import pytest

from controlplane.config.exposure import exposed
from controlplane.settings import load


@pytest.mark.parametrize(
    ("content", "mode", "named"),
    [
        ({"github": {"token": "ghp_x"}, "credentials": {"env": {"KEY": "x"}}}, 0o644, "credentials.env, github.token"),
        ({"mcpServers": [{"name": "a", "env": {"KEY": "x"}}]}, 0o640, "mcpServers"),
        ({"github": {"token": "ghp_x"}}, 0o600, None),
        ({"github": {"token": {"secret": "github"}}, "port": 7391}, 0o644, None),
    ],
)
def test_they_are_named_and_not_shown(tmp_path: Path, content: dict[str, Any], mode: int, named: str | None) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(content))
    file.chmod(mode)
    said = exposed(load(tmp_path, {}))
    if named is None:
        assert said is None
    else:
        assert said == f"Others can read {file}, which has {named}; mend that with `chmod 600 {file}`."


def test_without_a_file_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert exposed(load(tmp_path, {"PERRY_GITHUB_TOKEN": "x"})) is None
