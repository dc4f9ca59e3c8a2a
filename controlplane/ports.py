"""What the control plane needs from outside systems, in its own words.

Each port has one real adapter at least (``controlplane/adapters``), a fake for unit tests (``tests/fakes``) and one
contract test that holds both to the same behaviour (``tests/contract``). Verbs are idempotent: what is asked for twice
succeeds twice, and removing what is gone succeeds.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import anyio
import msgspec

from protocol.worker import Event, Hello, Request, Result
from protocol.workspaces import WorkspaceWorker

# --- Docker ----------------------------------------------------------------------------------------------------------


class Role(StrEnum):
    """What a container is for (label ``perry.role``)."""

    WORKSPACE = "workspace"
    SANDBOX = "sandbox"
    TAILNET = "tailnet"
    GATEWAY = "gateway"
    COORDINATOR = "coordinator"
    HOST_RULES = "host-rules"
    COPIER = "copier"


class PortBinding(msgspec.Struct, frozen=True):
    """A TCP port of the container, published at an address of the machine."""

    container_port: int
    host_address: str
    host_port: int


class VolumeMount(msgspec.Struct, frozen=True):
    """A named volume at a path of the container; or a folder of the machine, where ``volume`` is its absolute path."""

    volume: str
    path: str
    read_only: bool = False


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that makes a container. Pure values: equal specs make equal containers.

    The namespace is one of: the bridge ``network``, that of another container (``network_of``, its name), or the
    machine's own (``host_network``). Hostname, DNS and ports belong to the owner of the namespace. Secrets never stand
    here: ``docker inspect`` shows all of it.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    """In place of the image's own, whose command then does not count either."""
    env: Mapping[str, str] = {}
    network: str | None = None
    network_of: str | None = None
    host_network: bool = False
    hostname: str | None = None
    dns: tuple[str, ...] = ()
    ports: tuple[PortBinding, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    devices: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = {}
    read_only: bool = False
    stdin: bool = False
    """Whether :meth:`Engine.send` can say something to it."""
    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    restart: str = "no"
    stop_seconds: int = 10


class NetworkSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A bridge. ``interface`` is its name on the machine, at most 15 characters."""

    name: str
    subnet: str
    interface: str
    labels: Mapping[str, str]


class ContainerState(msgspec.Struct, frozen=True, kw_only=True):
    """A container as it stands. ``network_of`` is the id of the container whose namespace it joined."""

    id: str
    name: str
    image: str
    labels: Mapping[str, str]
    running: bool
    status: str
    created: datetime
    started: datetime | None = None
    exit_code: int | None = None
    oom_killed: bool = False
    address: str | None = None
    network_of: str | None = None


class NetworkState(msgspec.Struct, frozen=True, kw_only=True):
    """A network as it stands."""

    name: str
    subnet: str | None
    gateway: str | None
    labels: Mapping[str, str]


class VolumeState(msgspec.Struct, frozen=True, kw_only=True):
    """A volume as it stands."""

    name: str
    labels: Mapping[str, str]


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file to put into a container, owned by ``uid``:``gid``. ``path`` is absolute."""

    path: str
    content: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What Docker says of itself."""

    version: str
    cgroup_version: str
    storage_driver: str
    cpus: int
    memory: int


class EngineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened to one of our objects: ``action`` as Docker names it (start, die, destroy, oom …)."""

    kind: str
    action: str
    name: str
    labels: Mapping[str, str]


class ExecOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished command left. Output above the bound that was asked for is cut."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a container's output. ``stream`` is ``stdout`` or ``stderr``; ``at`` is Docker's RFC 3339 time."""

    at: str
    stream: str
    text: str


class Process(Protocol):
    """A command that runs in a container, with its streams. Errors are EngineErrors."""

    async def read(self) -> tuple[str, bytes] | None:
        """(``stdout`` or ``stderr``, bytes), None at the end. While nobody reads, the command waits: nothing piles up.

        With a terminal all is ``stdout``.
        """

    async def write(self, data: bytes) -> None:
        """To its stdin; waits while the command does not read. What a command no longer reads is dropped."""

    async def end_input(self) -> None:
        """Close its stdin. With a terminal this does nothing."""

    async def resize(self, columns: int, rows: int) -> None:
        """Its terminal has another size."""

    async def exit_code(self) -> int | None:
        """None while it runs. 128 and more after a signal."""


class Engine(Protocol):
    """Docker. Errors are :class:`~controlplane.errors.EngineError` and its kind."""

    async def close(self) -> None: ...

    async def info(self) -> EngineInfo:
        """Raises EngineUnavailable with what to do when Docker does not answer."""

    async def image_id(self, image: str) -> str | None:
        """The id of a local image, None where it is missing."""

    async def labels_of(self, image: str) -> Mapping[str, str] | None:
        """The labels of a local image, which its containers have too; None where it is missing."""

    async def read_folder(self, image: str, path: str) -> bytes:
        """A folder of an image as a tar, whose names begin with the folder's own. ImageMissing; EngineError."""

    async def ensure_network(self, spec: NetworkSpec) -> None:
        """EngineConflict where the subnet overlaps another network's."""

    async def remove_network(self, name: str) -> None: ...

    async def networks(self, labels: Mapping[str, str]) -> list[NetworkState]: ...

    async def subnets_in_use(self) -> list[str]:
        """The subnets of all of Docker's networks, ours and others'."""

    async def ensure_volume(self, name: str, labels: Mapping[str, str]) -> None: ...

    async def remove_volume(self, name: str) -> None: ...

    async def volumes(self, labels: Mapping[str, str]) -> list[VolumeState]: ...

    async def ensure_container(self, spec: ContainerSpec) -> str:
        """Its id. A container of that name with the same ``perry.spec`` label is kept, another is replaced."""

    async def start(self, container: str) -> None: ...

    async def stop(self, container: str, seconds: int = 10) -> None: ...

    async def signal(self, container: str, signal: str) -> None: ...

    async def pause(self, container: str) -> None:
        """Freeze all that runs in it; commands cannot be run then. EngineConflict where it does not run."""

    async def unpause(self, container: str) -> None:
        """Let it go on. Succeeds where it is not frozen, or not there."""

    async def remove_container(self, container: str) -> None:
        """By force; volumes stay."""

    async def commit(self, container: str, image: str, labels: Mapping[str, str]) -> None:
        """Make an image, ``name:tag``, of the container's own file system, without what is in its volumes.

        It gets the container's configuration, with ``labels`` above the container's own. A container that runs is not
        frozen meanwhile; freeze it where that matters.
        """

    async def remove_images(self, labels: Mapping[str, str]) -> None:
        """Those that carry all of ``labels``. What something still uses stays."""

    async def inspect(self, container: str) -> ContainerState | None:
        """None where there is none. One that is frozen counts as running; its status is ``paused``."""

    async def containers(self, labels: Mapping[str, str]) -> list[ContainerState]:
        """Running or not. ``address`` and ``network_of`` may be absent here; ``inspect`` has them."""

    async def send(self, container: str, data: bytes) -> None:
        """Put bytes on the standard input of a container that runs. Its spec has ``stdin``, or they are lost."""

    async def put_files(self, container: str, files: Sequence[File]) -> None:
        """Into a created container, running or not, volumes included. Not atomic.

        The deepest folder that has all of them must exist; folders below it are made, and belong to root.
        """

    async def put_archive(self, container: str, folder: str, archive: bytes) -> None:
        """Unpack a tar, gzipped or not, in a folder that exists. Not atomic."""

    async def exec(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str = "root",
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: AsyncIterator[bytes] | None = None,
        limit: int = 1 << 20,
    ) -> ExecOutput:
        """Run a command to its end. Cancelling the call does not end it; wrap it in ``timeout`` where it must end."""

    def exec_stream(
        self, container: str, command: Sequence[str], *, user: str = "root", cwd: str | None = None
    ) -> AsyncIterator[tuple[str, bytes]]:
        """Pairs of (``stdout`` or ``stderr``, bytes), at last (``exit``, the decimal exit code)."""

    def process(
        self,
        container: str,
        command: Sequence[str],
        *,
        user: str = "root",
        env: Mapping[str, str] | None = None,
        tty: bool = False,
    ) -> AbstractAsyncContextManager[Process]:
        """Start a command, the leader of a session of its own. Leaving the block closes its streams, and ends nothing.

        A command that cannot be started says so in its output, and has an exit code.
        """

    async def run_once(self, spec: ContainerSpec, *, seconds: float = 30) -> ExecOutput:
        """Create, run to its end, remove."""

    async def logs(self, container: str, *, tail: int, since: str | None = None) -> list[LogEntry]: ...

    def follow_logs(self, container: str, *, since: str | None = None) -> AsyncIterator[LogEntry]:
        """Lines after ``since``, and new ones as they come; each stream in its order. Ends when the container stops."""

    def follow_stdout(self, container: str) -> AsyncIterator[str]:
        """Lines of stdout from the container's latest start on, and new ones as they come; ends when it stops."""

    def events(self, labels: Mapping[str, str]) -> AsyncIterator[EngineEvent]:
        """Ends with EngineUnavailable when Docker goes away."""


class ImageState(msgspec.Struct, frozen=True, kw_only=True):
    """A local image. ``size`` is in bytes."""

    id: str
    labels: Mapping[str, str]
    size: int


class ImageBuilder(Protocol):
    """Docker's half of building images. Errors are :class:`~controlplane.errors.EngineError` and its kind."""

    async def image(self, tag: str) -> ImageState | None:
        """None where it is missing."""

    async def pull(self, reference: str, *, patience: float) -> bool:
        """Whether a registry had it. A registry that says nothing for ``patience`` seconds has not."""

    async def import_rootfs(self, tag: str, tarball: Path) -> None:
        """Make an image of one layer out of a root file system."""

    async def build(
        self,
        tag: str,
        context: bytes,
        *,
        args: Mapping[str, str],
        labels: Mapping[str, str],
        no_cache: bool,
        line: Callable[[str], None],
    ) -> None:
        """Build a tar with a Dockerfile. ``line`` hears what it says; the error's message tells why it failed."""


# --- the tailnet -----------------------------------------------------------------------------------------------------


class AuthKey(msgspec.Struct, frozen=True, kw_only=True):
    """A one-time key. ``id`` revokes it. ``expires`` is None where the provider does not tell."""

    id: str
    secret: str
    expires: datetime | None

    def __repr__(self) -> str:
        return f"AuthKey(id={self.id!r})"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A device on the tailnet. ``name`` is its first DNS label."""

    id: str
    name: str
    ips: tuple[str, ...]
    online: bool
    tags: tuple[str, ...]
    user: str | None = None
    expired: bool = False


WORKSPACE_TAG = "tag:perry-workspace"
"""Every workspace's node has it, and no device of a person."""

GATEWAY_TAG = "tag:perry-gateway"
"""The node of the control plane itself has it."""


def is_node_of(node: Node | None, workspace: str) -> bool:
    """Whether a node is this workspace's. Ids do not tell: a coordinator that lost its memory counts from 1 again.

    Where the name was taken, a coordinator appends a number to it.
    """
    if node is None or WORKSPACE_TAG not in node.tags:
        return False
    head, _, number = node.name.rpartition("-")
    return node.name == workspace or (head == workspace and number.isdigit())


class TailnetInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How the tailnet stands. ``error`` is a sentence that says what to do when not ready.

    ``control_url`` is what people give their devices. ``warning`` is what they have to know although it is ready,
    ``join_notes`` what those who join a device have to. ``credential`` names what the coordinator is asked with, and
    its kind; it holds no secret.
    """

    provider: str
    ready: bool
    control_url: str | None
    domain: str | None
    owners: tuple[str, ...]
    error: str | None = None
    warning: str | None = None
    join_notes: tuple[str, ...] = ()
    credential: str | None = None
    credential_expires: datetime | None = None


class Tailnet(Protocol):
    """The coordinator of a tailnet. Errors are :class:`~controlplane.errors.TailnetError` and its kind."""

    @property
    def provider(self) -> str: ...

    @property
    def joins(self) -> bool:
        """False where there is no tailnet: no key is minted, sidecars only guard the border."""

    @property
    def identity(self) -> str:
        """Tells tailnets apart, over restarts: ids of nodes and keys mean something within one of them alone."""

    @property
    def manages(self) -> bool:
        """False where the credential only lets devices in: ``nodes`` is empty then, and ``node`` a TailnetError."""

    @property
    def control_url(self) -> str | None:
        """What workspaces and the gateway are told, which may be an address that only this machine's pods reach;
        None for the provider's own default."""

    async def ensure(self) -> None:
        """Bring up or check the coordinator. Safe to call again at any time."""

    async def close(self) -> None: ...

    async def remove(self) -> None:
        """Take away what ``ensure`` made on this machine, volumes included."""

    async def info(self) -> TailnetInfo: ...

    async def mint_workspace_key(self, *, seconds: int = 600) -> AuthKey:
        """Tagged WORKSPACE_TAG; one-off, unless the credential itself is a key that is handed out."""

    async def mint_gateway_key(self, *, seconds: int = 600) -> AuthKey:
        """The same, tagged GATEWAY_TAG."""

    async def mint_device_key(self, *, seconds: int = 3600) -> AuthKey:
        """One-off and untagged: a device of the owner. NotReady where devices join otherwise; it says how."""

    async def revoke_key(self, key_id: str) -> None: ...

    async def nodes(self) -> list[Node]: ...

    async def node(self, node_id: str) -> Node | None: ...

    async def delete_node(self, node_id: str) -> None: ...

    async def users(self) -> list[str] | None:
        """Log-in names of the people on it, spelt as WhoIs spells them; None where the credential may not ask."""

    async def unused_keys(self) -> list[str] | None:
        """Ids of the workspaces' keys that can still be used; None where the provider cannot tell ours from others'."""


# --- the workers inside workspaces ------------------------------------------------------------------------------------


class WorkerLink(Protocol):
    """An open stream to one workspace's worker. Errors are :class:`~controlplane.errors.WorkerError` and its kind.

    What comes out of it is within the bounds of :mod:`protocol.worker`, and otherwise as hostile as a workspace is.
    """

    @property
    def hello(self) -> Hello: ...

    def events(self) -> AsyncIterator[Event]:
        """As they come. While nobody reads, the worker waits. Ends with WorkerUnavailable when the stream breaks."""

    async def ask(self, request: Request) -> Result:
        """Its answer, which is of the kind that the request names. A refusal is a WorkerError, with its sentence."""


class Workers(Protocol):
    """Opens streams to workers."""

    def dial(
        self, address: str, secret: str, *, epoch: str | None = None, after: int | None = None
    ) -> AbstractAsyncContextManager[WorkerLink]:
        """WorkerUnavailable where none answers, WorkerError where it does not take the secret or speaks otherwise."""


class WorkerKeeper(Protocol):
    """Sees to it that each workspace has a worker, and that its stream stands."""

    def files(self, workspace: str) -> Sequence[File]:
        """What its container is given before it starts."""

    async def attend(
        self, workspace: str, container: ContainerState, address: str | None, enough: anyio.Event
    ) -> str | None:
        """Put the right worker in place where another is, and return when its stream stands. For a workspace that has
        just been started; ``address`` is its pod's. What is worth saying; PerryError where it cannot be.

        Once ``enough`` is set, the right one that is only coming up is not waited for.
        """

    def shown(self, workspace: str) -> WorkspaceWorker | None:
        """How its worker stands; None where nobody looks after it."""


class WorkerFollower(Protocol):
    """A feature that hears what every workspace's worker tells. Called on the event loop; nothing here waits."""

    def attached(self, workspace: str, link: WorkerLink) -> None:
        """A stream stands. Unless ``link.hello.resumed``, every session is told anew, then SnapshotEnd."""

    def told(self, workspace: str, event: Event) -> None: ...

    def detached(self, workspace: str) -> None:
        """The stream broke, or the workspace stopped. What was asked on its link fails by itself."""

    def deleted(self, workspace: str) -> None:
        """The workspace is gone for good."""


# --- whoever waits ---------------------------------------------------------------------------------------------------


class Waker(Protocol):
    """Takes a wake for whoever waits, for good; see :mod:`controlplane.wake`. What follows is the outbox's."""

    async def wake(
        self,
        text: str,
        *,
        mode: str = "now",
        session: str = "main",
        workspace: str | None = None,
        task: str | None = None,
        id: str | None = None,
    ) -> str:
        """The wake's id, once it is on the disk. A known ``id`` is the same wake. InvalidInput for an empty text;
        TooMany where far too many wait."""


# --- this machine ----------------------------------------------------------------------------------------------------


class Machine(Protocol):
    """The machine that the control plane runs on."""

    def port_is_free(self, address: str, port: int) -> bool:
        """Whether a TCP port could be bound now."""

    def has_tun(self) -> bool:
        """Whether it has /dev/net/tun. Without it sidecars fall back to a network stack of their own."""

    def own_tailnet_addresses(self) -> tuple[str, ...]:
        """Addresses of this machine on a tailnet of its own (interface ``tailscale0`` or in 100.64.0.0/10)."""

    def upstream_dns(self) -> tuple[str, ...]:
        """Name servers that containers can reach; loopback ones are left out."""

    def added_ca_certificates(self) -> Mapping[str, bytes]:
        """File name to PEM of what the administrator added to the system's trust."""

    def authorized_keys(self) -> Sequence[str]:
        """Public keys that may log in to every workspace: those of the settings, and the control plane's own."""

    async def ssh_answers(self, address: str, port: int) -> bool:
        """Whether an ssh server sends its banner there."""


class Provisions(Protocol):
    """What the person's workspaces are given: credentials, settings, scripts."""

    async def bring(self, container: str, name: str) -> str | None:
        """Credentials and settings, before the clone. What is worth saying; PerryError where something failed."""

    async def prepare(self, container: str, name: str, progress: Callable[[str], None]) -> bool:
        """The person's own scripts, after the clone. False where there are none; PerryError where one failed."""


class Uploads(Protocol):
    """Bodies that a client sent ahead (git bundles)."""

    def path(self, upload_id: str) -> Path | None:
        """Where a complete upload lies; None where there is none."""

    def discard(self, upload_id: str) -> None: ...
