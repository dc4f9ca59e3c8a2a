"""What runs in the containers of a fake engine: a sidecar that joins a fake tailnet, a workspace that answers."""

import json
from collections.abc import Awaitable, Callable, Sequence

from controlplane.gateway.spec import AUTH_KEY_FILE
from controlplane.ports import ExecOutput, Role
from controlplane.workspaces.environment import in_environment
from controlplane.workspaces.greeting import GREETING
from controlplane.workspaces.spec import HOST_KEY_FILE
from tests.fakes.engine import FakeContainer, FakeEngine
from tests.fakes.tailnet import FakeTailnet

HOST_KEY = b"ssh-ed25519 AAAAhost comment\n"
IMAGES = ("perry/sidecar:latest", "perry/workspace-base:latest", "own:1")

_WRAPPERS = ("env", "timeout", "3600", "--")
_LOADING = in_environment()


class FakePods:
    """``exit_codes`` has what commands end with, by their first word (by two words for git); 0 where it has nothing."""

    def __init__(self, engine: FakeEngine, tailnet: FakeTailnet) -> None:
        self._tailnet = tailnet
        self.sidecar_joins = True
        self.sandbox_guards = True
        self.workspace_greets = True
        self.words = b"fatal: no such repository\n"
        """What a command that fails says."""
        self.commands: list[Sequence[str]] = []
        self.handovers: list[dict[str, str]] = []
        self.exit_codes: dict[str, int] = {"test": 1, "rmdir": 1}
        self.says = {"du": b"3000000\t/from/home\n", "df": b"     Avail\n99000000000\n"}
        """What commands print, by their first word."""
        self.on_command: Callable[[FakeContainer, str], Awaitable[None]] | None = None
        """Called with each command's first word, before it ends."""
        engine.on_start = self.started
        engine.on_signal = self.started
        engine.on_send = self.handed
        engine.command = self.command

    def use(self, tailnet: FakeTailnet) -> None:
        """Sidecars that start from now on join this one."""
        self._tailnet = tailnet

    def started(self, container: FakeContainer) -> None:
        """A container starts, or is told to read its key again."""
        if container.spec.labels.get("perry.role") == Role.SANDBOX and self.sandbox_guards:
            container.say('{"border":true}')
        if container.spec.labels.get("perry.role") == Role.WORKSPACE and self.workspace_greets:
            container.say(f"{GREETING}{HOST_KEY.decode().strip()}")
        if container.spec.labels.get("perry.role") not in (Role.TAILNET, Role.GATEWAY):
            return
        name = container.spec.labels.get("perry.workspace", "perry")
        container.say(json.dumps({"border": True, "state": "starting", "hostname": name}))
        if container.spec.stdin and self._tailnet.joined(name, "") is None:
            return  # It waits for what it is handed.
        self._join(container, name, container.files.pop(AUTH_KEY_FILE, b"").decode())

    def handed(self, container: FakeContainer, line: bytes) -> None:
        """A sidecar is handed something."""
        handover = json.loads(line)
        self.handovers.append(handover)
        name = container.spec.labels["perry.workspace"]
        if handover.get("authKey") or self._tailnet.joined(name, "") is None:
            self._join(container, name, handover.get("authKey", ""))

    def _join(self, container: FakeContainer, name: str, key: str) -> None:
        if not self.sidecar_joins:
            return
        node = self._tailnet.joined(name, key)
        container.say(
            json.dumps(
                {
                    "border": True,
                    "state": "running" if node else "failed",
                    "hostname": name,
                    "dnsName": f"{node.name}.perry.internal." if node else "",
                    "ips": list(node.ips) if node else [],
                    "nodeId": node.id if node else "",
                    "tun": True,
                    "online": node is not None,
                    "error": "" if node else "The key was refused.",
                }
            )
        )

    async def command(self, container: FakeContainer, command: Sequence[str], stdin: bytes) -> ExecOutput:
        """A command runs in a container."""
        self.commands.append(command)
        itself = command[len(_LOADING) :] if list(command[: len(_LOADING)]) == _LOADING else command
        words = [word for word in itself if "=" not in word and word not in _WRAPPERS] or [""]
        if command[-1] == HOST_KEY_FILE:
            return ExecOutput(exit_code=0, stdout=HOST_KEY, stderr=b"")
        key = " ".join(words[:2]) if words[0] == "git" else words[0]
        if self.on_command is not None:
            await self.on_command(container, key)
        code = self.exit_codes.get(key, 0)
        stderr = self.words if code else b""
        return ExecOutput(exit_code=code, stdout=self.says.get(key, b""), stderr=stderr)
