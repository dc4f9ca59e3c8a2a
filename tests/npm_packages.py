"""What tests need from npm: what a folder's lock file names, brought once into the checkout's build folder."""

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from bootstrap import typescript


def installed(source: Path, name: str, *options: str, finish: Callable[[Path], object] = lambda _modules: None) -> Path:
    """The ``node_modules`` that the lock file in ``source`` names, brought where they are missing.

    ``name`` is what they are called in sentences; ``options`` are npm's. ``finish`` does what a package has to have
    done once after it came, since npm runs nothing of it.
    """
    names = sorted(str(file.relative_to(source)) for file in source.rglob("*") if file.is_file())
    wanted = b"".join((source / each).read_bytes() for each in names)
    folder = typescript.BUILD / f"{name}-{hashlib.sha256(wanted).hexdigest()[:16]}"
    typescript.BUILD.mkdir(parents=True, exist_ok=True)
    with (typescript.BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            typescript.npm_ci(folder, f"{name} for the tests", *options)
            finish(folder / "node_modules")
            (folder / "complete").touch()
    return folder / "node_modules"
