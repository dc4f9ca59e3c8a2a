"""Docker's half of image building, in memory; held to the real one by tests/contract/images."""

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from controlplane.errors import EngineError
from controlplane.ports import ImageBuilder, ImageState


class FakeBuild(msgspec.Struct, frozen=True):
    """One call of ``build``."""

    tag: str
    files: Mapping[str, bytes]
    args: Mapping[str, str]
    labels: Mapping[str, str]
    no_cache: bool


class FakeImages(ImageBuilder):
    """Builds whatever has a Dockerfile. ``registry`` is what can be pulled; ``broken`` are tags whose build fails."""

    def __init__(self, registry: tuple[str, ...] = ()) -> None:
        self.registry = registry
        self.broken: set[str] = set()
        self.images: dict[str, ImageState] = {}
        self.builds: list[FakeBuild] = []
        self.imported: list[str] = []
        self.pulled: list[str] = []

    async def image(self, tag: str) -> ImageState | None:
        return self.images.get(tag)

    async def pull(self, reference: str, *, patience: float) -> bool:
        self.pulled.append(reference)
        if reference not in self.registry:
            return False
        self._add(reference, {}, 1)
        return True

    async def import_rootfs(self, tag: str, tarball: Path) -> None:
        self.imported.append(tag)
        self._add(tag, {}, 1)

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
        with tarfile.open(fileobj=io.BytesIO(context)) as archive:
            files = {entry.name: _content(archive, entry) for entry in archive}
        if "Dockerfile" not in files:
            raise EngineError(f"{tag} was not built: there is no Dockerfile.")
        self.builds.append(FakeBuild(tag, files, dict(args), dict(labels), no_cache))
        line("Step 1/1")
        if tag in self.broken or b"RUN false" in files["Dockerfile"]:
            raise EngineError(f"{tag} was not built: it is broken.")
        self._add(tag, labels, len(context))

    def _add(self, tag: str, labels: Mapping[str, str], size: int) -> None:
        self.images[tag] = ImageState(id=f"sha256:{len(self.images)}", labels=dict(labels), size=size)


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    return file.read() if file else b""
