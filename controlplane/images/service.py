"""The use case of building: what is missing or stale, base first, the rest side by side."""

import fcntl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from controlplane.errors import InvalidInput, PerryError
from controlplane.images import sources
from controlplane.images.binaries import build_go, debian_rootfs
from controlplane.images.plan import (
    BASE,
    IMAGES,
    IMPORTED_ROOTFS,
    ORIGIN_LABEL,
    REGISTRY_ROOTFS,
    SOURCE_LABEL,
    WORKER,
    WORKER_LABEL,
    ImagePlan,
    named,
    with_base,
    worker_version,
)
from controlplane.ports import ImageBuilder

REGISTRY_SECONDS = 15.0
"""How long a registry may take to send its first word about the base image."""

PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


class BuildReport(msgspec.Struct, frozen=True, kw_only=True):
    """Something to show. ``kind`` is ``step`` (a sentence), ``line`` (a tool's output) or ``done``."""

    image: str
    kind: str
    text: str


Report = Callable[[BuildReport], None]


class BuiltImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image as it stands after the build. ``built`` is False where it was up to date; ``size`` is in bytes."""

    name: str
    tag: str
    source: str
    built: bool
    seconds: float
    size: int


async def build_images(
    *,
    checkout: Path,
    builder: ImageBuilder,
    certificates: Mapping[str, bytes],
    env: Mapping[str, str],
    report: Report,
    names: Sequence[str] = (),
    no_cache: bool = False,
) -> list[BuiltImage]:
    """Build what is missing or stale among ``names`` (all where empty), and base where they stand on it.

    ``certificates`` are the machine's added ones (file name to PEM), ``env`` its environment for Go, mmdebstrap and
    proxies. ``no_cache`` builds what was named from nothing. One build at a time for a checkout: another waits.
    Raises PerryErrors whose messages are sentences for people; images that were done by then stay.
    """
    try:
        asked = named(names)
    except KeyError as exc:
        known = ", ".join(plan.name for plan in IMAGES)
        raise InvalidInput(f"There is no image {exc.args[0]!r}; there are {known}.") from exc
    async with _one_at_a_time(checkout, report):
        build = _Build(checkout, builder, certificates, env, report)
        try:
            return await build.all(with_base(asked), asked if no_cache else frozenset())
        except* PerryError as group:
            raise _first(group) from None


class _Build:
    """One run of the builder."""

    def __init__(
        self,
        checkout: Path,
        builder: ImageBuilder,
        certificates: Mapping[str, bytes],
        env: Mapping[str, str],
        report: Report,
    ) -> None:
        self._checkout = checkout
        self._builder = builder
        self._certificates = certificates
        self._env = env
        self._report = report
        self._done: dict[str, BuiltImage] = {}
        # One compiler at a time: it uses all processors by itself, and what two programs share is compiled once.
        self._compiler = anyio.Lock()
        self._stands = {BASE: anyio.Event(), WORKER: anyio.Event()}
        self._worker = ""

    async def all(self, plans: Sequence[ImagePlan], forced: frozenset[str]) -> list[BuiltImage]:
        # Raised before anything is built: a missing file or toolchain should not show after minutes.
        wanted = sources.wanted(self._checkout, self._certificates, plans)
        self._worker = worker_version(wanted.get(WORKER, ""))
        async with anyio.create_task_group() as rest:
            for plan in plans:
                rest.start_soon(self._one, plan, wanted[plan.name], plan.name in forced)
        return [self._done[plan.name] for plan in plans]

    async def _one(self, plan: ImagePlan, source: str, forced: bool) -> None:
        began = time.monotonic()
        state = await self._builder.image(plan.tag)
        built = forced or state is None or state.labels.get(SOURCE_LABEL) != source
        if built:
            await self._build(plan, source, forced)
            state = await self._builder.image(plan.tag)
        size = state.size if state else 0
        seconds = time.monotonic() - began
        self._done[plan.name] = BuiltImage(
            name=plan.name, tag=plan.tag, source=source, built=built, seconds=seconds, size=size
        )
        if plan.name in self._stands:
            self._stands[plan.name].set()
        self._say(plan, "done", f"{_size(size)}, {f'built in {seconds:.1f} s' if built else 'up to date'}")

    async def _build(self, plan: ImagePlan, source: str, no_cache: bool) -> None:
        args = {**sources.build_args(self._checkout, plan), **self._proxies()}
        labels = {SOURCE_LABEL: source}
        if plan.name == WORKER:
            args["PERRY_VERSION"] = self._worker
        if plan.name == WORKER or plan.takes_worker:
            labels[WORKER_LABEL] = self._worker
        if plan.name == BASE:
            rootfs, origin = await self._rootfs(plan, no_cache)
            args["PERRY_ROOTFS"] = rootfs
            labels[ORIGIN_LABEL] = origin
        binaries = {binary.name: Path() for binary in plan.binaries}
        for binary in plan.binaries:
            async with self._compiler:
                self._say(plan, "step", f"compiling {binary.name}")
                binaries[binary.name] = await build_go(
                    self._checkout, binary, self._env, lambda text: self._say(plan, "line", text)
                )
        if plan.on_base:
            # Compilers have been at work meanwhile.
            await self._stands[BASE].wait()
        if plan.takes_worker:
            await self._stands[WORKER].wait()
        self._say(plan, "step", f"building {plan.tag}")
        files = sources.context_files(self._checkout, plan, self._certificates)
        await self._builder.build(
            plan.tag,
            await anyio.to_thread.run_sync(sources.pack, files, binaries),
            args=args,
            labels=labels,
            no_cache=no_cache,
            line=lambda text: self._say(plan, "line", text),
        )

    async def _rootfs(self, plan: ImagePlan, afresh: bool) -> tuple[str, str]:
        """The image to begin with, and where it came from. What is here already serves, unless all is built afresh."""
        if not afresh:
            for tag, origin in ((REGISTRY_ROOTFS, "registry"), (IMPORTED_ROOTFS, "debian-packages")):
                if await self._builder.image(tag) is not None:
                    self._say(plan, "step", f"starting from {tag}, which is here already")
                    return tag, origin
        self._say(plan, "step", f"asking a container registry for {REGISTRY_ROOTFS}")
        if await self._builder.pull(REGISTRY_ROOTFS, patience=REGISTRY_SECONDS):
            self._say(plan, "step", f"starting from a container registry's {REGISTRY_ROOTFS}")
            return REGISTRY_ROOTFS, "registry"
        self._say(plan, "step", "no container registry answers: making the base from Debian's packages with mmdebstrap")
        async with debian_rootfs(self._env, lambda text: self._say(plan, "line", text)) as tarball:
            await self._builder.import_rootfs(IMPORTED_ROOTFS, tarball)
        return IMPORTED_ROOTFS, "debian-packages"

    def _proxies(self) -> dict[str, str]:
        """Docker knows these arguments by itself and keeps them out of the image."""
        return {name: value for name in PROXY_VARIABLES if (value := self._env.get(name))}

    def _say(self, plan: ImagePlan, kind: str, text: str) -> None:
        self._report(BuildReport(image=plan.name, kind=kind, text=text))


@asynccontextmanager
async def _one_at_a_time(checkout: Path, report: Report) -> AsyncIterator[None]:
    """Two builds of one checkout would write the same files and do everything twice."""
    folder = checkout / ".build"
    folder.mkdir(exist_ok=True)
    with (folder / "images.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(BuildReport(image="", kind="step", text="waiting for another build of this checkout to end"))
            await anyio.to_thread.run_sync(fcntl.flock, lock, fcntl.LOCK_EX, abandon_on_cancel=True)
        yield


def _first(group: BaseExceptionGroup[PerryError]) -> PerryError:
    for exc in group.exceptions:
        return _first(exc) if isinstance(exc, BaseExceptionGroup) else exc
    raise AssertionError("an exception group is never empty")


def _size(octets: int) -> str:
    return f"{octets / 1e9:.2f} GB" if octets >= 1e9 else f"{octets / 1e6:.0f} MB"
