"""What a workspace is made of: names, labels, containers, addresses. Pure."""

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping

import msgspec

from controlplane.errors import Conflict, InvalidInput
from controlplane.ports import WORKSPACE_TAG, ContainerSpec, NetworkSpec, PortBinding, Role, VolumeMount
from protocol.wire import RESERVED_NAMES, WORKSPACE_NAME_PATTERN
from protocol.workspaces import Limits

WIREGUARD_PORT = 41641
WORKER_PORT = 7392

HOME = "/home/workspace"
RUN_FOLDER = "/run/perry"
SIDECAR_STATE = "/var/lib/perry"
OWN_FOLDER = "/etc/perry"
"""What Perry puts into a workspace that only it may know. A volume, so that no image of the container has it."""
AUTHORIZED_KEYS_FILE = f"{OWN_FOLDER}/authorized_keys"
KNOWN_HOSTS_FILE = "/etc/ssh/ssh_known_hosts2"
"""Read by ssh after the image's own list."""
CA_FOLDER = "/usr/local/share/ca-certificates"
HOST_KEY_FILE = f"{HOME}/.perry/sshd/ssh_host_ed25519_key.pub"

SIDECAR_MEMORY = 384 * 1024 * 1024
SIDECAR_GO_MEMORY = 192 * 1024 * 1024
"""Where Go's collector begins to work hard. Packets under way are buffers of 64 KiB for it, most of each never touched.
With 160 MiB it ran 230 times in 3.5 GB of iperf3 and took 7 % of the throughput, with 192 it runs 58 times, and 256 is
no faster (medians of 12 interleaved runs, two cores: 1.39, 1.49, 1.46 Gbit/s; stock tailscaled 1.53). The container
then holds some 95 MiB, 123 at most; tailscaled, which has no limit, comes to 140, 218 at most."""

DOCKER_CAPABILITIES = ("SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE")
DOCKER_SECURITY = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. Kept in state.db, and as a label so that it outlives state.db."""

    image: str
    docker: bool
    limits: Limits
    clone: str | None = None
    branch: str | None = None
    new_branch: str | None = None
    origin: str | None = None
    cloned: bool = False
    """The repository came once. Were it to come again with each start, a folder that its owner moved would return."""
    source: str | None = None
    """The workspace that this becomes a copy of; None once it is one."""
    made_for: str | None = None
    """The task that it was made for; None where a person asked for it."""


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What is this workspace's alone on the machine."""

    name: str
    created: str
    ssh_port: int
    subnet: str


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """The label ``perry.claim``: enough to find the workspace again when state.db is lost."""

    reservation: Reservation
    request: Request
    key_id: str | None = None


class PodSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is the same for all pods of a control plane."""

    instance: str
    prefix: str
    sidecar_image: str
    ssh_bind: str
    dns: tuple[str, ...]
    joins: bool
    tailnet: str
    control_url: str
    owners: tuple[str, ...]
    refused_addresses: tuple[str, ...]
    tun: bool = True


class Names(msgspec.Struct, frozen=True):
    """The names of a workspace's Docker objects."""

    prefix: str
    name: str

    @property
    def workspace(self) -> str:
        return f"{self.prefix}{self.name}"

    @property
    def sandbox(self) -> str:
        return f"{self.prefix}{self.name}.net"

    @property
    def tailnet(self) -> str:
        return f"{self.prefix}{self.name}.tailnet"

    @property
    def containers(self) -> tuple[str, str, str]:
        """In the order in which they may be removed."""
        return (self.workspace, self.tailnet, self.sandbox)

    @property
    def network(self) -> str:
        return self.workspace

    @property
    def interface(self) -> str:
        """15 characters at most, and the same each time."""
        return "perry-" + hashlib.sha256(self.workspace.encode()).hexdigest()[:8]

    @property
    def home_volume(self) -> str:
        return f"{self.workspace}-home"

    @property
    def docker_volume(self) -> str:
        return f"{self.workspace}-docker"

    @property
    def tailnet_volume(self) -> str:
        return f"{self.workspace}-tailnet"

    @property
    def run_volume(self) -> str:
        return f"{self.workspace}-run"

    @property
    def own_volume(self) -> str:
        return f"{self.workspace}-etc"

    @property
    def volumes(self) -> tuple[str, ...]:
        return (self.home_volume, self.docker_volume, self.tailnet_volume, self.run_volume, self.own_volume)

    @property
    def copier(self) -> str:
        """The container that copies another workspace's volumes into this one's."""
        return f"{self.workspace}.copier"

    @property
    def image(self) -> str:
        """Of a copy: what was installed in the other workspace's container."""
        return f"{self.workspace}:clone"

    @property
    def kept_image(self) -> str:
        """What was installed in its own container before that had to be made anew."""
        return f"{self.workspace}:kept"


