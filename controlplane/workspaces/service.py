"""The use cases of workspaces.

What takes long runs as a job in the control plane's own task group: a client that goes away in the middle of a start,
or asks twice, changes nothing. Each workspace has one job at a time.
"""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio
import msgspec

from controlplane.errors import Conflict, EngineUnavailable, NotFound, NotReady, PerryError, StepFailed
from controlplane.ports import Engine, Tailnet, WorkerKeeper
from controlplane.workspaces import sidecars, spec, state, wishes
from controlplane.workspaces.checkout import Checkout
from controlplane.workspaces.inside import Inside
from controlplane.workspaces.jobs import Job, Jobs
from controlplane.workspaces.leftovers import Leftovers
from controlplane.workspaces.pods import Checkpoint, Pods
from controlplane.workspaces.progress import Kind, Progress
from controlplane.workspaces.reservations import Reservations
from controlplane.workspaces.startup import Starter
from controlplane.workspaces.state import Desired, Pod
from controlplane.workspaces.store import Record, Store
from protocol.workspaces import (
    CloneWorkspace,
    DeleteWorkspace,
    ExecCommand,
    ExecResult,
    ListeningPorts,
    LogLines,
    StartupState,
    StartWorkspace,
    UnsavedWork,
    Workspace,
    WorkspaceLogs,
    WorkspacePorts,
)


class Announcer(Protocol):
    """Where changes are told; never blocks."""

    def workspace_changed(self, workspace: Workspace) -> None: ...

    def workspace_deleted(self, name: str) -> None: ...


class KeepSessions(Protocol):
    """Remembers whether sessions of coding agents stay when their workspace is deleted. PerryError where it cannot."""

    async def __call__(self, workspace: str, keep: bool) -> None: ...


