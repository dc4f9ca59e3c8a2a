"""Real coding agents in the workspaces of a system, whose model is a fake one, and what the API says of them."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from websockets.sync.client import ClientConnection, connect

from protocol.sessions import (
    Hits,
    Message,
    Messages,
    SessionInfo,
    Sessions,
    SessionsFrame,
    Text,
    frame_decoder,
)
from tests.e2e.system import PATIENCE, System, docker, eventually
from tests.fakes.model_server.inside import AGENT_SECONDS, PROJECT, ModelInside


class Agents:
    """Agents, by the workspace ``where`` each works, and what the API says of their sessions."""

    def __init__(self, system: System, where: Mapping[str, str], scripts: Mapping[str, str]) -> None:
        self.system = system
        self._where = where
        self.models = {name: ModelInside(system.container(name), scripts=scripts) for name in set(where.values())}

    def start(self) -> None:
        """The models, with the agents pointed at them."""
        for workspace, model in self.models.items():
            model.start(*(agent for agent, name in self._where.items() if name == workspace))

    def at_once(self, prompts: Mapping[str, str]) -> None:
        """One turn of each agent, side by side."""
        running = {agent: self.model(agent).prompt_in_background(agent, prompt) for agent, prompt in prompts.items()}
        for agent, process in running.items():
            output, _ = process.communicate(timeout=AGENT_SECONDS)
            assert process.returncode == 0, f"{agent}: {output}"

    def model(self, agent: str) -> ModelInside:
        return self.models[self._where[agent]]

    def sessions(self, **wanted: Any) -> list[SessionInfo]:
        return msgspec.convert(self.system.call("sessions.list", wanted), Sessions).items

    def of(self, agent: str) -> list[SessionInfo]:
        return self.sessions(agent=agent)

    def messages(self, session: SessionInfo) -> list[Message]:
        asked = ref(session) | {"after": -1, "limit": 500}
        return msgspec.convert(self.system.call("sessions.messages", asked), Messages).items

    def search(self, query: str) -> list[tuple[str, str, str]]:
        hits = msgspec.convert(self.system.call("sessions.search", {"query": query}), Hits).items
        return [(hit.session.workspace, hit.session.agent, hit.role.value) for hit in hits]

    def until(self, session: SessionInfo, true: Callable[[SessionInfo], bool], what: str) -> SessionInfo:
        """The session as it is when that is true of it."""
        found = session

        def look() -> bool:
            nonlocal found
            found = msgspec.convert(self.system.call("sessions.get", ref(session)), SessionInfo)
            return true(found)

        try:
            eventually(look, what, seconds=15)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it is {found}") from exc
        return found


def ref(session: SessionInfo) -> dict[str, Any]:
    return {"workspace": session.workspace, "agent": session.agent, "sessionId": session.session_id}


def text(messages: list[Message]) -> str:
    return "\n".join(block.text for message in messages for block in message.blocks if isinstance(block, Text))


def saying(agents: Agents, agent: str, words: str) -> SessionInfo | None:
    """The agent's session in which that was said."""
    return next((each for each in agents.of(agent) if words in said(agents, each)), None)


def said(agents: Agents, session: SessionInfo) -> str:
    return text(agents.messages(session))


@contextlib.contextmanager
def watching(system: System, name: str | None = None) -> Iterator[ClientConnection]:
    path = "/sessions" + (f"/{name}" if name else "")
    url = system.url.replace("http", "ws") + path
    with connect(url, additional_headers=system.headers, proxy=None, max_size=None) as socket:
        yield socket


def hear(socket: ClientConnection, until: Callable[[SessionsFrame], bool]) -> list[SessionsFrame]:
    """Frames up to the one that was waited for."""
    end = time.monotonic() + 20 * PATIENCE
    frames: list[SessionsFrame] = []
    while not frames or not until(frames[-1]):
        try:
            frames.append(frame_decoder.decode(socket.recv(timeout=max(end - time.monotonic(), 0.01))))
        except TimeoutError as exc:
            raise AssertionError(f"not told; heard {frames[-10:]}") from exc
    return frames


def kill_worker(container: str) -> bool:
    """Whether there was one."""
    pids = docker("exec", container, "pgrep", "-f", "/perry-worker .* serve", check=False).split()
    if pids:
        docker("exec", container, "kill", "-9", *pids)
    return bool(pids)


@contextlib.contextmanager
def codex_that_asks(container: str) -> Iterator[str]:
    """Codex as an editor runs it, asking to be allowed a command: the session's id, while it asks."""
    asking = {"cmd": "touch asked", "sandbox_permissions": "require_escalated", "justification": "May I?"}
    command = ["docker", "exec", "-i", "-u", "workspace", "-e", "HOME=/home/workspace", "-w", PROJECT, container]
    process = subprocess.Popen([*command, "codex", "app-server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def say(**said: Any) -> None:
        stdin.write(msgspec.json.encode(said) + b"\n")
        stdin.flush()

    def hear(true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for line in stdout:
            if true(said := msgspec.json.decode(line)):
                return dict(said)
        raise AssertionError("Codex ended")

    try:
        say(id=1, method="initialize", params={"clientInfo": {"name": "test", "version": "1"}})
        hear(lambda said: said.get("id") == 1)
        say(method="initialized")
        say(id=2, method="thread/start", params={"approvalPolicy": "on-request", "sandbox": "workspace-write"})
        thread = hear(lambda said: said.get("id") == 2)["result"]["thread"]["id"]
        prompt = f"[[tool: exec_command {msgspec.json.encode(asking).decode()}]]"
        say(id=3, method="turn/start", params={"threadId": thread, "input": [{"type": "text", "text": prompt}]})
        hear(lambda said: str(said.get("method")).endswith("requestApproval"))
        yield str(thread)
    finally:
        stdin.close()
        process.kill()
        process.wait()
        stdout.close()


class Terminal(NamedTuple):
    """A process on a terminal of its own; ``fd`` is the other side of it."""

    process: subprocess.Popen[bytes]
    fd: int

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.fd)


def on_a_terminal(system: System, *arguments: str) -> Terminal:
    """``perry`` on a terminal of its own."""
    perry = str(Path(sys.executable).with_name("perry"))
    main, other = pty.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [perry, *arguments],
        env={**os.environ, **system.environment, "TERM": "xterm-256color"},
        stdin=other,
        stdout=other,
        stderr=other,
        start_new_session=True,
    )
    os.close(other)
    return Terminal(process, main)
