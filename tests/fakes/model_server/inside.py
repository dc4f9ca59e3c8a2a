"""The model server inside a workspace's container, on its 127.0.0.1, and agents that work against it there.

Inside, since a workspace reaches nothing of the machine that it runs on. What it needs there is python3.
"""

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .agents import AGENTS
from .agents import PROJECT as PROJECT

PORT = 8085
URL = f"http://127.0.0.1:{PORT}"
"""Where agents in its workspace find it."""
FOLDER = "/opt/fake-model"
PACKAGE = Path(__file__).parent
READY_SECONDS = 30
AGENT_SECONDS = 120
USER = "workspace"


class ModelInside:
    """The server in a running container. ``scripts`` as :class:`ModelServer` has them; more with :meth:`teach`.

    It dies with its container: start it again after a restart.
    """

    def __init__(self, container: str, *, scripts: Mapping[str, str] | None = None) -> None:
        self.container = container
        self.scripts = dict(scripts or {})

    def start(self, *agents: str) -> None:
        """Start it, with the agents of those names pointed at it."""
        program = f"cd {FOLDER} && exec python3 -m model_server --port {PORT} --scripts scripts.json"
        self._put("/", {f"{FOLDER}/scripts.json": json.dumps(self.scripts)} | _package(), owner=0)
        for name in agents:
            self._put(f"/home/{USER}", AGENTS[name](self.url).files, owner=1000)
        docker("exec", self.container, "install", "-d", "-o", USER, "-g", USER, PROJECT)
        docker("exec", "-d", self.container, "sh", "-c", program)
        end = time.monotonic() + READY_SECONDS
        while docker("exec", self.container, "curl", "-sf", f"{self.url}/health", check=False).returncode != 0:
            assert time.monotonic() < end, f"no model server in {self.container}"
            time.sleep(0.1)

    @property
    def url(self) -> str:
        """Where agents in this workspace find it."""
        return URL

    def teach(self, scripts: Mapping[str, str]) -> None:
        """What to do for prompts that match, from now on."""
        self._curl("-d", "@-", f"{self.url}/scripts", stdin=json.dumps(scripts).encode())

    def requests(self) -> list[dict[str, Any]]:
        """What it was asked (:meth:`ModelServer.requests`)."""
        asked: list[dict[str, Any]] = json.loads(self._curl(f"{self.url}/requests"))
        return asked

    def prompt(self, agent: str, prompt: str, *, session: str | None = None, folder: str = PROJECT) -> str:
        """One turn of an agent, to its end: what it printed. A new session, or one that is resumed."""
        done = self._agent(agent, prompt, session, folder)
        output, _ = done.communicate(timeout=AGENT_SECONDS)
        assert done.returncode == 0, f"{agent} ended with {done.returncode}: {output}"
        return output

    def prompt_in_background(
        self, agent: str, prompt: str, *, session: str | None = None, folder: str = PROJECT
    ) -> subprocess.Popen[str]:
        """The same, not waited for. Killing it does not kill the agent."""
        return self._agent(agent, prompt, session, folder)

    def _agent(self, agent: str, prompt: str, session: str | None, folder: str) -> subprocess.Popen[str]:
        how = AGENTS[agent](self.url)
        command = how.run(prompt) if session is None else how.resume(session, prompt)
        # OpenCode takes its folder from PWD, the others from where they are.
        environment = {"HOME": f"/home/{USER}", "PWD": folder} | how.environment
        options = [f"--env={name}={value}" for name, value in environment.items()]
        return subprocess.Popen(
            ["docker", "exec", "--user", USER, "--workdir", folder, *options, self.container, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _curl(self, *arguments: str, stdin: bytes | None = None) -> str:
        done = docker("exec", "-i", self.container, "curl", "-sfS", *arguments, stdin=stdin)
        return done.stdout.decode()

    def _put(self, below: str, files: Mapping[str, str], *, owner: int) -> None:
        if files:
            docker("cp", "-", f"{self.container}:{below}", stdin=_tar(files, owner))


def log_ins(*agents: str) -> dict[str, str]:
    """The environment in which these agents, or all, think that they may speak to it."""
    return {name: value for agent in agents or AGENTS for name, value in AGENTS[agent](URL).environment.items()}


def docker(*arguments: str, check: bool = True, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """The docker CLI; AssertionError with its words where it fails."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run(["docker", *arguments], capture_output=True, timeout=120, **given)
    assert not check or done.returncode == 0, f"docker {arguments}: {done.stderr.decode(errors='replace')}"
    return done


def _package() -> dict[str, str]:
    return {f"{FOLDER}/model_server/{file.name}": file.read_text() for file in sorted(PACKAGE.glob("*.py"))}


def _tar(files: Mapping[str, str], owner: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folders: set[str] = set()
        for path, content in files.items():
            path = path.lstrip("/")
            parents = [str(parent) for parent in reversed(Path(path).parents) if str(parent) != "."]
            for parent in parents:
                # What is there already keeps its owner: only what agents and the server have of their own is made.
                if parent in folders or parent in ("opt",):
                    continue
                folders.add(parent)
                entry = tarfile.TarInfo(parent)
                entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o755, owner, owner
                tar.addfile(entry)
            entry = tarfile.TarInfo(path)
            data = content.encode()
            entry.size, entry.mode, entry.uid, entry.gid = len(data), 0o644, owner, owner
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
