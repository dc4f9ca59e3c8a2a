"""What is asked of Docker, while images are built."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec


class ImageState(msgspec.Struct, frozen=True, kw_only=True):
    """A local image. ``size`` is in bytes."""

    id: str
    labels: Mapping[str, str]
    size: int


class ImageBuilder(Protocol):
    """Docker's half of building images. Errors are :class:`~controlplane.errors.EngineError` and its kind."""

    async def image(self, tag: str) -> ImageState | None:
        """None where it is missing."""

    async def pull(self, reference: str, *, patience: float) -> bool:
        """Whether a registry had it. A registry that says nothing for ``patience`` seconds has not."""

    async def import_rootfs(self, tag: str, tarball: Path) -> None:
        """Make an image of one layer out of a root file system."""

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
        """Build a tar with a Dockerfile. ``line`` hears what it says; the error's message tells why it failed."""
