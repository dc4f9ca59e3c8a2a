"""The agent that the tailnet calls ``perry``, for a device on which nothing is set up."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cli import config, discovery
from tests.unit.cli.agent import FakeAgent
from tests.unit.cli.conftest import Perry
from tests.unit.cli.test_client import free_port

REAL = discovery.found


def environment(folder: Path, **more: str) -> dict[str, str]:
    return {"PERRY_CONFIG_DIR": str(folder), **more}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tailnet has one; the ports at which it was looked for."""
    asked: list[int] = []

    def found(port: int) -> bool:
        asked.append(port)
        return True

    monkeypatch.setattr(discovery, "found", found)
    return asked


def test_it_is_found_where_nothing_is_set(there: list[int], tmp_path: Path) -> None:
    target = config.target(environment(tmp_path))
    assert (target.url, target.local, target.source) == ("http://perry:7391", False, "this device's tailnet")
    assert config.token(target, environment(tmp_path)) is None
    assert there == [7391]


@pytest.mark.parametrize("what", ["token", "config.json", "PERRY_TOKEN", "PERRY_PORT", "PERRY_URL", "client.json"])
def test_it_is_not_looked_for_where_another_is_meant(there: list[int], tmp_path: Path, what: str) -> None:
    variables = {"PERRY_TOKEN": "x", "PERRY_PORT": "9", "PERRY_URL": "http://box"}
    files = {"token": "x", "config.json": "{}", "client.json": '{"worker": "box"}'}
    if what in files:
        (tmp_path / what).write_text(files[what])
    assert config.target(environment(tmp_path, **{k: v for k, v in variables.items() if k == what})).host != "perry"
    assert there == []


def test_nobody_ends_another_machines_agent_by_having_none(there: list[int], perry_: Perry) -> None:
    assert "127.0.0.1" in perry_("agent", "kill").stderr
    assert there == []


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    monkeypatch.setattr(discovery, "_resolved", lambda name: list(addresses))


def test_only_an_address_of_a_tailnet_counts(monkeypatch: pytest.MonkeyPatch, agent: FakeAgent) -> None:
    """A hotel's resolver may answer for any name."""
    port = int(agent.url.rpartition(":")[2])
    resolves_to(monkeypatch, "127.0.0.1", "192.168.1.7", "::1", "fe80::1%eth0", "nonsense")
    tried: list[str] = []

    def connects(address: str, port: int) -> bool:
        tried.append(address)
        return True

    monkeypatch.setattr(discovery, "_connects", connects)
    assert not REAL(port)
    resolves_to(monkeypatch, "100.64.0.3")
    assert REAL(port)
    resolves_to(monkeypatch, "fd7a:115c:a1e0::3")
    assert REAL(port)
    assert tried == ["100.64.0.3", "fd7a:115c:a1e0::3"]


def test_our_own_end_has_to_be_on_the_tailnet_too(monkeypatch: pytest.MonkeyPatch, agent: FakeAgent) -> None:
    port = int(agent.url.rpartition(":")[2])
    assert not discovery._connects("127.0.0.1", port), "it answers, and we come from loopback"
    monkeypatch.setattr(discovery, "_is_of_a_tailnet", lambda address: address == "127.0.0.1")
    assert discovery._connects("127.0.0.1", port)
    assert not discovery._connects("127.0.0.1", free_port())


def test_a_resolver_that_hangs_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        over.wait(60)
        return []

    monkeypatch.setattr(discovery, "SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    began = time.monotonic()
    assert not REAL(7391)
    assert time.monotonic() - began < 30
    over.set()


def test_a_name_that_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert not REAL(7391)
