"""Processes that are killed and are there again, and whoever wakes through them."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import anyio
import httpx

from tests.integration.wake.plane import SECRET

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

    def start_again(self) -> None:
        """Start it where it does not run."""
        if self._process is None or self._process.poll() is not None:
            self.start()

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
        "PERRY_WORKER_OPENCODE_PORT": "0",
        "PERRY_WORKER_SECRET_FILE": str(secret),
        "PERRY_WORKER_SOCKET": str(folder / "none" / "socket"),
    }
    return Killable([sys.executable, "-m", "worker", "serve"], environ, folder / f"{name}.log")


def plane(folder: Path, url: str, places: list[str], *, pause: float) -> Killable:
    """The control plane's half; ``places`` are ``workspace=address`` of the workers, ``pause`` the gateway's pace."""
    command = [sys.executable, "-m", "tests.integration.wake.plane", str(folder), url, str(pause), *places]
    return Killable(command, {}, folder / "plane.log")


async def wake(door: int, name: str, count: int, *, pause: float = 0.0) -> list[str]:
    """Knock until the door takes each, one after the other; the ids."""
    ids = []
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        for number in range(count):
            await anyio.sleep(pause)
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
