"""A thousand wakes out of two workspaces, while workers and control plane are killed and the gateway is cut off, at
random: none is lost, none is shown twice, and each workspace's come in their order."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import httpx
import pytest

from tests.fakes.wake_gateway import Answer, Gateway, Heard, refusal
from tests.integration.wake.plane import SECRET
from tests.unit.wake.conftest import until

WAKES = 500
"""Of each workspace."""

KILLS = 8

CHECKOUT = Path(__file__).parents[3]


class Killable:
    """A process that is there again after it was killed."""

    def __init__(self, command: list[str], environ: dict[str, str], log: Path) -> None:
        self._command = command
        self._environ = environ
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=os.environ | self._environ, cwd=CHECKOUT, stdout=log, stderr=log
            )

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(20)

    def __enter__(self) -> "Killable":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def worker(folder: Path, name: str, port: int, door: int) -> Killable:
    home = folder / name
    home.mkdir()
    secret = folder / "secret"
    secret.write_text(SECRET)
    environ = {
        "HOME": str(home),
        "PERRY_WORKSPACE": name,
        "PERRY_WORKER_HOST": "127.0.0.1",
        "PERRY_WORKER_PORT": str(port),
        "PERRY_WORKER_WAKE_PORT": str(door),
        "PERRY_WORKER_SECRET_FILE": str(secret),
        "PERRY_WORKER_SOCKET": str(folder / "none" / "socket"),
    }
    return Killable([sys.executable, "-m", "worker", "serve"], environ, folder / f"{name}.log")


async def wake(door: int, name: str) -> list[str]:
    """Knock until the door takes each, one after the other; the ids."""
    ids = []
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        for number in range(WAKES):
            while True:
                with suppress(httpx.HTTPError):
                    answer = await client.post(
                        f"http://127.0.0.1:{door}/hooks/wake",
                        content=json.dumps({"text": f"{name} {number}"}),
                        headers={"Idempotency-Key": f"{name}-{number}", "Authorization": "Bearer whatever"},
                    )
                    if answer.status_code == 200:
                        ids.append(answer.json()["id"])
                        break
                    assert answer.status_code == 429, answer.text
                await anyio.sleep(0.05)
    return ids


def unruly(chance: random.Random) -> Callable[[Heard], Answer]:
    """Mostly as it should be; else it fails, or breaks off before, in or after its answer."""
    kinds = [Answer()] * 30 + [
        refusal(500, "boom"),
        refusal(503, "starting"),
        refusal(429, "slow down", **{"Retry-After": "0"}),
        Answer(cut_after=0),
        Answer(cut_after=12),
        Answer(cut_after=len(Answer().raw()) - 4),
        Answer(after=0.3),
    ]
    return lambda _: chance.choice(kinds)


@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_none_is_lost_none_is_shown_twice_and_their_order_is_kept(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    gateway = Gateway()
    (tmp_path / "token").write_text(gateway.token)
    (tmp_path / "token").chmod(0o600)
    gateway.behave = unruly(chance)
    async with gateway.open():
        pass  # It knows its port now.
    ports = {name: (free_port(), free_port()) for name in ("alpha", "beta")}
    places = [f"{name}=127.0.0.1:{port}" for name, (port, _) in ports.items()]
    plane = Killable(
        [sys.executable, "-m", "tests.integration.wake.plane", str(tmp_path), gateway.url, *places],
        {},
        tmp_path / "plane.log",
    )
    workers = [worker(tmp_path, name, port, door) for name, (port, door) in ports.items()]
    kills = 0
    wakes: dict[str, list[str]] = {}

    async def gateway_comes_and_goes() -> None:
        while True:
            async with gateway.open():
                await anyio.sleep(chance.uniform(0.5, 3))
            await anyio.sleep(chance.uniform(0, 0.5))

    async def kill_at_random() -> None:
        nonlocal kills
        while kills < KILLS:
            await anyio.sleep(chance.uniform(0.3, 2))
            victim = chance.choice([plane, plane, *workers])
            await anyio.to_thread.run_sync(victim.kill, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            await anyio.sleep(chance.uniform(0, 0.3))
            victim.start()
            kills += 1

    async def keep_waking(name: str) -> None:
        wakes[name] = await wake(ports[name][1], name)

    with plane, workers[0], workers[1]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gateway_comes_and_goes)
            async with anyio.create_task_group() as chaos:
                chaos.start_soon(kill_at_random)
                for name in ports:
                    chaos.start_soon(keep_waking, name)
            # All are safe now, and those who were killed are there again.
            await until(lambda: len(gateway.accepted) >= 2 * WAKES, seconds=120)
            await anyio.sleep(0.5)
            tasks.cancel_scope.cancel()
    said = [heard.text.rpartition("] ")[2] for heard in gateway.accepted]
    for name in ports:
        mine = [text for text in said if text.startswith(name)]
        assert mine == [f"{name} {number}" for number in range(WAKES)], f"seed {seed}"
        assert [heard.key for heard in gateway.accepted if heard.key.startswith(name)] == wakes[name]
    assert kills == KILLS
    keys = [heard.key for heard in gateway.heard]
    print(f"{kills} kills, {len(keys)} attempts, {len(keys) - len(set(keys))} of them again")  # noqa: T201
