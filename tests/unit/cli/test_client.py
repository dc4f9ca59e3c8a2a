"""What the commands say of a control plane that is away, strange, or says no."""

import socket
import threading
from pathlib import Path

import msgspec
import pytest

from protocol.agent import AgentInfo
from protocol.errors import ErrorCode
from protocol.health import Health
from tests.unit.cli.agent import Answer, FakeAgent, refuses, workspace
from tests.unit.cli.conftest import Perry


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_the_first_list_says_what_to_do(perry_: Perry) -> None:
    (perry_.folder / "config.json").write_text(f'{{"port": {(port := free_port())}}}')
    result = perry_("list")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr == (
        f"Error: No Perry agent answers at http://127.0.0.1:{port}; start one with `perry agent run`, "
        "or name another's with `perry config worker HOST`.\n"
    )


def test_another_that_is_away_is_named_with_its_source(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERRY_URL", f"http://127.0.0.1:{free_port()}")
    result = perry_("list")
    assert result.exit_code == 3
    assert "Connection refused" in result.stderr
    assert "PERRY_URL" in result.stderr


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (ErrorCode.BAD_REQUEST, 2),
        (ErrorCode.UNAUTHORIZED, 6),
        (ErrorCode.FORBIDDEN, 6),
        (ErrorCode.NOT_FOUND, 4),
        (ErrorCode.CONFLICT, 5),
        (ErrorCode.PRECONDITION_FAILED, 7),
        (ErrorCode.SERVICE_UNAVAILABLE, 7),
        (ErrorCode.INTERNAL_SERVER_ERROR, 1),
        (ErrorCode.BAD_GATEWAY, 1),
        (ErrorCode.INSUFFICIENT_STORAGE, 1),
    ],
)
def test_errors_are_their_sentence_and_an_exit_code(
    perry_: Perry, agent: FakeAgent, code: ErrorCode, exit_code: int
) -> None:
    agent.answers["workspaces.stop"] = refuses(code, "It cannot be; do something else.")
    result = perry_("stop", "alpha", "--json")
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert result.stderr == "Error: It cannot be; do something else.\n"


def test_a_wrong_token_is_the_servers_sentence(
    perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERRY_TOKEN", "wrong")
    result = perry_("list")
    assert result.exit_code == 6
    assert "The token is wrong" in result.stderr


def test_a_missing_token_says_where_one_is(perry_: Perry, agent: FakeAgent) -> None:
    (perry_.folder / "token").unlink()
    result = perry_("list")
    assert result.exit_code == 6
    assert "`perry agent token`" in result.stderr
    assert "PERRY_TOKEN" in result.stderr


@pytest.mark.parametrize("told", [b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", b""])
@pytest.mark.parametrize("more", [b"", b'{"json": ['])
def test_an_agent_that_is_killed_while_it_answers_is_lost(
    perry_: Perry, monkeypatch: pytest.MonkeyPatch, told: bytes, more: bytes
) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("PERRY_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(told + more)

    answering = threading.Thread(target=answer)
    answering.start()
    result = perry_("batches", "list")
    answering.join()
    listener.close()
    assert result.exit_code == 3 and "broke" in result.stderr


def test_something_else_that_answers(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["workspaces.list"] = Answer(200, b"<html>")
    agent.health = Answer(200, b"<html>")
    result = perry_("list")
    assert result.exit_code == 1
    assert "is no Perry agent" in result.stderr


NEWER = Health(ok=True, version="7.0.0", api_version=7)


@pytest.mark.parametrize("answer", [Answer(404, b"Not Found"), Answer(200, b'{"json":[{"name":"a"}]}')])
def test_an_agent_of_another_version(perry_: Perry, agent: FakeAgent, answer: Answer) -> None:
    agent.answers["workspaces.list"] = answer
    agent.health = Answer(200, msgspec.json.encode(NEWER))
    result = perry_("list")
    assert result.exit_code == 7
    assert "version 7.0.0" in result.stderr
    assert "install the same version" in result.stderr


def test_a_procedure_that_is_not_there(perry_: Perry, agent: FakeAgent) -> None:
    assert "answered what this perry does not understand" in perry_("tailnet", "join").stderr
    agent.health = Answer(200, msgspec.json.encode(NEWER))
    assert "install the same version" in perry_("tailnet", "join").stderr


@pytest.mark.parametrize("command", ["start", "delete"])
def test_what_cannot_be_taken_back_is_not_asked_of_another_version(
    perry_: Perry, agent: FakeAgent, command: str
) -> None:
    agent.health = Answer(200, msgspec.json.encode(NEWER))
    assert perry_(command, "alpha").exit_code == 7
    agent.health = Answer(200, b"<html>")
    assert perry_(command, "alpha").exit_code == 1
    assert agent.calls == []


def test_unknown_fields_are_no_trouble(perry_: Perry, agent: FakeAgent) -> None:
    newer = msgspec.to_builtins(workspace("alpha")) | {"colour": "red"}
    agent.answers["workspaces.list"] = [newer]
    assert perry_("list").exit_code == 0


def test_version_with_and_without_an_agent(perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"at {agent.url}" in perry_("version").stdout
    agent.answers["agent.info"] = AgentInfo(version="9.9", hostname="box", uptime=1, workspaces_count=0)
    assert "They differ" in perry_("version").stderr
    assert msgspec.json.decode(perry_("version", "--json").stdout)["agent"]["version"] == "9.9"
    monkeypatch.setenv("PERRY_URL", f"http://127.0.0.1:{free_port()}")
    result = perry_("version")
    assert result.exit_code == 0
    assert "No Perry agent answers" in result.stderr


def test_proxies_of_the_environment_are_not_asked(
    perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    agent.answers["workspaces.list"] = []
    assert perry_("list").exit_code == 0


def test_a_server_of_another_kind_is_said(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setenv("PERRY_URL", f"http://127.0.0.1:{listener.getsockname()[1]}")

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_10.0\r\n")
            while connection.recv(65536):
                pass  # Closed with something unread, what was sent could be lost.

    answering = threading.Thread(target=answer)
    answering.start()
    result = perry_("list")
    answering.join()
    listener.close()
    assert result.exit_code == 3 and "what answers there is no Perry agent" in result.stderr


@pytest.mark.parametrize("command", [("list",), ("exec", "alpha", "--", "true")])
def test_why_nobody_answers_is_said_alike(
    perry_: Perry, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PERRY_URL", f"http://127.0.0.1:{free_port()}")
    result = perry_(*command)
    assert result.exit_code == 3 and "(Connection refused), which PERRY_URL names" in result.stderr
