"""Tailnets to hold to the contract, and devices that join them."""

import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from pathlib import Path

import anyio

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.adapters.machine import LocalMachine
from controlplane.adapters.tailnet import EmbeddedTailnet, HeadscaleTailnet
from controlplane.adapters.tailnet.tailscale import TailscaleTailnet
from controlplane.ports import ContainerSpec, Node, Role, Tailnet
from tests.contract.tailnet.their_headscale import TheirHeadscale
from tests.contract.tailnet.their_tailscale import TheirTailscale
from tests.fakes.tailnet import FakeTailnet


class Bench(ABC):
    """A tailnet, with hands to do what its nodes and its machine do."""

    tailnet: Tailnet
    is_perrys = True
    """The coordinator is Perry's own: the fake and the embedded one. Else it is a person's."""
    domain: str | None = "perry.internal"
    file = Path()
    """With the credential, where there is one."""

    async def start(self) -> None:  # noqa: B027 - most have nothing to do
        """What comes before ``ensure``."""

    @abstractmethod
    async def join(self, name: str, secret: str) -> bool:
        """A new device of that name comes with a key. Whether it got in."""

    async def join_as_person(self, name: str) -> str:
        """A new device of a person, who logs in as people do there; the log-in name."""
        assert await self.join(name, (await self.tailnet.mint_device_key()).secret)
        return "owner"

    async def unused_keys(self, otherwise: list[str]) -> list[str]:
        """What the tailnet says; ``otherwise`` where it is a person's, which does not tell whose a key is."""
        found = await self.tailnet.unused_keys()
        assert (found is not None) is self.is_perrys
        return otherwise if found is None else found

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


class DockerBench(Bench):
    """Stock tailscale clients, and a coordinator that is a container. Everything has the label of its instance."""

    def __init__(self) -> None:
        self.engine = DockerEngine()
        self.instance = f"contract-{secrets.token_hex(3)}"
        self.labels = {"perry.instance": self.instance}
        self.coordinator = f"{self.instance}-coordinator"

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


class EmbeddedBench(DockerBench):
    """The embedded tailnet."""

    def __init__(self, folder: Path, *, address: str = "", port: int | None = None) -> None:
        super().__init__()
        self.folder = folder / "coordinator"
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


class HeadscaleBench(DockerBench):
    """A headscale that a person runs, with its users, and an API key in a file."""

    is_perrys = False
    domain = None

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.file = folder / "headscale-key"
        self.theirs = TheirHeadscale(self.instance, free_port())
        self.tailnet: HeadscaleTailnet = self.another()

    def another(self, *, owners: tuple[str, ...] = ("owner",)) -> HeadscaleTailnet:
        """The tailnet as a new control plane has it."""
        return HeadscaleTailnet(self.theirs.url, self.file.name, self.folder, owners=owners, pause=0.05)

    async def start(self) -> None:
        self.theirs.start()
        write_secret(self.file, self.theirs.api_key())

    async def come_back(self) -> None:
        await self.engine.start(self.coordinator)
        self.theirs.wait()


class TailscaleBench(Bench):
    """Tailscale's service, by a stand-in for its API. No device of it speaks the protocol of devices."""

    is_perrys = False
    domain = "tail1234.ts.net"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "credential"
        self.theirs = TheirTailscale(free_port())
        self.tailnet: TailscaleTailnet = self.another()

    async def start(self, secret: str | None = None) -> None:
        """With an OAuth client, unless another credential is given."""
        await self.theirs.appear()
        write_secret(self.file, secret or self.theirs.oauth_client())

    def another(self) -> TailscaleTailnet:
        """The tailnet as a new control plane has it."""
        return TailscaleTailnet("credential", self.folder, api=self.theirs.url, pause=0.01)

    async def join(self, name: str, secret: str) -> bool:
        return self.theirs.join(name, secret)

    async def join_as_person(self, name: str) -> str:
        self.theirs.join_as_person(name)
        return "owner@example.com"

    async def go_away(self) -> None:
        await self.theirs.vanish()

    async def come_back(self) -> None:
        await self.theirs.appear()

    async def close(self) -> None:
        await self.tailnet.close()
        await self.theirs.vanish()


def write_secret(file: Path, text: str) -> None:
    """A file for its owner alone."""
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(text + "\n")


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
