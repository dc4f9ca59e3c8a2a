"""Makes a workspace the copy of another: its home, its Docker's volume, and what was installed outside of those.

A first pass copies while the other one runs, and further ones what has changed in the meantime. For the last, short
one it is frozen, so that all of the copy is of one moment. What is one workspace's alone does not come along: ssh host
keys, the place on the tailnet, secrets, addresses. Each part is safe to be broken off anywhere, and to run again.
"""

import contextlib
import logging
import time
from collections.abc import Callable

import anyio
import msgspec

from controlplane.errors import Conflict, EngineError, PerryError, StepFailed
from controlplane.ports import Engine
from controlplane.workspaces import copying, spec
from controlplane.workspaces.jobs import Jobs
from controlplane.workspaces.pods import Checkpoint, Pods
from controlplane.workspaces.spec import Names, PodSpec, Request
from controlplane.workspaces.state import Desired
from controlplane.workspaces.store import Store

log = logging.getLogger(__name__)

PASSES = 3
LITTLE = 32 << 20
"""Bytes: where a pass found no more than this changed, the next one is short."""
FROZEN_SECONDS = 60.0
TRIES = 5
TURN_SECONDS = 0.1
TELL_SECONDS = 0.5

Tell = Callable[[str], None]


class Cloner:
    """Copies workspaces. Jobs of the one that is copied wait for the moment in which it is frozen, or break it off."""

    def __init__(
        self, *, engine: Engine, store: Store, pods: Pods, jobs: Jobs, instance: str, checkpoint: Checkpoint
    ) -> None:
        self._engine = engine
        self._store = store
        self._pods = pods
        self._jobs = jobs
        self._instance = instance
        self._checkpoint = checkpoint

    async def copy(self, pod: PodSpec, request: Request, tell: Tell) -> tuple[Request, str]:
        """Fill the volumes of a pod from those of ``request.source``, and make its image.

        What is its request from now on, as one like any other, and what is worth saying. ``tell`` hears how far it is.
        EngineOutOfSpace where it does not fit.
        """
        assert request.source is not None
        source = request.source
        record = self._store.get(source)
        if record is None or record.desired is Desired.DELETED:
            raise StepFailed(f"The workspace {source!r} was deleted before it had been copied.")
        theirs, labels = self._pods.names(source), spec.workspace_labels(self._instance, pod.names.name)
        # A control plane that ended in the middle of it may have left it frozen.
        await self._engine.unpause(theirs.workspace)
        try:
            await self._engine.remove_container(pod.names.copier)
            for volume, marks in pod.volumes.items():
                await self._engine.ensure_volume(volume, marks)
            copier = await self._engine.ensure_container(copying.copier(pod.names, theirs, request, labels))
            self._checkpoint("copier created")
            await self._engine.start(copier)
            said = await self._copy(_Copy(self._engine, copier, source, request, tell), pod.names, theirs)
            image = pod.names.image if await self._engine.image_id(pod.names.image) else request.image
            return msgspec.structs.replace(request, source=None, image=image), said
        finally:
            with anyio.CancelScope(shield=True), contextlib.suppress(EngineError):
                await self._engine.remove_container(pod.names.copier)

    async def _copy(self, copy: "_Copy", ours: Names, theirs: Names) -> str:
        await copy.check_room()
        for _ in range(PASSES):
            if await copy.one_pass(frozen=False) <= LITTLE:
                break
        self._checkpoint("copied once")
        frozen = await self._last_pass(copy, ours, theirs)
        self._checkpoint("copied")
        said = await copy.rename(ours.name)
        self._checkpoint("renamed")
        log.info("%s is a copy of %s, which was frozen for %.2f s", ours.name, copy.source, frozen)
        return f"{said}{copy.source} was frozen for {frozen:.1f} s." if frozen else said.strip()

    async def _last_pass(self, copy: "_Copy", ours: Names, theirs: Names) -> float:
        """Copy what has changed while nothing changes, and make the image; for how many seconds it was frozen."""
        seconds: list[float] = []

        async def run(_: str) -> None:
            seconds.append(await self._frozen(copy, ours, theirs))

        for _ in range(TRIES):
            while (other := self._jobs.get(copy.source)) is not None:
                await other.done.wait()
            job = self._jobs.submit(copy.source, "copy", run)
            await job.done.wait()
            if seconds:
                return seconds[0]
            if job.error is not None and not job.scope.cancel_called:
                raise job.error
            # It made room for another request, which must have its turn.
            await anyio.sleep(TURN_SECONDS)
        raise Conflict(f"{copy.source!r} is being stopped and started again and again; clone it when that is over.")

    async def _frozen(self, copy: "_Copy", ours: Names, theirs: Names) -> float:
        present = await self._engine.inspect(theirs.workspace)
        if present is None or not present.running:
            await self._pass_and_image(copy, ours, theirs if present else None)
            return 0.0
        began = time.monotonic()
        try:
            await self._engine.pause(theirs.workspace)
            self._checkpoint("frozen")
            with anyio.fail_after(FROZEN_SECONDS):
                await self._pass_and_image(copy, ours, theirs)
        except TimeoutError as exc:
            raise StepFailed(
                f"{copy.source!r} changes so much that {FROZEN_SECONDS:g} s of its being frozen did not do; "
                f"`perry stop {copy.source}`, then clone it."
            ) from exc
        finally:
            with anyio.CancelScope(shield=True):
                await self._engine.unpause(theirs.workspace)
        return time.monotonic() - began

    async def _pass_and_image(self, copy: "_Copy", ours: Names, theirs: Names | None) -> None:
        failures: list[PerryError] = []

        async def image() -> None:
            try:
                await self._make_image(ours, theirs)
            except PerryError as exc:
                failures.append(exc)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(image)
            try:
                await copy.one_pass(frozen=True)
            except PerryError as exc:
                failures.append(exc)
        if failures:
            raise failures[0]

    async def _make_image(self, ours: Names, theirs: Names | None) -> None:
        labels = spec.workspace_labels(self._instance, ours.name)
        await self._engine.remove_images(labels)
        if theirs is not None:
            # The claim is the other one's, and must not be taken for ours. Docker goes on when it is no longer asked.
            with anyio.CancelScope(shield=True):
                await self._engine.commit(theirs.workspace, ours.image, {**labels, "perry.claim": "", "perry.spec": ""})


