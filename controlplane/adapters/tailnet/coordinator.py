"""The container of the embedded coordinator: what it is made of, and that it runs where it should."""

import hashlib
import ipaddress
import logging

import msgspec

from controlplane.adapters.tailnet.headscale_config import CONFIG_FILE, STATE, config, environment
from controlplane.adapters.tailnet.placement import Placement, checked, is_own, own_address, place, udp_is_free
from controlplane.errors import ContainerStuck, TailnetUnavailable
from controlplane.ports import ContainerSpec, ContainerState, Engine, File, Machine, Role, VolumeMount

log = logging.getLogger(__name__)

UID = 65532
"""Of the image's user: it has the machine's network, and need not be root there."""

KEY_LIFETIME = "2160h"
MEMORY = 512 * 1024 * 1024
GO_MEMORY = "384MiB"

DOCKER_BRIDGE = "bridge"
USUAL_GATEWAY = "172.17.0.1"

ADDRESS_LABEL = "perry.address"
"""The outer address, so that a new control plane keeps it."""


class Coordinator:
    """``address`` empty is that by which this machine reaches others. Raises what the engine does, too."""

    def __init__(
        self, engine: Engine, machine: Machine, *, instance: str, image: str, address: str, port: int, domain: str
    ) -> None:
        self.name = f"{instance}-coordinator"
        self._engine = engine
        self._machine = machine
        self._instance = instance
        self._image = image
        self._address = checked(address)
        self._port = port
        self._domain = domain
        self.placement = self._place(None, USUAL_GATEWAY)

    def url(self, host: str) -> str:
        return f"http://{host}:{self._port}"

    async def run(self) -> bool:
        """Have it run, where and as it should. Whether it was started for that."""
        present = await self._engine.inspect(self.name)
        self.placement = self._place(present, await self._bridge())
        spec = self._spec()
        if present is not None and present.running:
            if present.labels.get("perry.spec") == spec.labels["perry.spec"]:
                return False
        else:
            self._check_ports()
        if await self._engine.image_id(self._image) is None:
            raise TailnetUnavailable(f"The image {self._image} is not on this machine; `perry agent build` builds it.")
        await self._engine.ensure_volume(self.name, self._labels())
        await self._create(spec)
        try:
            await self._engine.start(self.name)
        except ContainerStuck:
            # All that matters is on the volume, so the container is made anew.
            await self._engine.remove_container(self.name)
            await self._create(spec)
            await self._engine.start(self.name)
        log.info("started the coordinator; devices reach it at %s", self.url(self.placement.devices))
        return True

    async def _create(self, spec: ContainerSpec) -> None:
        await self._engine.ensure_container(spec)
        told = File(path=CONFIG_FILE, content=self._config().encode(), mode=0o600, uid=UID, gid=UID)
        await self._engine.put_files(self.name, [told])

    async def why_silent(self) -> str | None:
        """Why it will never answer; None where it still may."""
        present = await self._engine.inspect(self.name)
        if present is not None and (present.running or present.status == "restarting"):
            return None
        return f"The coordinator ended as soon as it started; `docker logs {self.name}` has its reasons."

    async def new_key(self) -> str:
        """An API key, made by its own command, by way of its socket; nobody outside can ask for the first."""
        command = ["headscale", "-c", CONFIG_FILE, "apikeys", "create", "--expiration", KEY_LIFETIME]
        output = await self._engine.exec(self.name, command, user=str(UID), limit=1 << 14)
        words = output.stdout.decode(errors="replace").split()
        if output.exit_code != 0 or not words:
            said = output.stderr.decode(errors="replace").strip()[-300:]
            raise TailnetUnavailable(f"The coordinator gave no API key: {said or 'it did not say why'}")
        return words[-1]

    async def remove(self) -> None:
        """With all that it knows."""
        await self._engine.remove_container(self.name)
        await self._engine.remove_volume(self.name)

    async def _bridge(self) -> str | None:
        """This machine's address on Docker's own bridge; None where that is switched off."""
        for network in await self._engine.networks({}):
            if network.name == DOCKER_BRIDGE and network.subnet is not None:
                # Docker 20.10 names no gateway that nobody configured; it takes the first address.
                gateway = network.gateway or str(ipaddress.IPv4Network(network.subnet)[1])
                return gateway if is_own(gateway) else None
        return None

    def _place(self, present: ContainerState | None, bridge: str | None) -> Placement:
        kept = present.labels.get(ADDRESS_LABEL) if present is not None else None
        return place(self._address, kept=kept, found=own_address(), bridge=bridge, is_own=is_own)

    def _check_ports(self) -> None:
        placed = self.placement
        addresses = [placed.listen] if placed.also is None else [placed.listen, placed.also]
        for address in addresses:
            if not self._machine.port_is_free(address, self._port):
                raise _taken("TCP", address, self._port)
        if not udp_is_free(placed.outer, self._port):
            raise _taken("UDP", placed.outer, self._port)

    def _config(self) -> str:
        return config(self.placement, port=self._port, domain=self._domain)

    def _labels(self) -> dict[str, str]:
        return {"perry.instance": self._instance, "perry.role": Role.COORDINATOR}

    def _spec(self) -> ContainerSpec:
        spec = ContainerSpec(
            name=self.name,
            image=self._image,
            labels={ADDRESS_LABEL: self.placement.outer},
            command=("serve",),
            env={"GOMEMLIMIT": GO_MEMORY, **environment(self.placement, port=self._port)},
            host_network=True,
            volumes=(VolumeMount(self.name, STATE),),
            cap_drop=("ALL",),
            security_opt=("no-new-privileges",),
            read_only=True,
            memory=MEMORY,
            pids=256,
            restart="unless-stopped",
            stop_seconds=3,
        )
        digest = hashlib.sha256(msgspec.json.encode(spec, order="deterministic") + self._config().encode())
        labels = {**spec.labels, **self._labels(), "perry.spec": digest.hexdigest()[:16]}
        return msgspec.structs.replace(spec, labels=labels)


def _taken(protocol: str, address: str, port: int) -> TailnetUnavailable:
    return TailnetUnavailable(
        f"{protocol} port {port} of {address} is taken, so the embedded coordinator cannot start; "
        "free it, or set tailnet.port in config.json."
    )
