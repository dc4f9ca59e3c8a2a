"""Connections to one gateway, and to nothing else."""

import socket
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final

import anyio
import httpcore

from controlplane.wake.target import Target, Way, refused

CONNECT_SECONDS: Final = 15.0

_HEAD_LIMIT: Final = 4096


class NotThere(httpcore.ConnectError):
    """A gateway that is not connected to; a sentence says why."""


class Resolver:
    """Asks this machine for the addresses of a name."""

    async def __call__(self, host: str, port: int) -> list[str]:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(address[0]) for *_, address in found]


class Dialer(httpcore.AsyncNetworkBackend):
    """Connects to a target's host and port. The address that was looked at is the one that is connected to.

    ``forward`` is the socket on which Perry's node on the tailnet connects to others there. Where there is none, what
    is the tailnet's is tried like everything else: this machine may be on it by itself.
    """

    def __init__(
        self,
        target: Target,
        *,
        own_port: int,
        own_addresses: Callable[[], Iterable[str]],
        forward: Path,
        resolve: Callable[[str, int], Awaitable[list[str]]],
    ) -> None:
        self._target = target
        self._own_port = own_port
        self._own_addresses = own_addresses
        self._forward = forward
        self._resolve = resolve
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 — the library's own signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        if (host, port) != (self._target.host, self._target.port):
            raise NotThere(f"{host}:{port} is no gateway of the settings.")
        if self._target.way is Way.TAILNET and self._forward.exists():
            return await self._through_tailnet()
        return await self._directly()

    async def _directly(self) -> httpcore.AsyncNetworkStream:
        target = self._target
        try:
            addresses = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError) as exc:
            raise NotThere(f"The name {target.host!r} has no address here ({exc}); mend hooks.gateways.") from exc
        own = set(self._own_addresses())
        for address in addresses:
            if (sentence := refused(target, address, own_port=self._own_port, own_addresses=own)) is not None:
                raise NotThere(sentence)
        last: Exception = NotThere(f"The name {target.host!r} has no address here; mend hooks.gateways.")
        for address in dict.fromkeys(addresses):
            try:
                return await self._backend.connect_tcp(address, target.port, timeout=CONNECT_SECONDS)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                last = exc
        raise last

    async def _through_tailnet(self) -> httpcore.AsyncNetworkStream:
        target = self._target
        away = "Perry's node on the tailnet, which would reach it, is not there; `perry tailnet status` says more."
        try:
            stream = await self._backend.connect_unix_socket(str(self._forward), timeout=CONNECT_SECONDS)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
            raise NotThere(away) from exc
        place = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
        try:
            await stream.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode(), timeout=CONNECT_SECONDS)
            head = b""
            while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT:
                # A byte at a time: what follows the head is the gateway's.
                piece = await stream.read(1, timeout=CONNECT_SECONDS * 2)
                if not piece:
                    raise NotThere(away)
                head += piece
            status, _, words = head.partition(b"\r\n")[0].partition(b" ")[2].partition(b" ")
            if status != b"200":
                said = words.decode("ascii", "replace").strip()
                raise NotThere(f"The tailnet does not reach {place}: {said or status.decode('ascii', 'replace')}.")
        except BaseException:
            with anyio.CancelScope(shield=True):
                await stream.aclose()
            raise
        return stream

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise NotThere("No gateway is behind a socket.")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
