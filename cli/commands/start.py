"""``perry start``: asks for a start, and follows it to its end."""

import contextlib
import sys
import time
from collections.abc import Callable

import click

from cli import output
from cli.client import Client
from cli.commands import ssh_config
from cli.commands.parameters import Finite, Memory, as_json, workspace_name
from cli.errors import CliError, Interrupted, Lost, NotReachable
from cli.steps import FRAME_SECONDS, View, view
from protocol.events import Snapshot, WorkspaceChanged, WorkspaceDeleted
from protocol.workspaces import (
    Startup,
    StartupState,
    StartWorkspace,
    StepStatus,
    TailnetState,
    Workspace,
    WorkspaceRef,
    WorkspaceStatus,
)

RETRIES = 5


@click.command()
@workspace_name
@click.option(
    "--clone",
    metavar="URL|PATH",
    help="Repository to clone to ~/NAME in the workspace: an https or ssh URL, git@host:owner/repository, or a local "
    "folder, whose committed state travels (all of its branches and tags).",
)
@click.option("--branch", help="Branch or tag of --clone to check out.")
@click.option(
    "--no-clone", is_flag=True, help="Take back an earlier --clone that has not succeeded, and start without it."
)
@click.option("--image", help="Image of the workspace, made from Perry's workspace-base.")
@click.option(
    "--docker/--no-docker",
    default=None,
    help="Docker inside the workspace, which is no security boundary; --no-docker is one.",
)
@click.option("--cpus", type=Finite(min=0, min_open=True), help="CPUs that it may use, such as 1.5.")
@click.option("--memory", type=Memory(), help="Memory that it may use, such as 4g.")
@click.option("--pids", type=click.IntRange(min=32), help="Processes and threads that it may have.")
@click.option("--no-wait", is_flag=True, help="Return at once; the start goes on.")
@as_json
def start(
    name: str,
    clone: str | None,
    branch: str | None,
    no_clone: bool,
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
    if no_clone and clone is not None:
        raise click.UsageError("--no-clone takes an earlier --clone back; give one of them.")
    client = Client()
    client.check_version()
    origin = None
    if clone is not None:
        from cli.uploading import uploaded

        clone, origin, branch = uploaded(client, clone, branch)
    wanted = StartWorkspace(
        name=name,
        clone=clone,
        origin=origin,
        branch=branch,
        image=image,
        docker=docker,
        cpus=cpus,
        memory=memory,
        pids=pids,
        wait=False,
        no_clone=no_clone,
    )
    if no_wait:
        workspace = client.call("workspaces.start", Workspace, wanted, seconds=None)
        if as_json:
            output.data(workspace)
        else:
            output.line(f"The start of {name} goes on; `perry info {name}` shows how far it is.")
        return
    began = time.monotonic()
    workspace = follow(client, name, lambda: _ask(client, wanted), view(sys.stderr if as_json else sys.stdout))
    failed = workspace.startup is not None and workspace.startup.state is StartupState.FAILED
    ssh_config.refresh(client)
    if as_json:
        output.data(workspace)
    elif not failed:
        tell(workspace, time.monotonic() - began)
    elif workspace.status is WorkspaceStatus.RUNNING:
        _tell_what_is_left(workspace)
    if failed:
        raise CliError(workspace.error or f"{name} could not be started; `perry info {name}` shows which step failed.")


# --- following


def follow(client: Client, name: str, ask: Callable[[], Workspace], shown: View) -> Workspace:
    """Ask for the start of a workspace and show it to its end, over lost connections and restarts of the agent."""
    try:
        asked = ask()
        attempt = asked.startup.attempt if asked.startup else 1
        if (ended := _ended(asked, attempt)) is not None:
            return ended
        if asked.startup is not None:
            shown.update(asked.startup)
        # Only now, since to load it takes a while, in which the agent works. The snapshot has what was missed.
        from cli.events import Events

        with Events(client, name) as events:
            while True:
                event = events.receive(FRAME_SECONDS)
                shown.say("The agent does not answer; trying again …" if events.away else None)
                shown.tick()
                workspace = None
                if isinstance(event, WorkspaceChanged) and event.workspace.name == name:
                    workspace = event.workspace
                elif isinstance(event, Snapshot):
                    workspace = next((each for each in event.workspaces if each.name == name), None)
                    if workspace is None:
                        # It is gone, and this says so; a connection that is lost again is noticed by `events`.
                        with contextlib.suppress(NotReachable):
                            workspace = client.call("workspaces.get", Workspace, WorkspaceRef(name=name))
                elif isinstance(event, WorkspaceDeleted) and event.name == name:
                    raise CliError(f"{name} was deleted while it was being started.")
                if workspace is None or workspace.startup is None:
                    continue
                if workspace.startup.attempt >= attempt:
                    shown.update(workspace.startup)
                if (ended := _ended(workspace, attempt)) is not None:
                    return ended
    except KeyboardInterrupt as exc:
        raise Interrupted(
            f"Interrupted here; the start of {name} goes on. `perry info {name}` shows how far it is, "
            f"`perry stop {name}` ends it."
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


def _tell_what_is_left(workspace: Workspace) -> None:
    """A step failed, and the workspace runs all the same."""
    steps = workspace.startup.steps if workspace.startup else []
    failed = [step.id for step in steps if step.status is StepStatus.FAILED]
    without = ", and with --no-clone it goes without the repository" if "clone" in failed else ""
    output.note(
        f"{workspace.name} runs all the same: `perry ssh {workspace.name}`. Start it again to try again{without}."
    )


def tell(workspace: Workspace, seconds: float) -> None:
    """How it went, and how to get there."""
    name = workspace.name
    output.line(f"{output.styled(name, 'bold')} runs, after {seconds:.1f} s.")
    if workspace.tailnet.status is TailnetState.ONLINE:
        output.line(f"  ssh workspace@{workspace.tailnet.hostname}   from any device of yours on the tailnet")
    output.line(f"  perry ssh {name}")
    if workspace.startup is not None and workspace.startup.attempt == 1 and workspace.docker:
        output.note("It has Docker inside, which is convenient and no security boundary; --no-docker makes one.")
