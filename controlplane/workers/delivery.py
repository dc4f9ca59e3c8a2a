"""Brings this control plane's version of the worker into containers whose image has another, or none."""

import gzip
import io
import logging
import os
import tarfile
from pathlib import Path

import anyio

from controlplane.errors import StepFailed
from controlplane.ports import Engine

log = logging.getLogger(__name__)

WORKER_LABEL = "perry.worker"
"""The version that an image has; controlplane/images writes it."""

FOLDER = "opt/perry/worker"
"""Where workers lie, one folder for each version, from the root."""

INSTALL_SECONDS = "20"


class Delivery:
    """``folder`` keeps what was read out of the image ``perry/worker``, packed."""

    def __init__(self, engine: Engine, image: str, folder: Path) -> None:
        self._engine = engine
        self._image = image
        self._folder = folder
        self._packing = anyio.Lock()

    async def version(self) -> str | None:
        """The version that workspaces should have; None where the image is missing or was built by hand."""
        labels = await self._engine.labels_of(self._image)
        return None if labels is None else labels.get(WORKER_LABEL)

    async def deliver(self, container: str, version: str) -> None:
        """Put that version in place and start it. PerryError where that fails; what ran before then goes on."""
        await self._engine.put_archive(container, "/", await self._packed(version))
        install = f"/{FOLDER}/{version}/install"
        done = await self._engine.exec(container, ["timeout", INSTALL_SECONDS, "sh", install], limit=4096)
        if done.exit_code != 0:
            words = " ".join(done.stderr.decode(errors="replace").split())[-300:]
            raise StepFailed(f"The worker could not be put in place: {words or f'status {done.exit_code}'}.")

    async def _packed(self, version: str) -> bytes:
        async with self._packing:
            file = self._folder / f"{version}.tar.gz"
            if not await anyio.to_thread.run_sync(file.exists):
                folder = await self._engine.read_folder(self._image, f"/{FOLDER}/{version}")
                await anyio.to_thread.run_sync(self._pack, folder, file)
            return await anyio.to_thread.run_sync(file.read_bytes)

    def _pack(self, folder: bytes, file: Path) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        fresh = file.with_suffix(".new")
        with gzip.open(fresh, "wb", compresslevel=1) as packed:
            packed.write(under(folder, FOLDER))
        for old in self._folder.glob("*.tar.gz"):
            old.unlink()
        os.replace(fresh, file)


def under(archive: bytes, folder: str) -> bytes:
    """The tar, its names below ``folder``, which it has too; all of it root's."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for parent in Path(folder).parents[-2::-1]:
            new.addfile(_folder(str(parent)))
        new.addfile(_folder(folder))
        for member in old:
            member.name = f"{folder}/{member.name}"
            member.uid = member.gid = 0
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
    return buffer.getvalue()


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    info.mode = 0o755
    return info
