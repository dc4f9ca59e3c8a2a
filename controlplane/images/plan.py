"""Which images exist, what each is made of, and in which order they are built. Pure: values in, values out.

An image carries the digest of all that it was made from (label ``perry.source``). The digest of an image on top of
``base`` includes base's, so a changed certificate or Dockerfile makes stale exactly what it should.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

SOURCE_LABEL = "perry.source"
"""Digest of an image's inputs."""

ORIGIN_LABEL = "perry.origin"
"""Where Debian came from: ``registry`` or ``debian-packages``."""

WORKER_LABEL = "perry.worker"
"""The version of the worker that the image has. A container shows its image's labels."""

BASE = "base"

WORKER = "worker"

REGISTRY_ROOTFS = "debian:trixie-slim"
IMPORTED_ROOTFS = "perry/rootfs:trixie"


TAILSCALE_TAGS = ("ts_omit_conn25",)
"""Leaves out a feature of tailscale's that nobody here uses, and that races with itself (v1.102.5: conn25's hooks are
set while the TUN device is being read). All that is built from that module has the same, and so is compiled once."""


class GoBinary(msgspec.Struct, frozen=True, kw_only=True):
    """A program built on this machine and put beside the Dockerfile in the context.

    ``module`` is the folder of its Go module, from the checkout's root. ``own_source`` is whether the module's own
    files make it; where not, it is a dependency's program, and go.mod and go.sum say all.
    """

    name: str
    module: str
    package: str
    own_source: bool = False
    tags: tuple[str, ...] = ()


class ImagePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One image. Its context is the folder ``images/<folder>``, plus what is generated for it.

    ``packages`` are folders of the checkout whose Python modules are in the context too. ``takes_worker`` is whether it
    copies from ``worker``.
    """

    name: str
    tag: str
    folder: str
    on_base: bool = True
    binaries: tuple[GoBinary, ...] = ()
    packages: tuple[str, ...] = ()
    takes_worker: bool = False


class SourceFile(msgspec.Struct, frozen=True):
    """A file of a context. ``path`` is relative to it."""

    path: str
    content: bytes
    executable: bool = False


IMAGES: tuple[ImagePlan, ...] = (
    ImagePlan(name=BASE, tag="perry/base:latest", folder="base", on_base=False),
    ImagePlan(name=WORKER, tag="perry/worker:latest", folder="worker", packages=("protocol", "worker")),
    ImagePlan(name="workspace-base", tag="perry/workspace-base:latest", folder="workspace", takes_worker=True),
    ImagePlan(
        name="sidecar",
        tag="perry/sidecar:latest",
        folder="sidecar",
        binaries=(GoBinary(name="perry-sidecar", module="sidecar", package=".", own_source=True, tags=TAILSCALE_TAGS),),
    ),
    ImagePlan(
        name="headscale",
        tag="perry/headscale:latest",
        folder="headscale",
        binaries=(GoBinary(name="headscale", module="images/headscale", package=".", own_source=True),),
    ),
    ImagePlan(
        name="device",
        tag="perry/device:latest",
        folder="device",
        binaries=(
            GoBinary(name="tailscale", module="sidecar", package="tailscale.com/cmd/tailscale", tags=TAILSCALE_TAGS),
            GoBinary(name="tailscaled", module="sidecar", package="tailscale.com/cmd/tailscaled", tags=TAILSCALE_TAGS),
        ),
    ),
)
"""In the order of starting them: base first, then the longest."""


def named(names: Sequence[str]) -> frozenset[str]:
    """The names of the images that were asked for; of all where none was.

    A name may be written as its tag (``perry/sidecar`` or ``perry/sidecar:latest``). KeyError names an unknown one.
    """
    by_name = {alias: plan.name for plan in IMAGES for alias in (plan.name, plan.tag, plan.tag.removesuffix(":latest"))}
    return frozenset(by_name[name] for name in names) or frozenset(by_name.values())


def with_base(names: frozenset[str]) -> tuple[ImagePlan, ...]:
    """What has to be there for these images: base first where one of them stands on it, the worker where one has it."""
    needed = names | {WORKER} if any(plan.takes_worker for plan in IMAGES if plan.name in names) else names
    needed = needed | {BASE} if any(plan.on_base for plan in IMAGES if plan.name in needed) else needed
    return tuple(plan for plan in IMAGES if plan.name in needed)


def worker_version(source: str) -> str:
    """The version of a worker, from the ``perry.source`` of its image."""
    return source[:16]


def digest(
    files: Iterable[SourceFile],
    *,
    args: Mapping[str, str],
    architecture: str,
    base: str = "",
    recipe: Sequence[str] = (),
) -> str:
    """The ``perry.source`` of an image. ``base`` is the digest of the one below, ``recipe`` how the rest is made."""
    whole = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        whole.update(f"file {file.path} {int(file.executable)} {hashlib.sha256(file.content).hexdigest()}\n".encode())
    for key in sorted(args):
        whole.update(f"arg {key}={args[key]}\n".encode())
    for line in (*recipe, f"on {architecture}", f"base {base}"):
        whole.update(f"{line}\n".encode())
    return whole.hexdigest()[:32]


def versions(text: str) -> dict[str, str]:
    """The build arguments that a ``versions.env`` pins. ValueError names a line that is none."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not name.isidentifier() or not value or value != value.strip():
            raise ValueError(line)
        found[name] = value
    return found
