"""Docker's half of building images, on the classic builder: aiodocker has no other, and every engine has it."""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp
from aiodocker import DockerError

from controlplane.adapters.docker_engine.errors import translated
from controlplane.errors import EngineError, EngineOutOfSpace
from controlplane.ports import ImageState

CHUNK = 1 << 20

CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"Temporary failure resolving|Could not resolve host|EAI_AGAIN|Name or service not known",
        "names do not resolve inside Docker builds; give Docker name servers (`dns` in /etc/docker/daemon.json)",
    ),
    (
        r"SELF_SIGNED_CERT|certificate verify failed|unable to get local issuer|SSL certificate problem",
        "a TLS certificate is not trusted; put your CA (.crt) into /usr/local/share/ca-certificates and build again",
    ),
    (
        r"^E: |Unable to locate package|Failed to fetch",
        "Debian's packages could not be installed; check that this machine reaches a Debian mirror and build again",
    ),
    (
        r"npm (ERR!|error)|No matching distribution found|Could not find a version",
        "a package of npm or PyPI could not be installed; check the network, and the versions in versions.env",
    ),
)
"""What a failed step said, and what it means. The first that fits is told."""


class DockerImages:
    """The port :class:`~controlplane.ports.ImageBuilder` on a connection of :class:`DockerEngine`."""

    def __init__(self, docker: aiodocker.Docker) -> None:
        self._docker = docker

    async def image(self, tag: str) -> ImageState | None:
        with translated(f"look at {tag}"):
            try:
                raw = await self._docker.images.inspect(tag)
            except DockerError as exc:
                if exc.status == 404:
                    return None
                raise
        return ImageState(id=raw["Id"], labels=(raw.get("Config") or {}).get("Labels") or {}, size=raw["Size"])

    async def pull(self, reference: str, *, patience: float) -> bool:
        """Whether a registry had it. ``patience`` is for its first word and between any two, in seconds."""
        stream = aiter(self._docker.images.pull(reference, stream=True))
        try:
            while True:
                await asyncio.wait_for(anext(stream), patience)
        except StopAsyncIteration:
            return await self.image(reference) is not None
        except (DockerError, TimeoutError, aiohttp.ClientError):
            # Any refusal means the same here: this machine gets no base image that way.
            return False

    async def import_rootfs(self, tag: str, tarball: Path) -> None:
        """``docker import``: the tarball becomes an image of one layer."""
        repository, _, version = tag.partition(":")
        with translated(f"import {tag}"):
            async with self._docker._query(
                "images/create",
                "POST",
                params={"fromSrc": "-", "repo": repository, "tag": version},
                headers={"Content-Type": "application/x-tar"},
                data=_chunks(tarball),
                timeout=aiohttp.ClientTimeout(total=None),
            ) as response:
                await response.text()
        if await self.image(tag) is None:
            raise EngineError(f"Docker did not import {tag}, and did not say why; see its log.")

    async def build(
        self,
        tag: str,
        context: bytes,
        *,
        args: Mapping[str, str],
        labels: Mapping[str, str],
        no_cache: bool,
        line: Callable[[str], None],
    ) -> None:
        said: list[str] = []
        with translated(f"build {tag}"):
            try:
                stream = self._docker.images.build(
                    fileobj=io.BytesIO(context),
                    encoding="identity",
                    tag=tag,
                    buildargs=dict(args),
                    labels=dict(labels),
                    nocache=no_cache,
                    forcerm=True,
                    stream=True,
                )
                async for item in stream:
                    for text in filter(None, (text.strip() for text in _spoken(item).splitlines())):
                        said = [*said[-200:], text]
                        line(text)
            except DockerError as exc:
                if exc.status >= 500 and not said:
                    raise
                raise _failed(tag, said, str(exc.message)) from exc
        # The stream ends quietly as well when the engine goes away in the middle.
        state = await self.image(tag)
        if state is None or any(state.labels.get(name) != value for name, value in labels.items()):
            raise EngineError(f"Docker went away while it built {tag}; start it and build again.")


def _spoken(item: Mapping[str, Any]) -> str:
    return str(item.get("stream") or item.get("status") or "")


def _failed(tag: str, said: list[str], message: str) -> EngineError:
    """One sentence: the cause where it is known, and the words that show it."""
    whole = [*said, message]
    if any("no space left" in text.lower() for text in whole):
        return EngineOutOfSpace(
            f"No disk space is left where Docker builds {tag}; free some (`docker system df` shows what takes it)."
        )
    for pattern, meaning in CAUSES:
        words = [text for text in whole if re.search(pattern, text)]
        if words:
            return EngineError(f"{tag} was not built, since {meaning}. It said: {_plain(words[0])}")
    evidence = [text for text in said if not text.startswith(("Step ", "--->", "Removing intermediate"))]
    last_words = f" Its last words: {_plain(' / '.join(evidence[-3:]))}" if evidence else ""
    return EngineError(f"{tag} was not built: {_plain(message)}.{last_words}")


def _plain(text: str) -> str:
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", text).split())
    return text if len(text) <= 400 else f"{text[:200]} … {text[-200:]}"


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            yield chunk
