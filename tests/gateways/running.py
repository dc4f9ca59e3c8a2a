"""Installs and runs a real gateway."""

import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from bootstrap import typescript
from tests import npm_packages
from tests.fakes.model_server.server import ModelServer

HERE = Path(__file__).parent

START_SECONDS: Final = 110.0


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's program. ``variable`` is what its variables begin with."""

    name: str
    program: str
    variable: str
    node: str | None = None


OPENCLAW: Final = Kind(
    name="openclaw",
    program="openclaw/openclaw.mjs",
    variable="OPENCLAW",
    # It asks for 24, where the checkout brings 22.
    node=f"node-linux-{'arm64' if platform.machine() == 'aarch64' else 'x64'}/bin/node",
)
CLAWDBOT: Final = Kind(name="clawdbot", program="clawdbot/dist/entry.js", variable="CLAWDBOT")


class RealGateway:
    """One that runs."""

    def __init__(self, kind: Kind, folder: Path, model: ModelServer) -> None:
        self.kind = kind
        self.folder = folder
        self.model = model
        self.token = "gateway-hooks-token-0123456789"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def told(self) -> list[str]:
        """Every text that its model was told as a person's or the gateway's, each once, in order."""
        messages = (message for asked in self.model.requests() for message in asked["body"]["messages"])
        return list(dict.fromkeys(json.dumps(each["content"]) for each in messages if each["role"] == "user"))

    def told_with(self, mark: str) -> list[str]:
        """Those that have these words."""
        return [text for text in self.told if mark in text]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Returns when its door answers."""
        given = settings(f"{self.model.url}/v1", self.folder, port=self.port, token=self.token)
        (self.folder / "config.json").write_text(json.dumps(given))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command(self.kind),
                env=environment(self.kind, self.folder),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._await_door()

    def kill(self) -> None:
        """At once, with all that it has in memory."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process = None

    def _await_door(self) -> None:
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if self._process.poll() is not None:
                raise AssertionError(f"{self.kind.name} ended with {self._process.returncode}:\n{self.log}")
            request = urllib.request.Request(
                f"{self.url}/hooks/wake", b"{}", {"Authorization": f"Bearer {self.token}"}, method="POST"
            )
            try:
                urllib.request.urlopen(request, timeout=5)
            except urllib.error.HTTPError as exc:
                if exc.code == 400:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise AssertionError(f"{self.kind.name} did not answer within {START_SECONDS:.0f} s:\n{self.log}")


SWITCHED_OFF = (
    "SKIP_CHANNELS",
    "SKIP_CRON",
    "SKIP_BROWSER_CONTROL_SERVER",
    "SKIP_CANVAS_HOST",
    "SKIP_GMAIL_WATCHER",
    "DISABLE_BONJOUR",
    "NO_RESPAWN",
)


def command(kind: Kind) -> list[str]:
    """What runs a gateway in the foreground."""
    modules = installed(kind)
    return [str(_node(kind)), str(modules / kind.program), "gateway", "run"]


def environment(kind: Kind, folder: Path) -> dict[str, str]:
    """With everything that is its own in ``folder``, where its settings are ``config.json``."""
    return {
        "HOME": str(folder),
        "PATH": f"{_node(kind).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        f"{kind.variable}_STATE_DIR": str(folder / "state"),
        f"{kind.variable}_CONFIG_PATH": str(folder / "config.json"),
        **{f"{kind.variable}_{name}": "1" for name in SWITCHED_OFF},
    }


def _node(kind: Kind) -> Path:
    return installed(kind) / kind.node if kind.node else typescript.node()


def settings(model_url: str, folder: Path, *, port: int, token: str, bind: str = "loopback") -> dict[str, Any]:
    """Settings of either kind, with a model of OpenAI's dialect at that address. ``bind`` is in their words."""
    model = {
        "id": "fake-1",
        "name": "Fake",
        "reasoning": False,
        "input": ["text"],
        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
        "contextWindow": 100_000,
        "maxTokens": 4096,
    }
    provider = {"baseUrl": model_url, "apiKey": "sk-fake", "api": "openai-completions", "models": [model]}
    return {
        "gateway": {
            "mode": "local",
            "port": port,
            "bind": bind,
            "auth": {"mode": "token", "token": "the-gateways-own-token-9876543210"},
        },
        "plugins": {"enabled": False},
        "hooks": {"enabled": True, "token": token},
        "models": {"mode": "replace", "providers": {"fake": provider}},
        "agents": {
            "defaults": {
                "model": {"primary": "fake/fake-1"},
                "workspace": str(folder / "work"),
                "skipBootstrap": True,
                "heartbeat": {"every": "30m", "target": "none"},
            }
        },
    }


@contextlib.contextmanager
def running(kind: Kind, folder: Path) -> Iterator[RealGateway]:
    """A gateway and its model, until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with ModelServer() as model:
        gateway = RealGateway(kind, folder, model)
        try:
            gateway.start()
            yield gateway
        finally:
            gateway.kill()


def installed(kind: Kind) -> Path:
    """Its ``node_modules``, brought where they are missing; nothing has to write there again."""

    def finish(modules: Path) -> None:
        if not kind.node:
            return
        node = modules / kind.node
        node.chmod(0o755)
        # What its scripts would have done after npm brought it, openclaw does when it runs first.
        subprocess.run([node, modules / kind.program, "--version"], check=True, stdout=subprocess.DEVNULL)

    return npm_packages.installed(HERE / kind.name, kind.name, finish=finish)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
