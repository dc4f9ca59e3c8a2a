"""The walk of a start: from a reservation to a workspace that answers, each step reported and safe to run twice.

The same walk makes a workspace, starts a stopped one and repairs a broken one. What fails before ssh answers ends it. A
tailnet that cannot be joined and a repository that cannot be cloned are failed steps of a workspace that runs.
"""

import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import msgspec

from controlplane.errors import (
    ContainerStuck,
    EngineConflict,
    EngineError,
    PerryError,
    StepFailed,
    TailnetError,
    TailnetNameTaken,
    TookTooLong,
    first_error,
)
from controlplane.ports import ContainerState, Engine, Machine, Provisions, Tailnet, WorkerKeeper, is_node_of
from controlplane.settings import Settings
from controlplane.workspaces import spec as specs
from controlplane.workspaces import state
from controlplane.workspaces.checkout import Checkout
from controlplane.workspaces.cloning import Cloner
from controlplane.workspaces.greeting import Greeting, host_key
from controlplane.workspaces.keys import Keys, Minting
from controlplane.workspaces.pods import Checkpoint, Pods, port_is_taken, ssh_ports, subnet_is_taken
from controlplane.workspaces.sidecars import Sidecars, SidecarStatus
from controlplane.workspaces.spec import PodSettings, PodSpec, Request
from controlplane.workspaces.state import StepId
from controlplane.workspaces.store import Record, Store
from protocol.workspaces import Startup, StepStatus

log = logging.getLogger(__name__)

BORDER_SECONDS = 15
SSH_SECONDS = 60
JOIN_SECONDS = 45
RESERVATIONS_TRIED = 5
GREETING_SECONDS = 1.0
PROGRESS_SECONDS = 0.2


