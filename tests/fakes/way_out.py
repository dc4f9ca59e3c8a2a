"""Perry's node on the tailnet as the control plane meets it: a socket that answers CONNECT.

What it says is in ``tests/contract/wayout/exchanges.json``, which the real one (``sidecar/wayout.go``) is held to.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import SocketStream

CONTRACT: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "contract" / "wayout" / "exchanges.json").read_text()
)


class WayOut:
    """``answers`` has an exchange of the contract for each place. ``behind`` is the port on loopback to which it
    connects where that says 200, and ``heard`` what it was asked, byte for byte."""

    def __init__(self, *exchanges: dict[str, Any], behind: int | None = None) -> None:
        self.answers = {each["place"]: each for each in exchanges}
        self.behind = behind
        self.heard: list[str] = []

    @asynccontextmanager
    async def open(self, socket: Path) -> AsyncIterator["WayOut"]:
        socket.parent.mkdir(exist_ok=True)
        listener = await anyio.create_unix_listener(socket)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._serve)
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += await stream.receive()
            self.heard.append(head.decode())
            exchange = self.answers[head.split(b" ")[1].decode()]
            if exchange["status"] != 200:
                await stream.send(refusal(exchange))
                return
            if self.behind is None:
                await stream.send(b"HTTP/1.1 200 Connected\r\n\r\nfrom the device")
                return
            async with await anyio.connect_tcp("127.0.0.1", self.behind) as there, anyio.create_task_group() as both:
                await stream.send(b"HTTP/1.1 200 Connected\r\n\r\n")
                both.start_soon(_copy, there, stream)
                await _copy(stream, there)


def refusal(exchange: dict[str, Any]) -> bytes:
    said = {"defined": False, "code": exchange["code"], "status": exchange["status"], "message": exchange["says"]}
    body = json.dumps({"json": said}).encode()
    lines = ("Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}")
    return "\r\n".join((f"HTTP/1.1 {exchange['status']} Whatever", *lines, "", "")).encode() + body


async def _copy(source: SocketStream, to: SocketStream) -> None:
    try:
        async for piece in source:
            await to.send(piece)
        await to.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        pass
