"""Reads from a checkout what images are made of, and packs contexts for Docker."""

import io
import os
import platform
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from controlplane.errors import NotReady
from controlplane.images.plan import BASE, WORKER, GoBinary, ImagePlan, SourceFile, digest, versions


def build_args(checkout: Path, plan: ImagePlan) -> dict[str, str]:
    """What ``versions.env`` of the image's folder pins."""
    path = checkout / "images" / plan.folder / "versions.env"
    if not path.exists():
        return {}
    try:
        return versions(path.read_text())
    except ValueError as exc:
        raise NotReady(f"{path} has a line that is not NAME=value: {exc}") from exc


def context_files(checkout: Path, plan: ImagePlan, certificates: Mapping[str, bytes]) -> list[SourceFile]:
    """The context of an image without its Go binaries."""
    folder = checkout / "images" / plan.folder
    if not (folder / "Dockerfile").is_file():
        raise NotReady(f"{folder / 'Dockerfile'} is missing, so {plan.tag} cannot be built; is the checkout whole?")
    files = [_source_file(path, folder) for path in _walk(folder) if not _is_test(path)]
    for package in plan.packages:
        modules = sorted((checkout / package).rglob("*.py"))
        if not modules:
            raise NotReady(f"{checkout / package} is missing, so {plan.tag} cannot be built; is the checkout whole?")
        files.extend(_source_file(path, checkout) for path in modules)
    if plan.name == BASE:
        # COPY of a folder fails when it is empty.
        files.append(SourceFile("certificates/README", b"Added certificates of the building machine.\n"))
        files.extend(SourceFile(f"certificates/{name}", pem) for name, pem in certificates.items())
    return files


def binary_files(checkout: Path, binary: GoBinary) -> list[SourceFile]:
    """What a Go binary is made of, as far as a build can change it."""
    module = checkout / binary.module
    if not (module / "go.mod").is_file():
        raise NotReady(f"{module / 'go.mod'} is missing, so {binary.name} cannot be built; is the checkout whole?")
    if binary.own_source:
        paths = [path for path in _walk(module) if not _is_test(path)]
    else:
        paths = [path for path in (module / "go.mod", module / "go.sum") if path.exists()]
    return [_source_file(path, checkout) for path in paths]


def _is_test(path: Path) -> bool:
    return path.name.endswith("_test.go")


def wanted(checkout: Path, certificates: Mapping[str, bytes], plans: Iterable[ImagePlan]) -> dict[str, str]:
    """The digest of all that each image would now be made from, by its name. ``plans`` are whole (``with_base``)."""
    found: dict[str, str] = {}
    for plan in sorted(plans, key=lambda plan: (plan.name != BASE, plan.name != WORKER)):
        found[plan.name] = _source(checkout, plan, certificates, found.get(BASE, ""), found.get(WORKER, ""))
    return found


def _source(checkout: Path, plan: ImagePlan, certificates: Mapping[str, bytes], base: str, worker: str) -> str:
    """``base`` and ``worker`` are the digests of those two."""
    files = context_files(checkout, plan, certificates)
    for binary in plan.binaries:
        files.extend(binary_files(checkout, binary))
    return digest(
        files,
        args=build_args(checkout, plan),
        architecture=platform.machine(),
        base=base if plan.on_base else "",
        recipe=[
            *(f"go {binary.module} {binary.package} {','.join(binary.tags)}" for binary in plan.binaries),
            *([f"worker {worker}"] if plan.takes_worker else []),
        ],
    )


def pack(files: Iterable[SourceFile], binaries: Mapping[str, Path]) -> bytes:
    """A context as an uncompressed tar, binaries at its root.

    Equal inputs give equal bytes, so Docker's cache sees what is the same.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in sorted(files, key=lambda file: file.path):
            _add(archive, file.path, io.BytesIO(file.content), len(file.content), file.executable)
        for name, path in sorted(binaries.items()):
            with path.open("rb") as program:
                _add(archive, name, program, path.stat().st_size, True)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, path: str, content: io.BufferedIOBase, size: int, executable: bool) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = size
    entry.mode = 0o755 if executable else 0o644
    archive.addfile(entry, content)


def _walk(folder: Path) -> list[Path]:
    """All files but documentation: its changes make no image stale."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")


def _source_file(path: Path, root: Path) -> SourceFile:
    return SourceFile(path.relative_to(root).as_posix(), path.read_bytes(), os.access(path, os.X_OK))
