"""Wakes: how long from the wake door to a gateway on loopback, and how many a second the outbox takes for good.

``python -m tests.bench.wakes FOLDER`` is the control plane's HTTP side in a process of its own, on a real state.db.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.bench.measure import Figure, bounded
from tests.fakes.surface import TOKEN, Surface
from tests.fakes.wake_gateway import OK, Answer, Gateway, Heard, refusal

ONE_BY_ONE: Final = 300
AT_ONCE: Final = 2000
CONNECTIONS: Final = 32


def measured() -> list[Figure]:
    return anyio.run(_measure)


async def _measure() -> list[Figure]:
    gateway = Gateway()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with gateway.open():
            (folder / "token").write_text(gateway.token)
            (folder / "token").chmod(0o600)
            hooks = {"gateways": [{"name": "home", "url": gateway.url, "tokenFile": "token", "pause": 0}]}
            (folder / "config.json").write_text(json.dumps({"hooks": hooks}))
            server = _started(name)
            try:
                assert server.stdout is not None
                port = int(await anyio.to_thread.run_sync(server.stdout.readline))
                took = await _through(gateway, port)
                gateway.behave = lambda _: refusal(503, "later", **{"Retry-After": "600"})
                each = await _accepted(port)
            finally:
                server.kill()
                server.wait()
    ninety_ninth = sorted(took)[int(len(took) * 0.99)]
    return [
        bounded(f"wake door → gateway, p99 of {len(took)}", "ms", [ninety_ninth * 1000], most=50),
        bounded(f"a wake taken for good ({1 / each:.0f}/s)", "ms", [each * 1000], most=2),
    ]


def _started(folder: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "tests.bench.wakes", folder], stdout=subprocess.PIPE)


async def _through(gateway: Gateway, port: int) -> list[float]:
    """Seconds from the request at the door until the gateway has heard it; the first few are thrown away."""
    heard = anyio.Event()

    def behave(_: Heard) -> Answer:
        heard.set()
        return OK

    gateway.behave = behave
    took = []
    for number in range(ONE_BY_ONE + 10):
        heard = anyio.Event()
        began = time.perf_counter()
        await _knock(port, [f"wake {number}"])
        await heard.wait()
        took.append(time.perf_counter() - began)
    return took[10:]


async def _accepted(port: int) -> float:
    """Seconds for each wake, of many that come over many connections."""
    texts = [f"wake {number} of many" for number in range(AT_ONCE)]
    began = time.perf_counter()
    async with anyio.create_task_group() as tasks:
        for number in range(CONNECTIONS):
            tasks.start_soon(_knock, port, texts[number::CONNECTIONS])
    return (time.perf_counter() - began) / AT_ONCE


async def _knock(port: int, texts: list[str]) -> None:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        answers = BufferedByteReceiveStream(stream)
        for text in texts:
            body = json.dumps({"text": text}).encode()
            head = (
                f"POST /hooks/wake HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            await stream.send(head.encode() + body)
            answer = await answers.receive_until(b"\r\n\r\n", 1 << 16)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = answer.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await answers.receive_exactly(int(length))


async def _serve(folder: Path) -> None:
    surface = Surface(folder, state=folder / "state.db")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(surface.services.wakes.run)
        async with surface.served() as port:
            print(port, flush=True)  # noqa: T201
            await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(_serve, Path(sys.argv[1]))