class _Copy:
    """One copy that is being made, by a container that has both sides' volumes."""

    def __init__(self, engine: Engine, copier: str, source: str, request: Request, tell: Tell) -> None:
        self.source = source
        self._engine = engine
        self._copier = copier
        self._parts = copying.folders(request)
        self._tell = tell
        self._total = 0

    async def check_room(self) -> None:
        used = await self._engine.exec(self._copier, [*copying.USED, *(f"/from/{part}" for part in self._parts)])
        free = await self._engine.exec(self._copier, [*copying.FREE, *(f"/to/{part}" for part in self._parts)])
        there_is = copying.room(used, free)
        copying.check_room(self.source, there_is)
        self._total = there_is.used

    async def one_pass(self, *, frozen: bool) -> int:
        """Bytes that were other than before. Where ``frozen``, all of it must have been readable."""
        said, shown, code = "", 0.0, -1
        async for stream, data in self._engine.exec_stream(self._copier, copying.one_pass()):
            if stream == "exit":
                code = int(data)
                continue
            said = (said + data.decode(errors="replace"))[-8000:]
            if not frozen and time.monotonic() - shown >= TELL_SECONDS and (count := copying.copied(said)):
                shown = time.monotonic()
                self._tell(f"{copying.size(count)} of {copying.size(max(self._total, count))}")
        if code == 0 or (not frozen and code == copying.VANISHED):
            return copying.moved(said)
        error = copying.failed(self.source, code, said)
        if not frozen and code == copying.CHANGED and isinstance(error, StepFailed):
            return copying.moved(said)
        raise error

    async def rename(self, name: str) -> str:
        """The project folder gets the copy's name. What may be said of it, with a space at its end."""
        script = ["sh", "-c", copying.RENAME, "perry-rename", "/to/home", self.source, name]
        done = await self._engine.exec(self._copier, script)
        if done.exit_code == 0:
            return f"~/{self.source} is ~/{name} there, and a link for what knows the old name. "
        if done.exit_code == copying.NOTHING_TO_RENAME:
            return ""
        if done.exit_code == copying.NAME_TAKEN:
            return f"~/{self.source} keeps its name, since there is a ~/{name}. "
        words = done.stderr.decode(errors="replace").strip()[:200]
        raise StepFailed(f"~/{self.source} could not be renamed in the copy: {words}")
