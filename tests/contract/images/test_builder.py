"""One contract for Docker's half of image building and for its fake."""

import io
import secrets
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.adapters.docker_engine.images import DockerImages
from controlplane.errors import EngineError
from controlplane.images.plan import SourceFile
from controlplane.images.sources import pack
from controlplane.ports import ImageBuilder
from tests.fakes.images import FakeImages


@pytest.fixture
def tag() -> str:
    return f"perry-contract/{secrets.token_hex(4)}:latest"


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.engine)])
async def builder(request: pytest.FixtureRequest, tag: str) -> AsyncIterator[ImageBuilder]:
    if request.param == "fake":
        yield FakeImages()
        return
    engine = DockerEngine()
    images = DockerImages(engine.docker)
    try:
        yield images
    finally:
        if await images.image(tag) is not None:
            await engine.docker.images.delete(tag, force=True)
        await engine.close()


def context(dockerfile: str) -> bytes:
    return pack([SourceFile("Dockerfile", dockerfile.encode()), SourceFile("file", b"content\n")], {})


def ignore(text: str) -> None:
    assert text


async def test_a_missing_image_is_none(builder: ImageBuilder, tag: str) -> None:
    assert await builder.image(tag) is None


async def test_a_build_leaves_an_image_with_its_labels_and_tells_its_lines(builder: ImageBuilder, tag: str) -> None:
    lines: list[str] = []
    labels = {"perry.source": "abc"}
    dockerfile = context("FROM scratch\nCOPY file /file\n")
    await builder.build(tag, dockerfile, args={}, labels=labels, no_cache=False, line=lines.append)
    state = await builder.image(tag)
    assert state is not None
    assert state.labels["perry.source"] == "abc"
    assert state.size > 0
    assert any("Step" in text for text in lines)
    # The same again replaces the label.
    await builder.build(tag, dockerfile, args={}, labels={"perry.source": "def"}, no_cache=False, line=ignore)
    state = await builder.image(tag)
    assert state is not None
    assert state.labels["perry.source"] == "def"


async def test_a_build_that_fails_leaves_no_image(builder: ImageBuilder, tag: str) -> None:
    with pytest.raises(EngineError, match=f"{tag} was not built"):
        await builder.build(
            tag, context("FROM perry/base:latest\nRUN false\n"), args={}, labels={}, no_cache=False, line=ignore
        )
    assert await builder.image(tag) is None


async def test_a_context_without_dockerfile_fails(builder: ImageBuilder, tag: str) -> None:
    with pytest.raises(EngineError):
        await builder.build(tag, pack([SourceFile("x", b"")], {}), args={}, labels={}, no_cache=False, line=ignore)


async def test_an_imported_root_file_system_is_an_image(builder: ImageBuilder, tag: str, tmp_path: Path) -> None:
    tarball = anyio.Path(tmp_path / "rootfs.tar")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("etc/name")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"name"))
    await tarball.write_bytes(buffer.getvalue())
    await builder.import_rootfs(tag, Path(tarball))
    assert await builder.image(tag) is not None


async def test_what_no_registry_has_is_not_pulled(builder: ImageBuilder) -> None:
    assert not await builder.pull("registry.invalid/perry/nothing:latest", patience=10)
