"""The password of a workspace's OpenCode server: who is given it, and what is shown of the door that says it."""

import re
from pathlib import Path

import msgspec
import pytest

from controlplane.ports import File
from controlplane.workers.secrets import WorkerSecrets
from controlplane.workspaces import spec
from controlplane.workspaces.pods import Pods
from controlplane.workspaces.sidecars import SidecarStatus, shown
from protocol.workspaces import TailnetState
from tests.fakes.engine import FakeEngine
from tests.fakes.machine import FakeMachine
from tests.fakes.pods import IMAGES
from tests.unit.workspaces.test_spec import REQUEST, RESERVATION, SETTINGS

RUNNING = SidecarStatus(border=True, state="running", hostname="alpha", ips=("100.64.0.3",), tun=True, online=True)
TAKEN = "A program in the workspace has port 4096; have it listen on another port."


def test_it_is_each_workspaces_own_and_stays(tmp_path: Path) -> None:
    secrets = WorkerSecrets(tmp_path / "key")
    password = secrets.opencode("alpha")
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", password)
    assert password == WorkerSecrets(tmp_path / "key").opencode("alpha")
    assert len({password, secrets.opencode("beta"), secrets.of("alpha")}) == 3


@pytest.mark.anyio
async def test_sidecars_are_given_it_at_each_start_and_a_key_where_there_is_one() -> None:
    engine = FakeEngine(IMAGES)
    path = f"{spec.SIDECAR_STATE}/opencode-password"
    pods = Pods(
        engine,
        FakeMachine(),
        instance="perry",
        prefix="workspace-",
        sidecar_files=lambda name: [File(path=path, content=f"of {name}".encode(), mode=0o600)],
    )
    pod = spec.pod_spec(SETTINGS, RESERVATION, REQUEST)

    async def key() -> str | None:
        return "tskey"

    async def none() -> str | None:
        return None

    await pods.create(pod, key)
    sidecar = engine.by_name["workspace-alpha.tailnet"]
    assert sidecar.files == {path: b"of alpha", spec.AUTH_KEY_FILE: b"tskey"}
    sidecar.files.clear()
    await pods.create(pod, none)
    assert sidecar.files == {path: b"of alpha"}


def test_a_door_that_is_shut_is_said_where_nothing_worse_is() -> None:
    def error(**fields: object) -> str | None:
        return shown("alpha", msgspec.structs.replace(RUNNING, **fields), joins=True, runs=True).error

    assert error() is None
    assert error(door=TAKEN) == TAKEN
    assert error(door=TAKEN, error="The coordinator does not answer.") == "The coordinator does not answer."
    assert "/dev/net/tun" in str(error(tun=False))
    assert shown("alpha", RUNNING, joins=True, runs=True).status is TailnetState.ONLINE


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
