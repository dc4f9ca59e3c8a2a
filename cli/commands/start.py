"""``perry start``: asks for a start, and follows it to its end."""

import contextlib
import secrets
import sys
import tempfile
import time
from pathlib import Path

import click

from cli import output
from cli.client import Client
from cli.commands import ssh_config
from cli.commands.parameters import Memory, as_json, workspace_name
from cli.errors import CliError, Interrupted, Lost, NotReachable
from cli.steps import FRAME_SECONDS, View, view
from protocol.events import Snapshot, WorkspaceChanged, WorkspaceDeleted
from protocol.workspaces import Startup, StartupState, StartWorkspace, TailnetState, Workspace, WorkspaceRef

RETRIES = 5
FIRST_SNAPSHOT_SECONDS = 5.0


@click.command()
@workspace_name
@click.option(
    "--clone",
    metavar="URL|PATH",
    help="Repository to clone to ~/NAME in the workspace: an https or ssh URL, git@host:owner/repository, or a local "
    "folder, whose committed state travels (all of its branches and tags).",
)
@click.option("--branch", help="Branch or tag of --clone to check out.")
@click.option("--image", help="Image of the workspace, made from Perry's workspace-base.")
@click.option(
    "--docker/--no-docker",
    default=None,
    help="Docker inside the workspace, which is no security boundary; --no-docker is one.",
)
@click.option("--cpus", type=click.FloatRange(min=0, min_open=True), help="CPUs that it may use, such as 1.5.")
@click.option("--memory", type=Memory(), help="Memory that it may use, such as 4g.")
@click.option("--pids", type=click.IntRange(min=32), help="Processes and threads that it may have.")
@click.option("--no-wait", is_flag=True, help="Return at once; the start goes on.")
@as_json
def start(
    name: str,
    clone: str | None,
    branch: str | None,
    image: str | None,
    docker: bool | None,
    cpus: float | None,
    memory: int | None,
    pids: int | None,
    no_wait: bool,
    as_json: bool,
) -> None:
    """Create a workspace, or start one that exists, and wait until it can be used.

    What is not given stays as it was, or gets its default. Where a step fails, the exit code is 1, and the same command
    tries again; the workspace itself may run.
    """
    if branch is not None and clone is None:
        raise click.UsageError("--branch says which branch of --clone to check out; give both.")
    client = Client()
    client.check_version()
    wanted = StartWorkspace(
        name=name,
        clone=clone,
        branch=branch,
        image=image,
        docker=docker,
        cpus=cpus,
        memory=memory,
        pids=pids,
        wait=False,
    )
    if clone is not None:
        wanted = _with_local_repository(client, wanted, clone)
    if no_wait:
        workspace = client.call("workspaces.start", Workspace, wanted, seconds=None)
        if as_json:
            output.data(workspace)
        else:
            output.line(f"The start of {name} goes on; `perry info {name}` shows how far it is.")
        return
    began = time.monotonic()
    workspace = _follow(client, wanted, view(sys.stderr if as_json else sys.stdout))
    failed = workspace.startup is not None and workspace.startup.state is StartupState.FAILED
    ssh_config.refresh(client)
    if as_json:
        output.data(workspace)
    elif not failed:
        _tell(workspace, time.monotonic() - began)
    if failed:
        raise CliError(workspace.error or f"{name} could not be started; `perry info {name}` shows which step failed.")


# --- a local repository


def _with_local_repository(client: Client, wanted: StartWorkspace, clone: str) -> StartWorkspace:
    """The request with an upload in place of a path; a URL stays as it is."""
    import msgspec

    from cli import bundle

    path = bundle.local_path(clone)
    if path is None:
        return wanted
    repository = bundle.inspect(path)
    branch = bundle.branch_to_take(repository, wanted.branch)
    upload = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="perry-") as folder:
        file = Path(folder) / "bundle"
        bundle.write(repository, file)
        output.note(f"The committed state of {path} travels as a git bundle ({output.size(file.stat().st_size)}).")
        if sentence := bundle.left_out(repository).sentence():
            output.note(sentence)
        client.upload(upload, file, _upload_progress())
    return msgspec.structs.replace(wanted, clone=f"upload:{upload}", origin=repository.origin, branch=branch)


