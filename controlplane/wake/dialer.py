"""Connections to one gateway, and to nothing else."""

import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import httpcore

from controlplane.wake.passage import CONNECT_SECONDS, NotThere, Passage
from controlplane.wake.target import Target, may_go_directly, refused
from protocol.wake import WakeWay


class Resolver:
    """Asks this machine for the addresses of a name."""

    async def __call__(self, host: str, port: int) -> list[str]:
        found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(address[0]) for *_, address in found]


class Dialer(httpcore.AsyncNetworkBackend):
    """Connects to a target's host and port. The address that was looked at is the one that is connected to.

    What is the tailnet's is reached by Perry's node there. Where that knows nobody of the name or address, a machine
    that is on a tailnet by itself tries its own way too: that tailnet may be another one. ``way`` is how the latest
    connection goes.
    """

    def __init__(
        self,
        target: Target,
        *,
        own_port: int,
        own_addresses: Callable[[], Iterable[str]],
        passage: Passage,
        resolve: Callable[[str, int], Awaitable[list[str]]],
    ) -> None:
        self.way: WakeWay | None = None
        self._target = target
        self._own_port = own_port
        self._own_addresses = own_addresses
        self._passage = passage
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
        self.way = None
        if (host, port) != (self._target.host, self._target.port):
            raise NotThere(f"{host}:{port} is no gateway of the settings.")
        if self._target.way is WakeWay.TAILNET:
            return await self._by_tailnet()
        return await self._directly()

    async def _by_tailnet(self) -> httpcore.AsyncNetworkStream:
        own = set(self._own_addresses())
        if self._target.host in own:
            return await self._directly()
        try:
            stream = await self._passage.connect(self._target)
        except NotThere as exc:
            if not may_go_directly(self._target, exc.status, on_tailnet_itself=bool(own)):
                raise
            why = exc
        else:
            self.way = WakeWay.TAILNET
            return stream
        try:
            return await self._directly()
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
            raise NotThere(f"{why} From this machine: {str(exc) or 'it does not answer'}") from exc

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
                stream = await self._backend.connect_tcp(address, target.port, timeout=CONNECT_SECONDS)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                last = exc
            else:
                self.way = WakeWay.DIRECT
                return stream
        raise last

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        raise NotThere("No gateway is behind a socket.")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)
