"""A fake agent, and ``perry`` pointed at it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli import discovery
from cli.main import perry
from tests.unit.cli.agent import FakeAgent, Server, running


class Perry:
    """Runs commands in this process. ``folder`` is the configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(perry, list(arguments), prog_name="perry", input=input, env={"NO_COLOR": ""})


@pytest.fixture(autouse=True)
def no_tailnet(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tailnet of the person who runs the tests has no agent."""
    monkeypatch.setattr(discovery, "found", lambda port: False)


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No PERRY_* of the person who runs the tests; an empty folder of configuration."""
    import os

    for name in list(os.environ):
        if name.startswith("PERRY_"):
            monkeypatch.delenv(name)
    folder = tmp_path / "config"
    folder.mkdir()
    monkeypatch.setenv("PERRY_CONFIG_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all tests."""
    with running() as served:
        yield served


@pytest.fixture
def agent(server: Server, clean_environment: Path, monkeypatch: pytest.MonkeyPatch) -> FakeAgent:
    """A fake agent that the commands find, with the token that they find."""
    server.agent = FakeAgent(server.url)
    monkeypatch.setenv("PERRY_URL", server.url)
    (clean_environment / "token").write_text("secret\n")
    return server.agent


@pytest.fixture
def perry_(clean_environment: Path) -> Perry:
    """``perry``, with no agent unless the test has one."""
    return Perry(clean_environment)
