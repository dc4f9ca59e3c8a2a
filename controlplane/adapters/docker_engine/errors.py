"""Docker's errors, in our words."""

import contextlib
from collections.abc import Iterator

import aiohttp
from aiodocker import DockerError

from controlplane.errors import (
    ContainerStuck,
    EngineConflict,
    EngineError,
    EngineOutOfSpace,
    EngineUnavailable,
    ImageMissing,
    NoTunDevice,
)

UNREACHABLE = 900
"""The status with which aiodocker reports that the engine could not be reached."""

NOT_ANSWERING = "Docker does not answer; start it (`sudo systemctl start docker`) or see `perry doctor`."


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn what aiodocker raises into our errors. ``doing`` completes "Docker could not …"."""
    try:
        yield
    except DockerError as exc:
        raise _translate(exc, doing) from exc
    except (aiohttp.ClientError, ConnectionError, FileNotFoundError, TimeoutError) as exc:
        raise EngineUnavailable(NOT_ANSWERING) from exc


def _translate(exc: DockerError, doing: str) -> EngineError:
    said = " ".join(str(exc.message).split())
    lower = said.lower()
    if exc.status == UNREACHABLE:
        return EngineUnavailable(NOT_ANSWERING)
    if "no space left" in lower or "disk quota" in lower:
        return EngineOutOfSpace(
            f"Docker has no disk space left, so it could not {doing}; free some (see `docker system df`)."
        )
    if "/dev/net/tun" in lower:
        return NoTunDevice(
            "This machine has no /dev/net/tun for containers; load it with `sudo modprobe tun` and start again."
        )
    if "no such image" in lower:
        return ImageMissing(f"An image is missing ({said}); build Perry's with `perry agent build`.")
    if "port is already allocated" in lower or "address already in use" in lower:
        return EngineConflict(f"Docker could not {doing}, since a port is taken: {said}")
    if "id already in use" in lower or ("already exists" in lower and ("task" in lower or "runtime" in lower)):
        return ContainerStuck(f"Docker could not {doing}, since it still has a part of its last run: {said}")
    if "overlap" in lower:
        return EngineConflict(f"Docker could not {doing}, since its addresses overlap another network's: {said}")
    if exc.status == 409:
        return EngineConflict(f"Docker could not {doing}: {said}")
    return EngineError(f"Docker could not {doing}; it says: {said}")
