"""A gateway that waits for wakes: a real HTTP server that notes what it hears, and answers as a test wishes.

By itself it is as clawdbot and openclaw are. ``accepted`` is what it has shown its person, in order.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
from anyio.abc import SocketAttribute, SocketStream


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """A request. ``key`` is its Idempotency-Key."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return str(self.json["text"])

    @property
    def key(self) -> str:
        return self.headers["idempotency-key"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What it answers. ``after`` is in seconds; of ``raw`` so many bytes are sent, and then the connection is cut."""

    status: int = 200
    body: bytes = b'{"ok":true,"mode":"now"}'
    headers: dict[str, str] = {}
    after: float = 0.0
    cut_after: int | None = None

    def raw(self) -> bytes:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(self.body))} | self.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Whatever\r\n{lines}\r\n".encode() + self.body


def refusal(status: int, error: str, **headers: str) -> Answer:
    return Answer(status=status, body=json.dumps({"ok": False, "error": error}).encode(), headers=headers)


OK = Answer()
UNAUTHORIZED = refusal(401, "Unauthorized")


class Gateway:
    """``token`` is the one that it takes. ``behave`` is asked for each request with the right token."""

    def __init__(self, token: str = "hush-hush-hush-hush-hush-hush-hush") -> None:
        self.token = token
        self.port = 0
        self.heard: list[Heard] = []
        self.accepted: list[Heard] = []
        self.behave: Callable[[Heard], Answer] = lambda _: OK

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def told(self) -> list[str]:
        """The texts that it took."""
        return [heard.text for heard in self.accepted]

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Gateway"]:
        """Serve on loopback, on the port that it had before."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self.port, reuse_port=True)
        self.port = listener.extra(SocketAttribute.local_port)
        async with listener, anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, self._serve)
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    async def _serve(self, stream: SocketStream) -> None:
        async with stream:
            try:
                heard = await _read(stream)
                answer = self._answer(heard)
                await anyio.sleep(answer.after)
                raw = answer.raw()
                await stream.send(raw if answer.cut_after is None else raw[: answer.cut_after])
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass

    def _answer(self, heard: Heard) -> Answer:
        self.heard.append(heard)
        if heard.headers.get("authorization") != f"Bearer {self.token}":
            return UNAUTHORIZED
        answer = self.behave(heard)
        if 200 <= answer.status < 300 and heard.key not in {each.key for each in self.accepted}:
            self.accepted.append(heard)
        return answer


async def _read(stream: SocketStream) -> Heard:
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive()
    head, _, body = head.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += await stream.receive()
    return Heard(method=method, path=path, headers=headers, body=body)
