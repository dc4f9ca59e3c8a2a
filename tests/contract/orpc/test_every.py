"""oRPC's client and ours, from npm and from clients/typescript, against a whole control plane on fakes."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from controlplane.app import procedures
from tests.contract.orpc.calls import CALLS
from tests.contract.orpc.conftest import Node

pytestmark = pytest.mark.anyio

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A control plane in a process of its own: where it is, and its token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config.json").write_text(f'{{"port": {port}}}')
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PERRY_")}
    command = [sys.executable, "-m", "tests.fakes.agent", str(tmp_path)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT, env=environ, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        yield {"PERRY_URL": url, "PERRY_TOKEN": _token(url, tmp_path, process)}
    finally:
        process.terminate()
        process.wait(20)


def _token(url: str, folder: Path, process: subprocess.Popen[bytes]) -> str:
    transport = httpx.HTTPTransport(retries=0)
    with httpx.Client(transport=transport, timeout=2) as client:
        for _ in range(300):
            assert process.poll() is None, (folder / "log").read_text()
            try:
                client.get(f"{url}/health")
                return (folder / "token").read_text().strip()
            except httpx.TransportError:
                anyio.run(anyio.sleep, 0.1)
    raise AssertionError((folder / "log").read_text())


def test_every_procedure_has_its_call() -> None:
    served = {f"{each.group}.{each.name}" for each in procedures()}
    assert served == {call.procedure for call in CALLS}, "add what is new to tests/contract/orpc/calls.py"


async def test_every_procedure_is_driven_by_orpcs_client(agent: dict[str, str], node: Node) -> None:
    outcomes = await node("every.mjs", agent, [[call.procedure, call.input] for call in CALLS])
    assert len(outcomes) == len(CALLS)
    for call, outcome in zip(CALLS, outcomes, strict=True):
        said = (call, outcome)
        assert outcome.get("error", {}).get("code") == call.code, said
        output: Any = outcome.get("output")
        for name, value in call.gives.items():
            assert output[name] == value, said


async def test_our_sockets_follow_and_run(agent: dict[str, str], node: Node) -> None:
    lines = await node("sockets.mjs", agent)
    found = {line["name"]: line["value"] for line in lines}
    assert found["first"] == "snapshot"
    assert found["resumed"] == ["workspace"] and found["epochs"] == 1
    assert found["echo"] == {"code": 7, "stdout": 3_000_000, "stderr": "no\n"}
    assert found["signalled"] == 130
    assert found["missing"] == 127
    assert found["nobody"] == "NOT_FOUND"
    assert found["wrong token"] == 4001
