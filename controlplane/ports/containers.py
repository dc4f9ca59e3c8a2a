"""What Docker's objects are made of, and how they stand: pure values, in our words."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec


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
