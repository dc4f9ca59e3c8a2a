"""The use cases of workspaces.

What takes long runs as a job in the control plane's own task group: a client that goes away in the middle of a start,
or asks twice, changes nothing. Each workspace has one job at a time.
"""

import contextlib
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import anyio
import msgspec

from controlplane.errors import (
    Conflict,
    EngineUnavailable,
    InvalidInput,
    NotFound,
    NotReady,
    PerryError,
    StepFailed,
    TailnetError,
    TookTooLong,
)
from controlplane.ports import WORKSPACE_TAG, Engine, EngineInfo, Machine, Node, Tailnet, WorkerKeeper, is_node_of
from controlplane.settings import Settings
from controlplane.workspaces import listening, log_times, repository, sidecars, spec, state
from controlplane.workspaces.checkout import USER, Checkout
from controlplane.workspaces.environment import in_environment
from controlplane.workspaces.jobs import Job, Jobs
from controlplane.workspaces.nodes import Nodes
from controlplane.workspaces.pods import Checkpoint, Pods, ssh_ports
from controlplane.workspaces.progress import Kind, Progress
from controlplane.workspaces.spec import HOME, Request
from controlplane.workspaces.startup import Starter
from controlplane.workspaces.state import Desired, Pod
from controlplane.workspaces.store import Record, Store
from protocol.workspaces import (
    CloneWorkspace,
    DeleteWorkspace,
    ExecCommand,
    ExecResult,
    Limits,
    ListeningPorts,
    LogLine,
    LogLines,
    StartupState,
    StartWorkspace,
    UnsavedWork,
    Workspace,
    WorkspaceLogs,
    WorkspacePorts,
)

log = logging.getLogger(__name__)

EXEC_OUTPUT_LIMIT = 4 << 20

NODES_SECONDS = 60.0
"""A name that was taken on the tailnet in this time shows when the workspace joins, and not before."""

