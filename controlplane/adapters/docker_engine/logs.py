"""Following what a container prints."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiodocker
import anyio
from anyio.streams.memory import MemoryObjectSendStream

from controlplane.adapters.docker_engine import requests
from controlplane.adapters.docker_engine.errors import translated
from controlplane.ports import LogEntry


async def follow(docker: aiodocker.Docker, container: str, *, since: str | None) -> AsyncIterator[LogEntry]:
    """See :meth:`controlplane.ports.Engine.follow_logs`. Docker is read no faster than the lines are taken."""
    send, receive = anyio.create_memory_object_stream[LogEntry](0)
    tasks = [
        asyncio.create_task(_follow(docker, container, name, since, send.clone())) for name in ("stdout", "stderr")
    ]
    send.close()
    try:
        async with receive:
            async for entry in receive:
                yield entry
        for task in tasks:
            await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _follow(
    docker: aiodocker.Docker, container: str, stream: str, since: str | None, to: MemoryObjectSendStream[LogEntry]
) -> None:
    options: dict[str, Any] = {stream: True, "timestamps": True, "follow": True}
    if since is not None:
        options["since"] = unix(since)
    async with to:
        with translated(f"follow the logs of {container}"):
            rest = ""
            async for piece in docker.containers.container(container).log(**options):
                *lines, rest = (rest + piece).split("\n")
                for line in lines:
                    at, _, text = line.partition(" ")
                    # Docker gives what was at ``since`` once more.
                    if since is None or at > since:
                        await to.send(LogEntry(at=at, stream=stream, text=text))


def unix(text: str) -> str:
    """An RFC 3339 time as the seconds with nanoseconds that Docker's ``since`` takes."""
    at = requests.moment(text)
    if at is None:
        return "0"
    _, dot, tail = text.partition(".")
    nanoseconds = "".join(c for c in tail if c.isdigit())[:9].ljust(9, "0") if dot else "0" * 9
    return f"{int(at.timestamp())}.{nanoseconds}"