class Starter:
    """Walks starts. One walk at a time for each workspace: the service sees to that."""

    def __init__(
        self,
        *,
        engine: Engine,
        tailnet: Tailnet,
        machine: Machine,
        store: Store,
        pods: Pods,
        sidecars: Sidecars,
        checkout: Checkout,
        cloner: Cloner,
        keys: Keys,
        provisions: Provisions,
        workers: WorkerKeeper,
        pod_settings: Callable[[], Awaitable[PodSettings]],
        settings: Settings,
        ssh_address: str,
        look: Callable[[], Awaitable[object]],
        changed: Callable[[str], None],
        checkpoint: Checkpoint,
    ) -> None:
        self._engine = engine
        self._tailnet = tailnet
        self._machine = machine
        self._store = store
        self._pods = pods
        self._sidecars = sidecars
        self._checkout = checkout
        self._cloner = cloner
        self._keys = keys
        self._provisions = provisions
        self._workers = workers
        self._pod_settings = pod_settings
        self._settings = settings
        self._ssh_address = ssh_address
        self._look = look
        self._changed = changed
        self._checkpoint = checkpoint
        self._live: dict[str, Startup] = {}

    def startup(self, name: str) -> Startup | None:
        """The start that is under way, as far as it has come. state.db has only how a start began and ended."""
        return self._live.get(name)

    async def walk(self, name: str) -> None:
        """Run the start that the record has begun, to its end. The outcome stands in the record; only bugs raise."""
        failures: list[str] = []
        self._live[name] = self._must_exist(name).startup or state.begun(None)
        try:
            try:
                await self._walk(name, failures)
            except PerryError as exc:
                failures.insert(0, exc.message)
            # Who hears of the end hears of what runs by then.
            with contextlib.suppress(EngineError):
                await self._look()
        except Exception:
            self._end(name, failures)
            raise
        except BaseException:
            # Broken off: in state.db it is under way, and goes on with the next control plane. Who asked for its end
            # notes that.
            del self._live[name]
            raise
        self._end(name, failures)

    def _end(self, name: str, failures: list[str]) -> None:
        startup = state.ended(self._live.pop(name), failed=bool(failures))
        if self._store.get(name) is not None:
            self._store.set_startup(name, startup, " ".join(failures) or None)
            self._changed(name)

    async def _walk(self, name: str, failures: list[str]) -> None:
        minting = Minting()
        for _ in range(RESERVATIONS_TRIED):
            try:
                await self._walk_once(name, minting, failures)
                return
            except ContainerStuck as exc:
                log.warning("%s is made anew: %s", name, exc.message)
            except EngineConflict as exc:
                await self._reserve_anew(name, exc)
        await self._walk_once(name, minting, failures)

    async def _reserve_anew(self, name: str, conflict: EngineConflict) -> None:
        """Another port or subnet where somebody else has ours. A workspace that ran before keeps what people know."""
        record = self._must_exist(name)
        if record.host_keys or not (port_is_taken(conflict) or subnet_is_taken(conflict)):
            raise conflict
        log.info("reserving anew for %s: %s", name, conflict.message)
        await self._pods.remove_containers(name)
        await self._engine.remove_network(self._pods.names(name).network)
        if port_is_taken(conflict):
            others = {each.reservation.ssh_port for each in self._store.all()}
            free = (port for port in ssh_ports(self._machine, self._settings.ssh) if port not in others)
            self._store.move(name, ssh_port=next(free, record.reservation.ssh_port))
        else:
            taken = [*await self._engine.subnets_in_use(), *(each.reservation.subnet for each in self._store.all())]
            self._store.move(name, subnet=specs.free_subnet(self._settings.network.pool, taken))

    async def _walk_once(self, name: str, minting: Minting, failures: list[str]) -> None:
        record = (self._store.enter_tailnet(name) if self._tailnet.joins else None) or self._must_exist(name)
        self._report(name, StepId.RESERVE, StepStatus.DONE, None, 0.0)
        settings = await self._pod_settings()
        pod = specs.pod_spec(settings, record.reservation, record.request)
        if record.request.source is not None:
            request = await self._copy(name, pod, record.request)
            pod = specs.pod_spec(settings, record.reservation, request)
        await self._pods.check_images([pod.sandbox.image, pod.workspace.image])
        greeting, rest_done = Greeting(), anyio.Event()
        async with first_error(), anyio.create_task_group() as all_of_it:
            all_of_it.start_soon(self._mint_for, minting, name, record)
            async with self._step(name, StepId.CREATE):
                sandbox = await self._pods.create(pod)
            async with self._step(name, StepId.BORDER):
                await self._wait_for_border(name, pod)
            async with anyio.create_task_group() as tasks:
                sidecar_runs = anyio.Event()
                tasks.start_soon(self._join, name, sidecar_runs, minting, failures)
                # Nothing else may be in the pod's network before its border stands.
                async with self._step(name, StepId.WORKSPACE):
                    workspace = await self._start_both(name, pod, sandbox, sidecar_runs)
                all_of_it.start_soon(self._attend, name, workspace, sandbox.address, rest_done, failures)
                tasks.start_soon(self._fill, name, pod, greeting, failures)
                async with self._step(name, StepId.SSH):
                    async with first_error(), anyio.create_task_group() as listening:
                        listening.start_soon(greeting.hear, self._engine, pod.names.workspace)
                        await self._wait_for_ssh(record, pod, greeting)
                        listening.cancel_scope.cancel()
                    self._note_host_keys(name, greeting.host_key or await self._read_host_key(pod))
            rest_done.set()

    # --- the steps

    async def _copy(self, name: str, pod: PodSpec, request: Request) -> Request:
        async with self._step(name, StepId.COPY) as said:
            after, words = await self._cloner.copy(pod, request, functools.partial(self._tell, name, StepId.COPY))
            self._store.set_request(name, after)
            said.append(words)
        self._checkpoint("copy recorded")
        return after

    async def _mint_for(self, minting: Minting, name: str, record: Record) -> None:
        """The key that is handed over later. One that an earlier walk of this start was given is still there."""
        if minting.over:
            return
        try:
            minting.end(await self._mint(name, record))
        except TailnetError as exc:
            # It runs all the same; the step TAILNET tries again.
            log.warning("no key for %s: %s", name, exc.message)
            minting.end(None)

    async def _mint(self, name: str, record: Record) -> str | None:
        if not self._tailnet.joins:
            self._report(name, StepId.KEY, StepStatus.SKIPPED, "There is no tailnet.", None)
            return None
        if record.key_id is not None:
            # A start that was broken off: the sidecar may have used that key already, and asks if it has not.
            self._report(name, StepId.KEY, StepStatus.SKIPPED, "It was asked for before.", None)
            return None
        if record.node_id is not None and await self._is_on_tailnet(record.node_id, name):
            self._report(name, StepId.KEY, StepStatus.SKIPPED, "It is on the tailnet already.", None)
            return None
        async with self._step(name, StepId.KEY):
            return await self._keys.mint(name)

    async def _is_on_tailnet(self, node_id: str, name: str) -> bool:
        return not self._tailnet.manages or is_node_of(await self._tailnet.node(node_id), name)

    async def _wait_for_border(self, name: str, pod: PodSpec) -> None:
        with anyio.move_on_after(BORDER_SECONDS):
            if await self._pods.border_stands(name):
                return
        raise StepFailed(
            f"The sandbox of {name!r} did not put up its border within {BORDER_SECONDS} s; "
            f"`docker logs {pod.names.sandbox}` has its reasons."
        )

    async def _start_both(
        self, name: str, pod: PodSpec, sandbox: ContainerState, sidecar_runs: anyio.Event
    ) -> ContainerState:
        """The sidecar and, at once, the workspace, which is returned."""
        failed: list[EngineError] = []
        workspace: ContainerState | None = None

        # Errors are kept until both have ended: a start that is broken off goes on inside Docker.
        async def start_sidecar() -> None:
            try:
                sidecar = await self._pods.start_joined(pod.names.tailnet, sandbox)
            except EngineError as exc:
                failed.append(exc)
            else:
                self._checkpoint("sidecar started")
                self._sidecars.follow(name, sidecar.id, started=str(sidecar.started))
                sidecar_runs.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(start_sidecar)
            try:
                workspace = await self._pods.start_joined(pod.names.workspace, sandbox)
                self._checkpoint("workspace started")
            except EngineError as exc:
                failed.append(exc)
        if workspace is None or failed:
            raise failed[0]
        return workspace

    async def _wait_for_ssh(self, record: Record, pod: PodSpec, greeting: Greeting) -> None:
        with anyio.move_on_after(SSH_SECONDS):
            # Asking costs, and before that nobody answers. An image that does not greet is asked all the same.
            with anyio.move_on_after(GREETING_SECONDS):
                await greeting.over.wait()
            while not await self._machine.ssh_answers(self._ssh_address, record.reservation.ssh_port):
                workspace = await self._engine.inspect(pod.names.workspace)
                if workspace is None or workspace.status in ("exited", "dead"):
                    raise StepFailed(
                        f"The workspace {record.name!r} ended as soon as it started; "
                        f"`perry logs {record.name}` has its last words."
                    )
                await anyio.sleep(0.02)
            greeting.over.set()
            return
        raise TookTooLong(
            f"ssh did not answer in {record.name!r} within {SSH_SECONDS} s; `perry logs {record.name}` may say why "
            "(an image of your own needs Perry's workspace-base below it)."
        )

    async def _read_host_key(self, pod: PodSpec) -> str | None:
        output = await self._engine.exec(pod.names.workspace, ["cat", specs.HOST_KEY_FILE], limit=1 << 14)
        return host_key(output.stdout.decode(errors="replace"))

    def _note_host_keys(self, name: str, key: str | None) -> None:
        if key is None:
            raise StepFailed(f"The workspace {name!r} has no ssh host key; `perry restart {name}` makes one.")
        before = self._must_exist(name).host_keys
        if before and before != (key,):
            log.warning("the ssh host key of %s has changed", name)
        self._store.set_host_keys(name, (key,))
        self._changed(name)

    async def _fill(self, name: str, pod: PodSpec, greeting: Greeting, failures: list[str]) -> None:
        """Credentials, then what needs them. Each is tried also where the one before has failed."""
        container = pod.names.workspace
        await greeting.over.wait()
        try:
            async with self._step(name, StepId.CREDENTIALS):
                said = await self._provisions.bring(container, name)
                self._checkpoint("credentials brought")
            if said:
                log.info("%s: %s", name, said)
        except PerryError as exc:
            failures.append(exc.message)
        await self._clone(name, pod, failures)
        try:
            async with self._step(name, StepId.SCRIPTS):
                progress = functools.partial(self._tell, name, StepId.SCRIPTS)
                ran = await self._provisions.prepare(container, name, progress)
            if not ran:
                self._report(name, StepId.SCRIPTS, StepStatus.SKIPPED, None, None)
        except PerryError as exc:
            failures.append(exc.message)

    async def _attend(
        self, name: str, workspace: ContainerState, address: str | None, rest_done: anyio.Event, failures: list[str]
    ) -> None:
        """Beside the others, and no longer than they: a worker that is only coming up is heard when it is there."""
        try:
            async with self._step(name, StepId.WORKER) as said:
                if (words := await self._workers.attend(name, workspace, address, rest_done)) is not None:
                    said.append(words)
        except PerryError as exc:
            failures.append(exc.message)

    def _tell(self, name: str, step: StepId, detail: str) -> None:
        self._report(name, step, StepStatus.RUNNING, detail, None)

    async def _clone(self, name: str, pod: PodSpec, failures: list[str]) -> None:
        request = self._must_exist(name).request
        if request.clone is None or request.cloned:
            self._report(name, StepId.CLONE, StepStatus.SKIPPED, None, None)
            return

        shown = 0.0

        def progress(line: str) -> None:
            nonlocal shown
            if (now := time.monotonic()) - shown >= PROGRESS_SECONDS:
                shown = now
                self._report(name, StepId.CLONE, StepStatus.RUNNING, line, None)

        try:
            async with self._step(name, StepId.CLONE):
                came = await self._checkout.clone(
                    pod.names.workspace,
                    name,
                    request.clone,
                    branch=request.branch,
                    new_branch=request.new_branch,
                    origin=request.origin,
                    progress=progress,
                )
                self._checkpoint("cloned")
                self._store.set_request(name, msgspec.structs.replace(request, cloned=True))
            if not came:
                self._report(name, StepId.CLONE, StepStatus.SKIPPED, f"~/{name} is that repository already.", None)
        except PerryError as exc:
            failures.append(exc.message)

    async def _join(self, name: str, sidecar_runs: anyio.Event, minting: Minting, failures: list[str]) -> None:
        if not self._tailnet.joins:
            self._report(name, StepId.TAILNET, StepStatus.SKIPPED, "There is no tailnet.", None)
            return
        await sidecar_runs.wait()
        try:
            async with self._step(name, StepId.TAILNET):
                status = await self._joined(name, await minting.secret())
                self._store.set_node(name, status.node_id)
                self._store.set_key(name, None)
                self._checkpoint("node recorded")
                if (label := status.dns_name.partition(".")[0]) != name:
                    raise TailnetNameTaken(
                        f"Another device of your tailnet is named {name!r}, so this workspace became {label!r} there; "
                        f"rename or remove that device, then `perry restart {name}`."
                    )
        except PerryError as exc:
            failures.append(exc.message)

    async def _joined(self, name: str, key: str | None) -> SidecarStatus:
        before = self._sidecars.status(name) if key is not None else None

        def settled(status: SidecarStatus) -> bool:
            # One that refused an earlier key has not said yet what it thinks of this.
            return status.state == "running" or (status is not before and status.state in ("failed", "needs-key"))

        await self._pods.hand_over(name, key)
        status = await self._sidecars.wait_for(name, settled, JOIN_SECONDS)
        if status is not None and status.state in ("failed", "needs-key"):
            # A key that is used, expired or revoked: one new one, once.
            await self._pods.hand_over(name, await self._keys.mint(name))
            status = await self._sidecars.wait_for(name, lambda now: now.state == "running", JOIN_SECONDS)
        if status is None or status.state != "running":
            latest = self._sidecars.status(name)
            reason = (latest.error if latest else "") or "the coordinator did not answer in time"
            raise TailnetError(
                f"{name!r} runs, but is not on the tailnet: {reason.rstrip('.')}. It goes on trying; "
                "`perry tailnet status` shows how it stands."
            )
        return status

    # --- reporting

    @contextlib.asynccontextmanager
    async def _step(self, name: str, step: StepId) -> AsyncIterator[list[str]]:
        """One step. What is put into the list is said of it once it is done."""
        said: list[str] = []
        began = time.monotonic()
        self._report(name, step, StepStatus.RUNNING, None, None)
        try:
            yield said
        except PerryError as exc:
            self._report(name, step, StepStatus.FAILED, exc.message, time.monotonic() - began)
            raise
        self._report(name, step, StepStatus.DONE, " ".join(said) or None, time.monotonic() - began)

    def _report(self, name: str, step: StepId, status: StepStatus, detail: str | None, seconds: float | None) -> None:
        rounded = None if seconds is None else round(seconds, 3)
        self._live[name] = state.with_step(self._live[name], step, status, detail, rounded)
        self._changed(name)

    def _must_exist(self, name: str) -> Record:
        record = self._store.get(name)
        if record is None:
            raise StepFailed(f"The workspace {name!r} was deleted while it was being started.")
        return record
