"""``perry agent``: what it starts, and how it looks after it. A small program stands in for the control plane."""

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.agent import AgentInfo, Killed
from protocol.tailnet import TailnetStatus
from tests.unit.cli.agent import Answer, FakeAgent
from tests.unit.cli.conftest import Perry
from tests.unit.cli.test_client import free_port


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have taken this process's place: program, arguments, environment."""
    seen: list[Any] = []

    def execve(*given: Any) -> None:
        seen.extend(given)
        raise SystemExit(0)

    monkeypatch.setattr("cli.commands.agent.os.execve", execve)
    return seen


def test_run_becomes_the_control_plane(perry_: Perry, executed: list[Any], tmp_path: Path) -> None:
    arguments = ["--host", "10.0.0.1", "--port", "8000", "--config-dir", str(tmp_path / "new")]
    assert perry_("agent", "run", *arguments).exit_code == 0
    program, given, environment = executed
    assert program == sys.executable
    assert given == [sys.executable, "-P", "-m", "controlplane", "run"]
    assert environment["PERRY_HOST"] == "10.0.0.1"
    assert environment["PERRY_PORT"] == "8000"
    assert environment["PERRY_CONFIG_DIR"] == str(tmp_path / "new")


def test_build_passes_its_options_on(perry_: Perry, executed: list[Any]) -> None:
    assert perry_("agent", "build", "--image", "base", "--image", "-x;y", "--no-cache").exit_code == 0
    assert executed[1][3:] == ["controlplane", "build", "--image", "base", "--image", "-x;y", "--no-cache"]


BACKGROUND = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        ready = Handler.asked > 2
        self.send_response(200 if self.path == "/health" or ready else 503)
        self.end_headers()
        error = b', "error": "Docker is away; start it."' * (not ready)
        self.wfile.write(b'{"ready": %s, "checks": []%s}' % (b"true" if ready else b"false", error))
        if self.path == "/end": os._exit(0)
print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PERRY_PORT"])), Handler).serve_forever()
"""


def stand_in(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    code = textwrap.dedent(program)
    monkeypatch.setattr("cli.commands.agent._command", lambda _: [sys.executable, "-c", code])


def end(port: int) -> None:
    import contextlib
    import http.client

    with contextlib.suppress(OSError, http.client.HTTPException):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/end")
        connection.getresponse()
    connection.close()


def test_run_in_the_background_waits_until_it_is_ready(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, BACKGROUND)
    port = free_port()
    try:
        result = perry_("agent", "run", "-d", "--port", str(port))
        assert result.exit_code == 0, result.output
        assert f"http://127.0.0.1:{port}" in result.stdout
        again = perry_("agent", "run", "-d", "--port", str(port))
        assert (again.exit_code, "already" in again.stdout) == (0, True)
    finally:
        end(port)
    log = perry_.folder / "agent.log"
    assert log.stat().st_mode & 0o077 == 0
    assert perry_("agent", "logs").stdout.startswith("listening\n")


def test_run_in_the_background_says_what_it_died_of(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    (perry_.folder / "agent.log").write_text("old words\n")
    stand_in(monkeypatch, "import sys; sys.exit('The file config.json is no JSON; mend it.')")
    result = perry_("agent", "run", "-d", "--port", str(free_port()))
    assert result.exit_code == 1
    assert "The file config.json is no JSON; mend it." in result.stderr
    stand_in(monkeypatch, "")
    assert "it said nothing" in perry_("agent", "run", "-d", "--port", str(free_port())).stderr


def test_run_in_the_background_that_never_is_ready(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, BACKGROUND.replace("ready = Handler.asked > 2", "ready = False"))
    monkeypatch.setattr("cli.readiness.READY_SECONDS", 1.0)
    port = free_port()
    try:
        result = perry_("agent", "run", "-d", "--port", str(port))
    finally:
        end(port)
    assert result.exit_code == 7
    assert "Docker is away; start it." in result.stderr


def test_status(perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    agent.answers["tailnet.status"] = TailnetStatus(
        provider="embedded", ready=False, owners=[], nodes=[], error="Away; start it."
    )
    text = perry_("agent", "status").stdout
    assert f"runs at {agent.url} on box" in text
    assert "1h" in text
    assert "20.10.24" in text
    assert "embedded, Away; start it." in text
    shown = msgspec.json.decode(perry_("agent", "status", "--json").stdout)
    assert shown["running"] is True
    assert shown["agent"]["dockerVersion"] == "20.10.24"
    monkeypatch.setenv("PERRY_URL", f"http://127.0.0.1:{free_port()}")
    result = perry_("agent", "status", "--json")
    assert (result.exit_code, msgspec.json.decode(result.stdout)["running"]) == (3, False)


def test_kill_waits_until_it_is_gone(perry_: Perry, agent: FakeAgent) -> None:
    def killed(_: Any) -> Killed:
        agent.health = Answer(503, b"")
        return Killed(ok=True)

    agent.answers["agent.kill"] = killed
    assert perry_("agent", "kill").stdout == "The agent has ended; workspaces run on.\n"


def test_kill_of_one_that_stays(perry_: Perry, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.commands.agent.END_SECONDS", 0.2)
    agent.answers["agent.kill"] = Killed(ok=True)
    result = perry_("agent", "kill")
    assert (result.exit_code, "has not" in result.stderr) == (1, True)


def test_token(perry_: Perry) -> None:
    result = perry_("agent", "token")
    assert (result.exit_code, "`perry agent run`" in result.stderr) == (4, True)
    (perry_.folder / "token").write_text("secret\n")
    assert perry_("agent", "token").stdout == "secret\n"
    assert msgspec.json.decode(perry_("agent", "token", "--json").stdout) == {"token": "secret"}


def test_logs(perry_: Perry, monkeypatch: pytest.MonkeyPatch) -> None:
    result = perry_("agent", "logs")
    assert (result.exit_code, "agent.log" in result.stderr) == (4, True)
    log = perry_.folder / "agent.log"
    log.write_text("one\ntwo\x1b[2J\nthree\n")
    assert perry_("agent", "logs", "-n", "2").stdout == "two [2J\nthree\n"
    rounds = iter(["four\n", None, "five\n"])

    def sleep(_: float) -> None:
        try:
            text = next(rounds)
        except StopIteration:
            raise KeyboardInterrupt from None
        if text is None:
            os.truncate(log, 0)
        else:
            with log.open("a") as file:
                file.write(text)

    monkeypatch.setattr("cli.commands.agent.time.sleep", sleep)
    result = perry_("agent", "logs", "-n", "1", "-f")
    assert (result.exit_code, result.stdout) == (130, "three\nfour\nfive\n")


def test_info_of_an_agent_without_docker(perry_: Perry, agent: FakeAgent) -> None:
    agent.answers["agent.info"] = AgentInfo(version="0.1.0", hostname="box", uptime=1, workspaces_count=0)
    assert "does not answer" in perry_("agent", "status").stdout