class _upload_progress:
    """A percentage on a terminal, for what takes its time."""

    def __init__(self) -> None:
        self._shown_at = time.monotonic()

    def __call__(self, sent: int, total: int) -> None:
        if not output.is_terminal(sys.stderr):
            return
        now = time.monotonic()
        if now - self._shown_at > FRAME_SECONDS and sent < total:
            self._shown_at = now
            sys.stderr.write(f"\r\033[KSent {output.size(sent)} of {output.size(total)}")
            sys.stderr.flush()
        elif sent == total:
            sys.stderr.write("\r\033[K")


# --- following


def _follow(client: Client, wanted: StartWorkspace, shown: View) -> Workspace:
    """Ask for the start and show it to its end, over lost connections and restarts of the control plane."""
    from cli.events import Events

    try:
        with Events(client) as events:
            # What comes after the first snapshot is about this start; so is every later snapshot.
            events.receive(FIRST_SNAPSHOT_SECONDS)
            asked = _ask(client, wanted)
            attempt = asked.startup.attempt if asked.startup else 1
            if (ended := _ended(asked, attempt)) is not None:
                return ended
            if asked.startup is not None:
                shown.update(asked.startup)
            while True:
                event = events.receive(FRAME_SECONDS)
                shown.say("The agent does not answer; trying again …" if events.away else None)
                shown.tick()
                workspace = None
                if isinstance(event, WorkspaceChanged) and event.workspace.name == wanted.name:
                    workspace = event.workspace
                elif isinstance(event, Snapshot):
                    workspace = next((each for each in event.workspaces if each.name == wanted.name), None)
                    if workspace is None:
                        # It is gone, and this says so; a connection that is lost again is noticed by `events`.
                        with contextlib.suppress(NotReachable):
                            workspace = client.call("workspaces.get", Workspace, WorkspaceRef(name=wanted.name))
                elif isinstance(event, WorkspaceDeleted) and event.name == wanted.name:
                    raise CliError(f"{wanted.name} was deleted while it was being started.")
                if workspace is None or workspace.startup is None:
                    continue
                if workspace.startup.attempt >= attempt:
                    shown.update(workspace.startup)
                if (ended := _ended(workspace, attempt)) is not None:
                    return ended
    except KeyboardInterrupt as exc:
        raise Interrupted(
            f"Interrupted here; the start of {wanted.name} goes on. `perry info {wanted.name}` shows how far it is, "
            f"`perry stop {wanted.name}` ends it."
        ) from exc
    finally:
        shown.close()


def _ask(client: Client, wanted: StartWorkspace) -> Workspace:
    """Ask until the answer has come: a start of what is starting joins that start."""
    for pause in range(RETRIES):
        try:
            return client.call("workspaces.start", Workspace, wanted, seconds=None)
        except Lost:
            time.sleep(0.2 * 2**pause)
    return client.call("workspaces.start", Workspace, wanted, seconds=None)


def _ended(workspace: Workspace, attempt: int) -> Workspace | None:
    startup: Startup | None = workspace.startup
    if startup is None or startup.attempt < attempt or startup.state is StartupState.RUNNING:
        return None
    return workspace


def _tell(workspace: Workspace, seconds: float) -> None:
    name = workspace.name
    output.line(f"{output.styled(name, 'bold')} runs, after {seconds:.1f} s.")
    if workspace.tailnet.status is TailnetState.ONLINE:
        output.line(f"  ssh workspace@{workspace.tailnet.hostname}   from any device of yours on the tailnet")
    output.line(f"  perry ssh {name}")
    if workspace.startup is not None and workspace.startup.attempt == 1 and workspace.docker:
        output.note("It has Docker inside, which is convenient and no security boundary; --no-docker makes one.")
