"""Ports of this device that lead to a workspace, through its agent."""

import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial

from cli import output
from cli.client import Client
from cli.errors import CliError, Misused
from cli.tunnel import Tunnel

BUFFER = 1 << 18


def through_agent(client: Client, name: str, bind: str, ports: Sequence[tuple[int, int]]) -> None:
    """Until ctrl-C. ``ports`` are pairs of one of this device's and one of the workspace's."""
    try:
        asyncio.run(_serve(client, name, bind, ports))
    except KeyboardInterrupt:
        return


async def _serve(client: Client, name: str, bind: str, ports: Sequence[tuple[int, int]]) -> None:
    tunnel = Tunnel(client, name, output.warn)
    servers = [await _listen(tunnel, bind, local, remote) for local, remote in ports]
    running = asyncio.ensure_future(tunnel.run())
    ready = asyncio.ensure_future(tunnel.ready.wait())
    try:
        await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            for server in servers:
                await server.start_serving()
            address = f"[{bind}]" if ":" in bind else bind
            for local, remote in ports:
                output.line(f"http://{address}:{local} is port {remote} of {name}")
            output.note("The agent carries it. ctrl-C ends it.")
            sys.stdout.flush()
        await running
    finally:
        for server in servers:
            server.close()
        for task in (running, ready):
            task.cancel()
        await asyncio.gather(running, ready, return_exceptions=True)


async def _listen(tunnel: Tunnel, bind: str, local: int, remote: int) -> asyncio.Server:
    """Bound, so that a port that is taken is said first, and not served yet."""
    carry = partial(tunnel.carry, port=remote)
    host = None if bind == "*" else bind
    try:
        return await asyncio.start_server(carry, host, local, limit=BUFFER, start_serving=False)
    except OSError as exc:
        raise not_listened_on(bind, local, exc) from exc


def not_listened_on(bind: str, local: int, why: OSError) -> CliError:
    """Why a port of this device cannot be listened on, and what to do."""
    if isinstance(why, PermissionError):
        return CliError(f"Port {local} may not be listened on by you; take one above 1023.")
    if why.errno is None or why.errno < 0:
        return Misused(f"{bind!r} is no address of this device; give one, such as 127.0.0.1.")
    return CliError(f"Port {local} of this device cannot be listened on ({os.strerror(why.errno)}); take another.")
