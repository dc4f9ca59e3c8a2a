"""Our specs as the bodies that Docker's API takes, and its answers as our states. Pure."""

import io
import os
import tarfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from controlplane.ports import ContainerSpec, ContainerState, File, NetworkSpec

NEVER = "0001-01-01T00:00:00Z"

LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}
"""Named for every container: a machine's default may be a driver whose logs cannot be read back."""


def container_body(spec: ContainerSpec) -> dict[str, Any]:
    """The body of ``POST /containers/create``."""
    host: dict[str, Any] = {
        "LogConfig": LOG_CONFIG,
        "RestartPolicy": {"Name": spec.restart},
        "CapDrop": list(spec.cap_drop),
        "CapAdd": list(spec.cap_add),
        "SecurityOpt": [option for option in spec.security_opt if option != "systempaths=unconfined"],
        "ReadonlyRootfs": spec.read_only,
        "Sysctls": dict(spec.sysctls),
        "Dns": list(spec.dns),
        "Binds": [
            f"{mount.volume}:{mount.path}" + (":ro" if mount.read_only else "")
            for mount in spec.volumes
            if not mount.volume.startswith("/")
        ],
        # Unlike a bind, this refuses a folder that is not there, where Docker would make an empty one of root's.
        "Mounts": [
            {"Type": "bind", "Source": mount.volume, "Target": mount.path, "ReadOnly": mount.read_only}
            for mount in spec.volumes
            if mount.volume.startswith("/")
        ],
        "Devices": [{"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"} for path in spec.devices],
    }
    if "systempaths=unconfined" in spec.security_opt:
        # The CLI's word for two empty lists; the API knows only the lists.
        host["MaskedPaths"] = []
        host["ReadonlyPaths"] = []
    if spec.memory:
        host["Memory"] = spec.memory
        host["MemorySwap"] = spec.memory
    if spec.cpus:
        host["NanoCpus"] = round(spec.cpus * 1_000_000_000)
    if spec.pids:
        host["PidsLimit"] = spec.pids
    body: dict[str, Any] = {
        "Image": spec.image,
        "Labels": dict(spec.labels),
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "StopTimeout": spec.stop_seconds,
        "HostConfig": host,
    }
    if spec.stdin:
        body["OpenStdin"] = True
    if spec.entrypoint:
        body["Entrypoint"] = list(spec.entrypoint)
    if spec.command:
        body["Cmd"] = list(spec.command)
    if spec.network_of is not None:
        host["NetworkMode"] = f"container:{spec.network_of}"
    elif spec.host_network:
        host["NetworkMode"] = "host"
    else:
        host["NetworkMode"] = spec.network or "none"
        if spec.hostname:
            body["Hostname"] = spec.hostname
        body["ExposedPorts"] = {f"{port.container_port}/tcp": {} for port in spec.ports}
        host["PortBindings"] = {
            f"{port.container_port}/tcp": [{"HostIp": port.host_address, "HostPort": str(port.host_port)}]
            for port in spec.ports
        }
    return body


def network_body(spec: NetworkSpec) -> dict[str, Any]:
    """The body of ``POST /networks/create``."""
    return {
        "Name": spec.name,
        "Driver": "bridge",
        "CheckDuplicate": True,
        "Labels": dict(spec.labels),
        "IPAM": {"Driver": "default", "Config": [{"Subnet": spec.subnet}]},
        "Options": {"com.docker.network.bridge.name": spec.interface},
    }


def container_state(shown: dict[str, Any]) -> ContainerState:
    """From ``GET /containers/<id>/json``."""
    state = shown["State"]
    networks = shown["NetworkSettings"].get("Networks") or {}
    mode = shown["HostConfig"].get("NetworkMode", "")
    return ContainerState(
        id=shown["Id"],
        name=shown["Name"].lstrip("/"),
        image=shown["Config"]["Image"],
        labels=shown["Config"].get("Labels") or {},
        running=bool(state.get("Running")) and not state.get("Restarting"),
        status=state.get("Status", ""),
        created=moment(shown["Created"]) or datetime.now(UTC),
        started=moment(state.get("StartedAt", NEVER)),
        exit_code=state.get("ExitCode"),
        address=next((network["IPAddress"] for network in networks.values() if network.get("IPAddress")), None),
        network_of=mode.removeprefix("container:") if mode.startswith("container:") else None,
    )


def listed_container(listed: dict[str, Any]) -> ContainerState:
    """From one entry of ``GET /containers/json``; it has no start time."""
    networks = (listed.get("NetworkSettings") or {}).get("Networks") or {}
    mode = listed["HostConfig"].get("NetworkMode", "")
    return ContainerState(
        id=listed["Id"],
        name=listed["Names"][0].lstrip("/"),
        image=listed["Image"],
        labels=listed.get("Labels") or {},
        running=listed["State"] in ("running", "paused"),
        status=listed["State"],
        created=datetime.fromtimestamp(listed["Created"], UTC),
        address=next((network["IPAddress"] for network in networks.values() if network.get("IPAddress")), None),
        network_of=mode.removeprefix("container:") if mode.startswith("container:") else None,
    )


def moment(text: str) -> datetime | None:
    """Docker's time, which has nanoseconds that Python's does not; None for its zero."""
    if not text or text == NEVER:
        return None
    head, dot, tail = text.partition(".")
    if dot:
        digits = "".join(c for c in tail if c.isdigit())[:6]
        text = f"{head}.{digits.ljust(6, '0')}+00:00"
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def archive(files: Sequence[File]) -> tuple[str, bytes]:
    """The deepest folder that has all the files, and a tar of them from there.

    One tar, since Docker takes about 80 ms for each, whatever is in it; the deepest folder, since a container with a
    read-only root takes files only below its volumes.
    """
    folder = os.path.commonpath([file.path.rsplit("/", 1)[0] or "/" for file in files])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            info = tarfile.TarInfo(os.path.relpath(file.path, folder))
            info.mtime = time.time()
            info.size, info.mode, info.uid, info.gid = len(file.content), file.mode, file.uid, file.gid
            tar.addfile(info, io.BytesIO(file.content))
    return folder, buffer.getvalue()
