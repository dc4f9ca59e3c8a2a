"""The process of a control plane: its folder, which is its alone, and its life from start to end."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import anyio

from controlplane.adapters.docker_engine import DockerEngine
from controlplane.adapters.machine import LocalMachine
from controlplane.db import Database
from controlplane.errors import AlreadyRunning, StartupError
from controlplane.images.service import BuiltImage, Report, build_images
from controlplane.settings import Loaded
from controlplane.wiring.core import Core
from controlplane.wiring.outside import Outside, real
from controlplane.workspaces.pods import Checkpoint, no_checkpoint


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """One control plane for each folder. AlreadyRunning where there is another."""
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise AlreadyRunning(
                f"A control plane runs with {folder} already; "
                "`perry agent status` shows it, `perry agent kill` ends it."
            ) from exc
        yield
    finally:
        os.close(handle)


def make_folder(folder: Path, environ: Mapping[str, str]) -> None:
    """The folder, for its owner alone; under sudo the person who called it owns it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise StartupError(
            f"The folder {folder} cannot be used ({exc.strerror}); mend it, or name another with PERRY_CONFIG_DIR."
        ) from exc
    if os.geteuid() == 0 and environ.get("SUDO_UID", "").isdigit():
        os.chown(folder, int(environ["SUDO_UID"]), int(environ.get("SUDO_GID", "-1")))


def run(
    loaded: Loaded,
    environ: Mapping[str, str],
    *,
    outside: Callable[[Loaded], Outside] = real,
    checkpoint: Checkpoint = no_checkpoint,
) -> None:
    """Run a control plane until it is told to end. StartupError says why it cannot."""
    make_folder(loaded.folder, environ)
    with folder_lock(loaded.folder):
        database = Database.open(loaded.folder / "state.db")
        try:

            async def main() -> None:
                core = Core(loaded, environ, outside(loaded), database, checkpoint)
                await core.run()

            anyio.run(main)
        finally:
            database.close()


async def build(
    checkout: Path, folder: Path, environ: Mapping[str, str], names: Sequence[str], no_cache: bool, report: Report
) -> list[BuiltImage]:
    """Build Perry's images on this machine's Docker."""
    engine = DockerEngine()
    try:
        return await build_images(
            checkout=checkout,
            builder=engine.images,
            certificates=LocalMachine(folder / "ssh").added_ca_certificates(),
            env=environ,
            report=report,
            names=names,
            no_cache=no_cache,
        )
    finally:
        await engine.close()