def valid_name(name: str) -> str:
    """The name, or InvalidInput with what is wrong with it."""
    if not WORKSPACE_NAME_PATTERN.fullmatch(name):
        raise InvalidInput(
            f"{name[:80]!r} is no workspace name; use up to 63 lower-case letters, digits and hyphens, "
            "a letter first and no hyphen last."
        )
    if name in RESERVED_NAMES:
        raise InvalidInput(f"The name {name!r} is Perry's own; choose another.")
    return name


def instance_labels(instance: str) -> dict[str, str]:
    """The labels that all objects of a control plane carry, as a filter."""
    return {"perry.instance": instance}


def workspace_labels(instance: str, name: str) -> dict[str, str]:
    """The labels that all objects of a workspace carry."""
    return {"perry.instance": instance, "perry.workspace": name}


def free_subnet(pool: str, taken: Iterable[str]) -> str:
    """The first /28 of the pool that overlaps nothing taken. Conflict where there is none."""
    others = [ipaddress.ip_network(subnet) for subnet in taken]
    for candidate in ipaddress.ip_network(pool).subnets(new_prefix=28):
        if not any(candidate.version == other.version and candidate.overlaps(other) for other in others):
            return str(candidate)
    raise Conflict(f"All addresses of network.pool ({pool}) are taken; delete a workspace or give it a larger pool.")


class PodSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that Docker is asked for, for one workspace."""

    names: Names
    network: NetworkSpec
    volumes: Mapping[str, Mapping[str, str]]
    sandbox: ContainerSpec
    tailnet: ContainerSpec
    workspace: ContainerSpec


def pod_spec(settings: PodSettings, reservation: Reservation, request: Request) -> PodSpec:
    """The pod of a workspace. Equal inputs give equal specs, with equal ``perry.spec`` labels."""
    names = Names(settings.prefix, reservation.name)
    labels = workspace_labels(settings.instance, reservation.name)
    claim = msgspec.json.encode(Claim(reservation=reservation, request=request)).decode()
    network = NetworkSpec(
        name=names.network,
        subnet=reservation.subnet,
        interface=names.interface,
        labels={**labels, "perry.claim": claim},
    )
    volumes = {name: labels for name in names.volumes if request.docker or name != names.docker_volume}
    volumes[names.home_volume] = {**labels, "perry.claim": claim}
    return PodSpec(
        names=names,
        network=network,
        volumes=volumes,
        sandbox=_sealed(_sandbox(settings, names, reservation), labels, Role.SANDBOX),
        tailnet=_sealed(_sidecar(settings, names, reservation), labels, Role.TAILNET),
        workspace=_sealed(_workspace(names, reservation, request), {**labels, "perry.claim": claim}, Role.WORKSPACE),
    )


def _sandbox(settings: PodSettings, names: Names, reservation: Reservation) -> ContainerSpec:
    return ContainerSpec(
        name=names.sandbox,
        image=settings.sidecar_image,
        labels={},
        # It raises the border, and is a mere sandbox from then on.
        command=("border",),
        network=names.network,
        env=_border(),
        hostname=reservation.name,
        # The sidecar's stub answers for the tailnet and refuses the rest at once, so that Docker asks the next.
        dns=("127.0.0.53", *settings.dns[:2]),
        ports=(PortBinding(22, settings.ssh_bind, reservation.ssh_port),),
        sysctls={"net.ipv6.conf.all.disable_ipv6": "0"},
        cap_drop=("ALL",),
        cap_add=("NET_ADMIN",),
        security_opt=("no-new-privileges",),
        read_only=True,
        pids=64,
        restart="unless-stopped",
        stop_seconds=1,
    )


def _border() -> dict[str, str]:
    """What may enter a pod."""
    return {
        "PERRY_WIREGUARD_PORT": str(WIREGUARD_PORT),
        "PERRY_WORKER_PORT": str(WORKER_PORT),
        "PERRY_SSH_PORT": "22",
    }


def _sidecar(settings: PodSettings, names: Names, reservation: Reservation) -> ContainerSpec:
    return ContainerSpec(
        name=names.tailnet,
        image=settings.sidecar_image,
        labels={},
        command=("workspace",),
        network_of=names.sandbox,
        env={
            "PERRY_HOSTNAME": reservation.name,
            "PERRY_TAILNET": "join" if settings.joins else "none",
            "PERRY_TAILNET_ID": settings.tailnet,
            "PERRY_REQUIRED_TAG": WORKSPACE_TAG,
            "PERRY_CONTROL_URL": settings.control_url,
            "PERRY_STATE_DIR": SIDECAR_STATE,
            "PERRY_RUN_DIR": RUN_FOLDER,
            "PERRY_OWNERS": ",".join(settings.owners),
            "PERRY_REFUSED_ADDRESSES": ",".join(settings.refused_addresses),
            **_border(),
            "PERRY_TUN": "auto" if settings.tun else "off",
            "GOMEMLIMIT": f"{SIDECAR_GO_MEMORY >> 20}MiB",
        },
        volumes=(VolumeMount(names.tailnet_volume, SIDECAR_STATE), VolumeMount(names.run_volume, RUN_FOLDER)),
        devices=("/dev/net/tun",) if settings.tun else (),
        cap_drop=("ALL",),
        cap_add=("NET_ADMIN",),
        security_opt=("no-new-privileges",),
        read_only=True,
        stdin=True,
        memory=SIDECAR_MEMORY,
        pids=256,
        restart="on-failure",
        stop_seconds=3,
    )


def _workspace(names: Names, reservation: Reservation, request: Request) -> ContainerSpec:
    home = VolumeMount(names.home_volume, HOME)
    run = VolumeMount(names.run_volume, RUN_FOLDER, read_only=True)
    own = VolumeMount(names.own_volume, OWN_FOLDER)
    docker = VolumeMount(names.docker_volume, "/var/lib/docker")
    return ContainerSpec(
        name=names.workspace,
        image=request.image,
        labels={},
        network_of=names.sandbox,
        env={"PERRY_WORKSPACE": reservation.name, "PERRY_DOCKER": "1" if request.docker else "0"},
        volumes=(home, run, own, docker) if request.docker else (home, run, own),
        cap_add=DOCKER_CAPABILITIES if request.docker else (),
        security_opt=DOCKER_SECURITY if request.docker else (),
        memory=request.limits.memory,
        cpus=request.limits.cpus,
        pids=request.limits.pids,
        restart="on-failure",
        stop_seconds=10,
    )


def _sealed(spec: ContainerSpec, labels: Mapping[str, str], role: Role) -> ContainerSpec:
    """The spec with its labels, one of which is the hash of all the rest. The claim takes no part in it."""
    digest = hashlib.sha256(msgspec.json.encode(spec, order="deterministic")).hexdigest()[:16]
    return msgspec.structs.replace(spec, labels={**labels, "perry.role": role, "perry.spec": digest})


def default_limits(cpus: float, memory: int, pids: int, machine_cpus: int, machine_memory: int) -> Limits:
    """Configured limits; 0 leaves a tenth of the CPUs and a quarter of the memory to the machine and the others."""
    return Limits(cpus=cpus or round(machine_cpus * 0.9, 2), memory=memory or machine_memory * 3 // 4, pids=pids)