_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")


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
        settings: Settings,
        engine: Engine,
        tailnet: Tailnet,
        machine: Machine,
        store: Store,
        pods: Pods,
        followed: sidecars.Sidecars,
        checkout: Checkout,
        starter: Starter,
        workers: WorkerKeeper,
        announcer: Announcer,
        jobs: Jobs,
        keep_sessions: KeepSessions,
        checkpoint: Checkpoint,
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._tailnet = tailnet
        self._machine = machine
        self._store = store
        self._pods = pods
        self._sidecars = followed
        self._checkout = checkout
        self._starter = starter
        self._workers = workers
        self._announcer = announcer
        self._keep_sessions = keep_sessions
        self._checkpoint = checkpoint
        self._jobs = jobs
        self._progress = Progress(self.changed)
        self._seen: dict[str, Pod] = {}
        self._looks = self._newest_look = 0
        self.nodes = Nodes(tailnet)
        self._reserving = anyio.Lock()
        self._docker: EngineInfo | None = None

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
            repo=_repo(record.request),
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
        _check(wanted)
        async with self._reserving:
            record = self._store.get(name)
            if record is None:
                job = await self._begin_new(name, wanted, made_for)
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

    async def _begin_new(self, name: str, wanted: StartWorkspace, made_for: str | None) -> Job:
        info = await self._machine_of_docker()
        limits = spec.default_limits(
            wanted.cpus or self._settings.workspaces.cpus,
            wanted.memory or self._settings.workspaces.memory,
            wanted.pids or self._settings.workspaces.pids,
            info.cpus,
            info.memory,
        )
        docker = self._settings.workspaces.docker if wanted.docker is None else wanted.docker
        request = Request(
            image=wanted.image or self._settings.workspaces.image,
            docker=docker,
            limits=limits,
            clone=wanted.clone,
            branch=wanted.branch,
            new_branch=wanted.new_branch,
            origin=wanted.origin,
            made_for=made_for,
        )
        await self._must_be_possible(request)
        return await self._reserve(name, request)

    async def _machine_of_docker(self) -> EngineInfo:
        # Docker takes a moment to say it, and its machine does not change under it.
        info = self._docker = self._docker or await self._engine.info()
        return info

    async def _must_be_possible(self, request: Request) -> None:
        """What is asked for is kept, so what could never be started is refused before."""
        info = await self._machine_of_docker()
        if request.limits.cpus > info.cpus:
            raise InvalidInput(f"This machine has {info.cpus} CPUs; ask for at most as many.")
        await self._pods.check_images([request.image])

    async def _reserve(self, name: str, request: Request) -> Job:
        await self._refuse_foreign_name(name)
        self._store.reserve(
            name,
            request,
            state.begun(None, copies=request.source is not None),
            ports=ssh_ports(self._machine, self._settings.ssh),
            pool=self._settings.network.pool,
            subnets_in_use=await self._engine.subnets_in_use(),
        )
        self._checkpoint("reserved")
        return self._jobs.submit(name, "start", self._walk)

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
        await self._pods.check_images([source.request.image])
        return await self._reserve(new, msgspec.structs.replace(source.request, source=source.name, made_for=None))

    async def _refuse_foreign_name(self, name: str) -> None:
        if name in (await self._pods.claims()):
            raise Conflict(
                f"Docker still has remains of a workspace {name!r}; the control plane takes them over within seconds, "
                "so start it again then."
            )
        if not self._tailnet.joins:
            return
        try:
            taken = self._is_taken(name, await self.nodes.lately(NODES_SECONDS)) and self._is_taken(
                name, await self.nodes.now()
            )
        except TailnetError:
            return  # The start says it, and goes on without.
        if taken:
            raise Conflict(f"A device of your tailnet is named {name!r} already; choose another name.")

    def _is_taken(self, name: str, nodes: Sequence[Node]) -> bool:
        leftovers = {leftover for kind, leftover in self._store.leftovers() if kind == "node"}
        return any(node.name == name and node.id not in leftovers for node in nodes)

    async def _begin_again(self, record: Record, wanted: StartWorkspace) -> Job:
        name = record.name
        if record.desired is Desired.DELETED:
            raise Conflict(f"The workspace {name!r} is being deleted; start it when it is gone.")
        request = _with_wishes(record.request, wanted)
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
        if pod.workspace is not None and pod.workspace.running and _recreates(record.request, request):
            raise Conflict(
                f"{name!r} runs with other options; `perry stop {name}` first, then start it with the new ones."
            )
        if _recreates(record.request, request):
            await self._must_be_possible(request)
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
            raise Conflict(
                f"{name!r} has work that would be lost; save it, or delete with --force."
                if work.unknown is None
                else f"{work.unknown} Start it to see what would be lost, or delete with --force.",
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
        await self.clear_leftovers()

    async def _take_away(self, name: str) -> None:
        with self._progress.step(name, "containers"):
            await self._pods.remove_containers(name)
        with self._progress.step(name, "rest"):
            await self._pods.remove_rest(name)

    async def clear_leftovers(self) -> None:
        """Remove nodes and keys of deleted workspaces from the tailnet; what does not succeed is tried again later."""
        if not self._tailnet.manages:
            return
        for kind, leftover in self._store.leftovers():
            try:
                if kind == "key":
                    await self._tailnet.revoke_key(leftover)
                else:
                    is_left_over = await self._is_left_over(leftover)
                    if is_left_over is None:
                        continue
                    if is_left_over:
                        await self._tailnet.delete_node(leftover)
            except TailnetError as exc:
                log.warning("a deleted workspace's %s stays on the tailnet for now: %s", kind, exc.message)
                return
            self._checkpoint(f"{kind} removed from the tailnet")
            self._store.clear_leftover(kind, leftover)

    async def _is_left_over(self, node_id: str) -> bool | None:
        """Whether a node is a workspace's, and of none that there is; None where only time will tell.

        A coordinator that lost its memory may have given an old id to a person's device, or to a workspace that has
        joined anew and is not recorded yet.
        """
        node = await self._tailnet.node(node_id)
        if node is None or WORKSPACE_TAG not in node.tags:
            return False
        for record in self._store.all():
            if record.tailnet != self._store.tailnet or not is_node_of(node, record.name):
                continue
            if record.node_id == node.id:
                return False
            own = await self._tailnet.node(record.node_id) if record.node_id is not None else None
            if not is_node_of(own, record.name):
                return None
        return True

    # --- inside

    async def exec(self, wanted: ExecCommand) -> ExecResult:
        """Run a command as user ``workspace`` in the project folder, or in home where there is none."""
        container = await self.container(wanted.name)
        cwd = wanted.cwd or await self._project(container, wanted.name)
        command = ["timeout", "--", str(wanted.timeout), *in_environment(*wanted.command)]
        try:
            with anyio.fail_after(wanted.timeout + 5):
                output = await self._engine.exec(container, command, user=USER, cwd=cwd, limit=EXEC_OUTPUT_LIMIT)
        except TimeoutError as exc:
            raise TookTooLong(f"The command did not end within {wanted.timeout:g} s.") from exc
        return ExecResult(
            exit_code=output.exit_code,
            stdout=output.stdout.decode(errors="replace"),
            stderr=output.stderr.decode(errors="replace"),
            truncated=output.truncated,
        )

    async def _project(self, container: str, name: str) -> str:
        folder = f"{HOME}/{name}"
        found = await self._engine.exec(container, ["test", "-d", folder], user=USER)
        return folder if found.exit_code == 0 else HOME

    async def ports(self, name: str) -> ListeningPorts:
        """What listens in it, but what is Perry's own."""
        container = await self.container(name)
        said = await self._engine.exec(container, listening.COMMAND, user=USER, limit=listening.OUTPUT_LIMIT)
        if said.exit_code != 0:
            raise NotReady(f"{name!r} could not say what listens in it; its image needs `ss`, of Debian's iproute2.")
        return ListeningPorts(items=listening.listening(said.stdout.decode(errors="replace")))

    async def logs(self, wanted: WorkspaceLogs) -> LogLines:
        """The newest lines of the workspace and its sidecar, oldest first."""
        self._must_exist(wanted.name)
        since = log_times.exact(wanted.since)
        lines = [
            LogLine(at=entry.at, source=source, text=entry.text)
            for source, container in self.log_sources(wanted.name).items()
            for entry in await self._engine.logs(container, tail=wanted.tail, since=since)
            if source == "workspace" or entry.stream == "stderr"
        ]
        lines.sort(key=lambda line: line.at)
        return LogLines(items=lines[-wanted.tail :])

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
        return record is not None and record.desired is Desired.STOPPED and not self._jobs.busy(name)

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


def _check(wanted: StartWorkspace) -> None:
    if wanted.clone is not None:
        repository.valid_clone(wanted.clone)
    for branch in (wanted.branch, wanted.new_branch):
        if branch is not None:
            repository.valid_branch(branch)
    if wanted.origin is not None:
        repository.valid_clone(wanted.origin)
    if wanted.image is not None and not _IMAGE.fullmatch(wanted.image):
        raise InvalidInput(f"{wanted.image[:200]!r} is no name of an image; give one such as own/image:tag.")
    if (wanted.branch is not None or wanted.new_branch is not None) and wanted.clone is None:
        raise InvalidInput("--branch says which branch of --clone to take; give both.")
    if wanted.no_clone and wanted.clone is not None:
        raise InvalidInput("--no-clone takes an earlier --clone back; give one of them.")


def _with_wishes(before: Request, wanted: StartWorkspace) -> Request:
    """What was asked for before, with what is asked for now. A new repository brings its own branch and origin."""
    limits = Limits(
        cpus=wanted.cpus or before.limits.cpus,
        memory=wanted.memory or before.limits.memory,
        pids=wanted.pids or before.limits.pids,
    )
    after = msgspec.structs.replace(
        before,
        image=wanted.image or before.image,
        docker=before.docker if wanted.docker is None else wanted.docker,
        limits=limits,
    )
    if wanted.no_clone and not before.cloned:
        return msgspec.structs.replace(after, clone=None, branch=None, new_branch=None, origin=None)
    if wanted.clone is None:
        return after
    return msgspec.structs.replace(
        after,
        clone=wanted.clone,
        branch=wanted.branch,
        new_branch=wanted.new_branch,
        origin=wanted.origin,
        cloned=False,
    )


def _recreates(before: Request, after: Request) -> bool:
    """Whether the container has to be made anew for it."""
    return (before.image, before.docker, before.limits) != (after.image, after.docker, after.limits)


def _repo(request: Request) -> str | None:
    if request.clone is None:
        return None
    if request.clone.startswith("upload:"):
        return request.origin
    return repository.shown(request.clone)


def _never_ran(record: Record) -> str | None:
    """None where a workspace never came so far that there could be work in it."""
    return None if not record.host_keys else f"The container of {record.name!r} is gone, so nobody could look."
