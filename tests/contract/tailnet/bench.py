"""Tailnets to hold to the contract, and devices that join them."""

import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import anyio

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.adapters.machine import LocalMachine
from controlplane.adapters.tailnet import EmbeddedTailnet
from controlplane.ports import ContainerSpec, Node, Role, Tailnet
from tests.fakes.tailnet import FakeTailnet


class Bench(ABC):
    """A tailnet, with hands to do what its nodes and its machine do."""

    tailnet: Tailnet

    @abstractmethod
    async def join(self, name: str, secret: str) -> bool:
        """A new device of that name comes with a key. Whether it got in."""

    @abstractmethod
    async def go_away(self) -> None:
        """The coordinator stops answering."""

    @abstractmethod
    async def come_back(self) -> None:
        """What lets ``ensure`` succeed again."""

    @abstractmethod
    async def close(self) -> None: ...

    async def node(self, name: str) -> Node:
        """The node of that name, once it is online."""
        with anyio.fail_after(20):
            while True:
                for node in await self.tailnet.nodes():
                    if node.name == name and node.online:
                        return node
                await anyio.sleep(0.1)


class FakeBench(Bench):
    def __init__(self) -> None:
        self.tailnet: FakeTailnet = FakeTailnet()

    async def join(self, name: str, secret: str) -> bool:
        return self.tailnet.joined(name, secret) is not None

    async def go_away(self) -> None:
        self.tailnet.away = True

    async def come_back(self) -> None:
        self.tailnet.away = False

    async def close(self) -> None:
        pass


class EmbeddedBench(Bench):
    """The real thing: headscale in Docker, and stock tailscale clients. Everything has the label of its instance."""

    def __init__(self, folder: Path, *, address: str = "", port: int | None = None) -> None:
        self.engine = DockerEngine()
        self.folder = folder / "coordinator"
        self.instance = f"contract-{secrets.token_hex(3)}"
        self.labels = {"perry.instance": self.instance}
        self.coordinator = f"{self.instance}-coordinator"
        self.port = port or free_port()
        self._address = address
        self._machine = LocalMachine(folder / "ssh")
        self.tailnet: EmbeddedTailnet = self.another(address)

    def another(self, address: str | None = None) -> EmbeddedTailnet:
        """The tailnet as a new control plane of the same folder has it."""
        return EmbeddedTailnet(
            self.engine,
            self._machine,
            instance=self.instance,
            image="perry/headscale:latest",
            address=self._address if address is None else address,
            port=self.port,
            domain="perry.internal",
            folder=self.folder,
        )

    async def join(self, name: str, secret: str, *, url: str | None = None, relayed: bool = False) -> bool:
        container = await self.device(name, relayed=relayed)
        command = ["timeout", "6", "tailscale", "login", "--auth-key", "file:/dev/stdin"]
        command += ["--login-server", url or str(self.tailnet.control_url)]
        output = await self.engine.exec(container, command, stdin=_once(secret.encode()))
        return output.exit_code == 0

    async def device(self, name: str, *, relayed: bool = False) -> str:
        """A stock client that has not joined; its container. ``relayed``: it knows no direct path."""
        env = {"TS_DEBUG_USE_DERP_HTTP": "1", **({"TS_DEBUG_ALWAYS_USE_DERP": "1"} if relayed else {})}
        spec = ContainerSpec(
            name=f"{self.instance}-{name}-{secrets.token_hex(2)}",
            image="perry/device:latest",
            labels={**self.labels, "perry.role": Role.TAILNET, "perry.spec": "1"},
            network="bridge",
            hostname=name,
            env=env,
            devices=("/dev/net/tun",),
            cap_add=("NET_ADMIN",),
            stop_seconds=0,
        )
        await self.engine.ensure_container(spec)
        await self.engine.start(spec.name)
        await self.run(spec.name, "until tailscale status --json >/dev/null 2>&1; do sleep 0.05; done")
        return spec.name

    async def container_of(self, name: str) -> str:
        """The one container of a device that was made with this name."""
        prefix = f"{self.instance}-{name}-"
        (found,) = [one.name for one in await self.engine.containers(self.labels) if one.name.startswith(prefix)]
        return found

    async def run(self, container: str, script: str) -> int:
        """Exit code of a shell script that ends within 30 s, or is ended."""
        return (await self.engine.exec(container, ["timeout", "30", "sh", "-c", script])).exit_code

    async def go_away(self) -> None:
        await self.engine.stop(self.coordinator, 0)

    async def come_back(self) -> None:
        pass

    async def close(self) -> None:
        for container in await self.engine.containers(self.labels):
            await self.engine.remove_container(container.id)
        for volume in await self.engine.volumes(self.labels):
            await self.engine.remove_volume(volume.name)
        await self.tailnet.close()
        await self.engine.close()


def free_port() -> int:
    """Free for TCP and UDP on all of this machine's addresses, and outside of the range that others get theirs from."""
    while True:
        port = 20000 + secrets.randbelow(10000)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("", port))
                udp.bind(("", port))
            except OSError:
                continue
            return port


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
