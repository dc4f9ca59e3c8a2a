"""What Docker says, and what is made of it. The messages are Docker's own, of 20.10 and 26."""

import pytest
from aiodocker import DockerError

from controlplane.adapters.docker_engine.errors import UNREACHABLE, translated
from controlplane.errors import (
    ContainerStuck,
    EngineConflict,
    EngineError,
    EngineOutOfSpace,
    EngineUnavailable,
    ImageMissing,
    NoTunDevice,
)

RUNTIME = "failed to create shim: OCI runtime create failed: "


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (500, "id already in use", ContainerStuck),
        (500, "failed to create task for container: task 4f1c already exists: already exists", ContainerStuck),
        (500, f"{RUNTIME}container with given ID already exists: unknown", ContainerStuck),
        (500, "driver failed: Bind for 127.0.0.1:22000 failed: port is already allocated", EngineConflict),
        (500, "listen tcp 127.0.0.1:22000: bind: address already in use", EngineConflict),
        (409, 'Conflict. The container name "/a" is already in use by container "4f1c"', EngineConflict),
        (403, "Pool overlaps with other one on this address space", EngineConflict),
        (500, "write /var/lib/docker/tmp/x: no space left on device", EngineOutOfSpace),
        (500, "mkdir /var/lib/docker/overlay2/4f1c-init: disk quota exceeded", EngineOutOfSpace),
        (404, "No such image: perry/sidecar:latest", ImageMissing),
        (
            500,
            'error gathering device information while adding custom device "/dev/net/tun": no such file',
            NoTunDevice,
        ),
        (UNREACHABLE, "Cannot connect to Docker Engine", EngineUnavailable),
        (500, "something new", EngineError),
    ],
)
def test_each_is_an_error_of_its_own(status: int, said: str, kind: type[EngineError]) -> None:
    with pytest.raises(EngineError) as caught, translated("start container alpha"):
        raise DockerError(status, said)
    assert type(caught.value) is kind