class Workspaces:
    """All workspaces of this control plane. Raises :mod:`controlplane.errors` only."""

    def __init__(
        self,
        *,
        engine: Engine,
        tailnet: Tailnet,
        store: Store,
        pods: Pods,
        followed: sidecars.Sidecars,
        checkout: Checkout,
        reservations: Reservations,
        starter: Starter,
        leftovers: Leftovers,
        workers: WorkerKeeper,
        announcer: Announcer,
        jobs: Jobs,
        keep_sessions: KeepSessions,
        checkpoint: Checkpoint,
    ) -> None:
        self._engine = engine
        self._tailnet = tailnet
        self._store = store
        self._pods = pods
        self._sidecars = followed
        self._checkout = checkout
        self._reservations = reservations
        self._starter = starter
        self._leftovers = leftovers
        self._inside = Inside(engine)
        self._workers = workers
        self._announcer = announcer
        self._keep_sessions = keep_sessions
        self._checkpoint = checkpoint
        self._jobs = jobs
        self._progress = Progress(self.changed)
        self._seen: dict[str, Pod] = {}
        self._looks = self._newest_look = 0
        self._reserving = anyio.Lock()

    # --- reading

    async def list(self) -> list[Workspace]:
        """Every workspace, by name."""
        await self.look()
        return [self._view(record) for record in self._store.all()]

    async def get(self, name: str) -> Workspace:
        record = self._must_exist(name)
        await self.look()
        return self._view(record)

    def last_seen(self) -> Sequence[Workspace]:
        """Every workspace as it was when last looked at; asks nobody."""
        return [self._view(record) for record in self._store.all()]

    async def look(self, *, tell: bool = False) -> Mapping[str, Pod]:
        """See what there is; with ``tell``, everybody hears of what has changed."""
        self._looks += 1
        look = self._looks
        pods = await self._pods.all()
        if look < self._newest_look:
            return self._seen  # A look that began later has ended before: it knows better.
        self._newest_look = look
        before, self._seen = self._seen, pods
        for name in before.keys() | pods.keys() if tell else ():
            if before.get(name) != pods.get(name):
                self.changed(name)
        return pods

    def changed(self, name: str) -> None:
        """Tell everybody how a workspace stands now."""
        record = self._store.get(name)
        if record is not None:
            self._announcer.workspace_changed(self._view(record))

    def _view(self, record: Record) -> Workspace:
        pod = self._seen.get(record.name, Pod())
        startup = self._starter.startup(record.name) or record.startup
        runs = pod.tailnet is not None and pod.tailnet.running
        return Workspace(
            name=record.name,
            status=state.status(record.desired, pod, startup, record.error),
            created=record.reservation.created,
            ports=WorkspacePorts(ssh=record.reservation.ssh_port),
            image=record.request.image,
            docker=record.request.docker,
            limits=record.request.limits,
            tailnet=sidecars.shown(
                record.name, self._sidecars.status(record.name), joins=self._tailnet.joins, runs=runs
            ),
            ssh_host_keys=list(record.host_keys),
            container_id=pod.workspace.id if pod.workspace else None,
            repo=wishes.shown_repository(record.request),
            branch=record.request.new_branch or record.request.branch,
            startup=startup,
            error=record.error,
            deleting=True if record.desired is Desired.DELETED else None,
            work=self._progress.of(record.name),
            worker=self._workers.shown(record.name),
        )

    # --- starting

    async def create(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        """A new workspace; Conflict where it exists."""
        return await self._start(wanted, made_for, new=True)

    async def start(self, wanted: StartWorkspace, *, made_for: str | None = None) -> Workspace:
        """Create what is missing and start it. With ``wait``, returns when it runs; StepFailed where a step failed.

        A start of what is starting already joins that start. ``made_for`` is a task's id, see :meth:`made_for`.
        """
        return await self._start(wanted, made_for, new=False)

    async def _start(self, wanted: StartWorkspace, made_for: str | None, *, new: bool) -> Workspace:
        name = spec.valid_name(wanted.name)
        wishes.must_make_sense(wanted)
        async with self._reserving:
            record = self._store.get(name)
            if record is None:
                await self._reservations.of_new(name, wanted, made_for)
                job = self._jobs.submit(name, "start", self._walk)
            elif new:
                raise Conflict(f"A workspace named {name!r} exists already; `perry start {name}` starts it.")
            else:
                job = await self._begin_again(record, wanted)
        if wanted.wait:
            return await self._started(name, job)
        return self._view(self._must_exist(name))

    async def _started(self, name: str, job: Job) -> Workspace:
        await self._jobs.finished(job)
        workspace = await self.get(name)
        if workspace.startup is not None and workspace.startup.state is StartupState.FAILED:
            raise StepFailed(workspace.error or f"{name!r} could not be started.", data=workspace)
        return workspace

    async def _walk(self, name: str) -> None:
        """A start. A copy that could not be made leaves nothing."""
        await self._starter.walk(name)
        record = self._store.get(name)
        if record is None or record.request.source is None:
            return
        with contextlib.suppress(EngineUnavailable):
            await self._engine.info()
            self._store.ask(name, Desired.DELETED)
            await self._delete(name)
            raise StepFailed(record.error or f"{record.request.source!r} could not be copied.")

    async def clone(self, wanted: CloneWorkspace) -> Workspace:
        """A new workspace that is a copy of another. Conflict where the new name is taken.

        With ``wait``, returns when it runs; StepFailed where a step failed. A copy that is being made is joined.
        """
        new = spec.valid_name(wanted.new)
        source = self._must_exist(wanted.name)
        async with self._reserving:
            present = self._store.get(new)
            job = self._jobs.get(new)
            if present is None:
                job = await self._begin_clone(source, new)
            elif present.request.source != source.name or job is None or job.kind != "start":
                raise Conflict(f"A workspace named {new!r} exists already; choose another name for the copy.")
        if wanted.wait:
            return await self._started(new, job)
        return self._view(self._must_exist(new))

    async def _begin_clone(self, source: Record, new: str) -> Job:
        if source.desired is Desired.DELETED:
            raise Conflict(f"The workspace {source.name!r} is being deleted.")
        if source.request.source is not None or not source.host_keys:
            raise NotReady(f"{source.name!r} has never run, so there is nothing to copy; `perry start {source.name}`.")
        await self._reservations.of_copy(new, source)
        return self._jobs.submit(new, "start", self._walk)

    async def _begin_again(self, record: Record, wanted: StartWorkspace) -> Job:
        name = record.name
        if record.desired is Desired.DELETED:
            raise Conflict(f"The workspace {name!r} is being deleted; start it when it is gone.")
        request = wishes.once_more(record.request, wanted)
        running = self._jobs.get(name)
        if running is not None and running.kind == "start":
            # What is cloned by now need not be cloned again, and is no other wish.
            if msgspec.structs.replace(request, cloned=record.request.cloned) != record.request:
                raise Conflict(f"{name!r} is being started with other options; wait for that start, then start again.")
            return running
        if running is not None:
            await running.done.wait()
        await self.look()
        pod = self._seen.get(name, Pod())
        if pod.workspace is not None and pod.workspace.running and wishes.recreates(record.request, request):
            raise Conflict(
                f"{name!r} runs with other options; `perry stop {name}` first, then start it with the new ones."
            )
        if wishes.recreates(record.request, request):
            await self._reservations.must_be_possible(request)
        self._store.set_request(name, request)
        return self.start_now(record)

    def start_now(self, record: Record) -> Job:
        """Begin a start of a workspace that exists; joins one that is under way."""
        running = self._jobs.get(record.name)
        if running is not None and running.kind == "start":
            return running
        self._store.ask(record.name, Desired.RUNNING)
        copies = record.request.source is not None
        self._store.set_startup(record.name, state.begun(record.startup, copies=copies), None)
        self.changed(record.name)
        return self._jobs.submit(record.name, "start", self._walk)

    # --- stopping

    async def stop(self, name: str) -> Workspace:
        """Stop it; home and Docker's volume stay. Succeeds where it is stopped already."""
        record = self._must_exist(name)
        await self._jobs.end(name)
        self._store.ask(name, Desired.STOPPED)
        if record.starting and record.startup is not None:
            self._store.set_startup(name, state.ended(record.startup, failed=False), None)
        await self._jobs.finished(self._jobs.submit(name, "stop", self._stop))
        return await self.get(name)

    def stop_now(self, name: str) -> Job:
        """Begin to stop what should not run."""
        return self._jobs.submit(name, "stop", self._stop)

    async def _stop(self, name: str) -> None:
        with self._progress.work(name, Kind.STOP), self._progress.step(name, "stop"):
            await self._pods.stop(name)
            self._sidecars.forget(name)
            await self.look()
        self.changed(name)

    async def restart(self, name: str) -> Workspace:
        """Restart the workspace's container; its tailnet address and connections stay. Starts what is stopped."""
        record = self._must_exist(name)
        if not self._jobs.busy(name):
            names = self._pods.names(name)
            with self._progress.work(name, Kind.RESTART), self._progress.step(name, "stop"):
                await self._engine.stop(names.workspace)
        return await self.start(StartWorkspace(name=record.name))

    # --- deleting

    async def delete(self, wanted: DeleteWorkspace) -> None:
        """Remove it with all that it has. Unless forced, Conflict with :class:`UnsavedWork` where work would go."""
        record = self._must_exist(wanted.name)
        self._refuse_while_copied(wanted.name)
        if record.desired is not Desired.DELETED:
            if not wanted.force:
                await self._refuse_to_lose_work(record)
            await self._keep(wanted)
            await self._jobs.end(wanted.name)
            self._store.ask(wanted.name, Desired.DELETED)
            self._checkpoint("deletion asked for")
        await self._jobs.finished(self.delete_now(wanted.name))

    def _refuse_while_copied(self, name: str) -> None:
        copies = [each.name for each in self._store.all() if each.request.source == name]
        if copies:
            raise Conflict(f"{name!r} is being copied to {copies[0]!r}; wait until that runs, or delete that first.")

    async def _keep(self, wanted: DeleteWorkspace) -> None:
        try:
            await self._keep_sessions(wanted.name, wanted.keep_sessions)
        except PerryError:
            # Who wants them kept must not lose them; who does not, must still be able to delete.
            if wanted.keep_sessions:
                raise

    def delete_now(self, name: str) -> Job:
        """Begin or go on with a deletion that was asked for."""
        running = self._jobs.get(name)
        if running is not None and running.kind == "delete":
            return running
        return self._jobs.submit(name, "delete", self._delete)

    async def _refuse_to_lose_work(self, record: Record) -> None:
        name = record.name
        await self.look()
        workspace = self._seen.get(name, Pod()).workspace
        if workspace is None:
            work = UnsavedWork(uncommitted=[], unpushed=[], unknown=_never_ran(record))
            if work.unknown is None:
                return
        elif not workspace.running:
            work = UnsavedWork(uncommitted=[], unpushed=[], unknown=f"{name!r} is stopped, so nobody could look.")
        else:
            work = await self._checkout.unsaved(self._pods.names(name).workspace)
        if work.uncommitted or work.unpushed or work.unknown:
            how = "See in the workspace" if workspace is not None and workspace.running else "Start it to see"
            raise Conflict(
                f"{name!r} has work that would be lost; save it, or delete with --force."
                if work.unknown is None
                else f"{work.unknown} {how} what would be lost, or delete with --force.",
                data=work,
            )

    async def _delete(self, name: str) -> None:
        record = self._must_exist(name)
        if record.request.source is not None:
            # A control plane that ended while it copied may have left it frozen.
            await self._engine.unpause(self._pods.names(record.request.source).workspace)
        status = self._sidecars.status(name)
        nodes = {node for node in (record.node_id, status.node_id if status else None) if node}
        self._sidecars.forget(name)
        with self._progress.work(name, Kind.DELETE):
            await self._take_away(name)
        # From here on only the tailnet knows of it, and state.db of what is left there.
        self._store.forget(name, nodes=nodes, keys=[record.key_id] if record.key_id else [])
        self._checkpoint("forgotten")
        self._seen.pop(name, None)
        self._announcer.workspace_deleted(name)
        await self._leftovers.clear()

    async def _take_away(self, name: str) -> None:
        with self._progress.step(name, "containers"):
            await self._pods.remove_containers(name)
        with self._progress.step(name, "rest"):
            await self._pods.remove_rest(name)

    # --- inside

    async def exec(self, wanted: ExecCommand) -> ExecResult:
        """Run a command as user ``workspace`` in the project folder, or in home where there is none."""
        return await self._inside.exec(await self.container(wanted.name), wanted)

    async def ports(self, name: str) -> ListeningPorts:
        """What listens in it, but what is Perry's own."""
        return await self._inside.ports(await self.container(name), name)

    async def logs(self, wanted: WorkspaceLogs) -> LogLines:
        """The newest lines of the workspace and its sidecar, oldest first."""
        self._must_exist(wanted.name)
        return await self._inside.logs(self.log_sources(wanted.name), wanted)

    def log_sources(self, name: str) -> dict[str, str]:
        """The containers whose lines are shown, by what those are called there."""
        names = self._pods.names(name)
        return {"workspace": names.workspace, "tailnet": names.tailnet}

    def must_exist(self, name: str) -> None:
        """NotFound where there is no such workspace."""
        self._must_exist(name)

    def is_wanted(self, name: str) -> bool:
        """Whether there is such a workspace, and it is meant to run."""
        record = self._store.get(name)
        return record is not None and record.desired is Desired.RUNNING

    def is_stopped(self, name: str) -> bool:
        """Whether somebody had it stopped, and that is done. A restart of it, or of Docker, does not count."""
        record = self._store.get(name)
        if record is None or record.desired is not Desired.STOPPED or self._jobs.busy(name):
            return False
        container = self._seen.get(name, Pod()).workspace
        return container is None or not container.running

    def made_for(self, name: str) -> str | None:
        """The id of the task that it was made for; None where a person asked for it. NotFound."""
        return self._must_exist(name).request.made_for

    async def container(self, name: str) -> str:
        """The container of a workspace that runs, for commands in it. NotFound; NotReady where it does not run."""
        self._must_exist(name)
        container = self._pods.names(name).workspace
        present = await self._engine.inspect(container)
        if present is None or not present.running:
            raise NotReady(f"{name!r} does not run; `perry start {name}` starts it.")
        return container

    def _must_exist(self, name: str) -> Record:
        record = self._store.get(name)
        if record is None:
            raise NotFound(f"There is no workspace named {name!r}; `perry list` shows those that there are.")
        return record


def _never_ran(record: Record) -> str | None:
    """None where a workspace never came so far that there could be work in it."""
    return None if not record.host_keys else f"The container of {record.name!r} is gone, so nobody could look."
