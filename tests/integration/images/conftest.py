"""Real workspaces of the real image, each on a bridge of its own, and a client container beside them.

The machine needs nothing but Docker: ssh, its keys and everything else run in containers.
"""

import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.adapters.docker_engine.images import DockerImages
from controlplane.images.service import build_images
from controlplane.ports import ContainerSpec, ExecOutput, File, NetworkSpec, VolumeMount

IMAGE = "perry/workspace-base:latest"
DEVICE = "perry/device:latest"
CHECKOUT = Path(__file__).parents[3]
CERTIFICATES = Path("/usr/local/share/ca-certificates")

CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE")
UNCONFINED = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")

# A bridge with addresses of the tailnet's range stands in for the tailnet: sshd sees such a source address either way.
TAILNET_SUBNET = "100.127.213.0/28"
BRIDGE_SUBNET = "10.251.213.0/28"

SSH_OPTIONS = (
    "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR",
    "-o", "ConnectTimeout=5",
)  # fmt: skip


class Container:
    """A running container of the image."""

    def __init__(self, engine: DockerEngine, name: str) -> None:
        self.engine = engine
        self.name = name

    async def run(self, script: str, *, user: str = "root", limit: int = 1 << 20) -> ExecOutput:
        return await self.engine.exec(self.name, ["sh", "-c", script], user=user, limit=limit)

    async def out(self, script: str, *, user: str = "root") -> str:
        """Its output; a failure shows what it said."""
        done = await self.run(script, user=user)
        assert done.exit_code == 0, f"{script}: {done.stdout.decode()} {done.stderr.decode()}"
        return done.stdout.decode().strip()

    async def put(self, path: str, content: str, mode: int = 0o644) -> None:
        await self.engine.put_files(self.name, [File(path=path, content=content.encode(), mode=mode)])

    async def until(self, script: str, seconds: float = 15) -> str:
        """Its output once it succeeds."""
        with anyio.fail_after(seconds):
            while (done := await self.run(script)).exit_code != 0:  # noqa: ASYNC110 (nothing announces it)
                await anyio.sleep(0.05)
        return done.stdout.decode().strip()


class Client(Container):
    """Where ssh is started from. It holds the private key ``/tmp/key``."""

    async def ssh(self, target: str, command: str, *, key: bool = True, options: str = "") -> ExecOutput:
        how = "-i /tmp/key" if key else "-o IdentitiesOnly=yes -o IdentityFile=/dev/null"
        await self.put("/tmp/command", command)
        return await self.run(
            f'ssh -o BatchMode=yes {" ".join(SSH_OPTIONS)} {how} {options} {target} "$(cat /tmp/command)"'
        )


class Lab:
    """Makes containers, networks and volumes, and takes all of them away at the end."""

    def __init__(self, engine: DockerEngine) -> None:
        self.engine = engine
        self.prefix = f"img-{uuid.uuid4().hex[:6]}"
        self._undo = AsyncExitStack()

    async def network(self, name: str, subnet: str) -> str:
        full = f"{self.prefix}-{name}"
        await self.engine.ensure_network(
            NetworkSpec(name=full, subnet=subnet, interface=full[-15:], labels={"perry.instance": self.prefix})
        )
        self._undo.push_async_callback(self.engine.remove_network, full)
        return full

    async def volume(self, name: str) -> str:
        full = f"{self.prefix}-{name}"
        await self.engine.ensure_volume(full, {"perry.instance": self.prefix})
        self._undo.push_async_callback(self.engine.remove_volume, full)
        return full

    async def workspace(
        self,
        name: str,
        *,
        network: str | None,
        docker: bool = False,
        home: str | None = None,
        files: tuple[File, ...] = (),
    ) -> Container:
        full = f"{self.prefix}-{name}"
        volumes = [VolumeMount(home or await self.volume(f"{name}-home"), "/home/workspace")]
        if docker:
            volumes.append(VolumeMount(await self.volume(f"{name}-docker"), "/var/lib/docker"))
        spec = ContainerSpec(
            name=full,
            image=IMAGE,
            labels={"perry.instance": self.prefix, "perry.spec": uuid.uuid4().hex},
            network=network,
            hostname=name,
            env={"PERRY_WORKSPACE": name, "PERRY_DOCKER": "1" if docker else "0"},
            volumes=tuple(volumes),
            restart="on-failure",
            cap_add=CAPABILITIES if docker else (),
            security_opt=UNCONFINED if docker else (),
        )
        await self.engine.ensure_container(spec)
        self._undo.push_async_callback(self.engine.remove_container, full)
        if files:
            await self.engine.put_files(full, files)
        await self.engine.start(full)
        return Container(self.engine, full)

    async def client(self, name: str, network: str) -> Client:
        full = f"{self.prefix}-{name}"
        spec = ContainerSpec(
            name=full, image=IMAGE, labels={"perry.instance": self.prefix, "perry.role": "test"}, network=network
        )
        await self.engine.ensure_container(spec)
        self._undo.push_async_callback(self.engine.remove_container, full)
        await self.engine.start(full)
        client = Client(self.engine, full)
        await client.out("rm -f /tmp/key /tmp/key.pub; ssh-keygen -q -t ed25519 -N '' -f /tmp/key")
        return client

    async def device(self, name: str) -> Container:
        full = f"{self.prefix}-{name}"
        spec = ContainerSpec(
            name=full, image=DEVICE, labels={"perry.instance": self.prefix, "perry.role": "test"}, network="bridge"
        )
        await self.engine.ensure_container(spec)
        self._undo.push_async_callback(self.engine.remove_container, full)
        await self.engine.start(full)
        return Container(self.engine, full)

    async def close(self) -> None:
        await self._undo.aclose()


def added_certificates() -> dict[str, bytes]:
    """What the machine's administrator added to its trust."""
    return {path.name: path.read_bytes() for path in CERTIFICATES.glob("*.crt")}


def authorized(key: str) -> File:
    return File(path="/etc/perry/authorized_keys", content=key.encode() + b"\n")


@pytest.fixture(scope="module")
async def lab(anyio_backend: str) -> AsyncIterator[Lab]:
    """Of the image as the checkout has it: it is built first where it is stale."""
    engine = DockerEngine()
    await build_images(
        checkout=CHECKOUT,
        builder=DockerImages(engine.docker),
        certificates=added_certificates(),
        env=os.environ,
        report=lambda _: None,
        names=["workspace-base", "device"],
    )
    lab = Lab(engine)
    try:
        yield lab
    finally:
        await lab.close()
        await engine.close()
