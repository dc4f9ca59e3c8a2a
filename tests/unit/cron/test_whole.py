"""Jobs from `perry cron add` to the request at the gateway, with the control plane killed on the way."""

import json
import os
import random
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from tests.fakes.wake_gateway import Gateway
from tests.waiting import until

pytestmark = pytest.mark.anyio

JOBS = 8
KILLS = 2


class ControlPlane:
    """In a process of its own; each ``running`` is another one on the same folder."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port: int = probe.getsockname()[1]
        folder.mkdir()
        token = folder / "gateway-token"
        token.write_text(gateway.token)
        token.chmod(0o600)
        hooks = {"gateways": [{"name": "mine", "url": gateway.url, "tokenFile": str(token)}]}
        (folder / "config.json").write_text(json.dumps({"port": self._port, "hooks": hooks}))
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PERRY_")}
        self._environ = {**plain, "PERRY_CONFIG_DIR": str(folder), "PERRY_URL": f"http://127.0.0.1:{self._port}"}

    @contextmanager
    def running(self) -> Iterator[None]:
        """Killed at the end, with no word."""
        argv = [sys.executable, "-m", "tests.unit.cron.agent", str(self._folder)]
        with (self._folder / "agent.log").open("ab") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    async def perry(self, *arguments: str) -> str:
        argv = [sys.executable, "-c", "from cli.main import main; main()", *arguments]
        done = await anyio.run_process(argv, env=self._environ, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    async def answers(self) -> None:
        for _ in range(600):
            try:
                async with await anyio.connect_tcp("127.0.0.1", self._port):
                    return
            except OSError:
                await anyio.sleep(0.05)
        raise AssertionError((self._folder / "agent.log").read_text())


@pytest.fixture
async def gateway(anyio_backend: str) -> AsyncIterator[Gateway]:
    gateway = Gateway()
    async with gateway.open():
        yield gateway


async def test_each_job_wakes_once_though_the_control_plane_is_killed(tmp_path: Path, gateway: Gateway) -> None:
    control = ControlPlane(tmp_path / "config", gateway)
    chance = random.Random(7)
    with control.running():
        await control.answers()
        for number in range(JOBS):
            # With single quotes, an emoji and what a shell would take for its own.
            text = f"job {number}: it's 😀 $(true)"
            flags = ("--at", f"{1 + number * 0.3:.1f}s", "--message", text, "--delete-after-run")
            await control.perry("cron", "add", "--name", f"job {number}", *flags)
    for _ in range(KILLS):
        with control.running():
            await control.answers()
            await anyio.sleep(chance.uniform(0.1, 0.8))
    with control.running():
        await control.answers()
        await until(lambda: len(gateway.accepted) >= JOBS, "all are told")
        for _ in range(100):
            # The gateway knows of the last a moment before its end is noted.
            if not (jobs := json.loads(await control.perry("cron", "list", "--json"))):
                break
            await anyio.sleep(0.05)
        runs = json.loads(await control.perry("cron", "history", "--json"))["items"]
    told = Counter(heard.text.split("] ", 1)[1].split("\n")[0] for heard in gateway.accepted)
    assert told == Counter(f"job {number}: it's 😀 $(true)" for number in range(JOBS))
    assert {f"wake {heard.key}" for heard in gateway.accepted} == {run["detail"] for run in runs}
    assert jobs == []
    assert len(runs) == JOBS


async def test_a_check_waits_for_a_gateway_that_is_away(tmp_path: Path) -> None:
    gateway = Gateway()
    async with gateway.open():
        pass  # It has a port now, and is gone.
    control = ControlPlane(tmp_path / "config", gateway)
    with control.running():
        await control.answers()
        await control.perry("start", "alpha", "--no-clone")
        for _ in range(200):
            # The worker's first word of its sessions comes a moment after the start.
            if json.loads(await control.perry("sessions", "list", "--json"))["items"]:
                break
        await control.perry("cron", "add", "--name", "look", "--at", "10ms", "--check", "alpha")
        for _ in range(400):
            runs = json.loads(await control.perry("cron", "history", "look", "--json"))["items"]
            if runs and runs[0]["outcome"] != "running":
                break
        assert runs[0]["outcome"] == "ok", runs
        (waits,) = json.loads(await control.perry("wakes", "list", "--json"))["items"]
        assert waits["state"] in ("queued", "delivering")
        async with gateway.open():
            await until(lambda: gateway.told, "the wake comes")
    (told,) = gateway.told
    assert "Job look: " in told and "in alpha" in told
