"""``perry list|info|stop|restart``."""

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import as_json, workspace_name
from protocol.workspaces import (
    StartupState,
    StopWorkspace,
    TailnetState,
    Workspace,
    WorkspaceRef,
    WorkspaceStatus,
)


@click.command("list")
@as_json
def list_(as_json: bool) -> None:
    """List the workspaces (also `perry ls`)."""
    workspaces = Client().call("workspaces.list", list[Workspace])
    if as_json:
        output.data(workspaces)
    elif not workspaces:
        output.note("There are no workspaces yet; `perry start <name>` makes one.")
    else:
        output.table(
            ["NAME", "STATUS", "TAILNET", "SSH PORT", "AGE", "REPOSITORY"],
            [_row(each) for each in workspaces],
            [each.error or each.tailnet.error or worker_note(each) for each in workspaces],
        )


@click.command()
@workspace_name
@as_json
def info(name: str, as_json: bool) -> None:
    """Show one workspace: how it stands, its addresses, its ssh host keys, its latest start."""
    workspace = Client().call("workspaces.get", Workspace, WorkspaceRef(name=name))
    if as_json:
        output.data(workspace)
        return
    limits = workspace.limits
    output.pairs(
        [
            ("Name", workspace.name),
            ("Status", status_of(workspace)),
            ("Error", workspace.error),
            ("Tailnet", _tailnet(workspace)),
            ("Tailnet error", workspace.tailnet.error),
            ("ssh", _ssh(workspace)),
            ("Host keys", ", ".join(workspace.ssh_host_keys)),
            ("Repository", workspace.repo),
            ("Branch", workspace.branch),
            ("Image", workspace.image),
            ("Docker inside", "yes" if workspace.docker else "no"),
            ("Limits", f"{limits.cpus:g} CPUs, {output.size(limits.memory)}, {limits.pids} processes"),
            ("Created", f"{workspace.created} ({output.age(workspace.created)} ago)"),
            ("Worker", _worker(workspace)),
            ("Worker note", worker_note(workspace)),
            ("Container", (workspace.container_id or "")[:12]),
        ]
    )
    if workspace.startup is not None and workspace.startup.state is not StartupState.SUCCEEDED:
        from cli.steps import line_of

        output.line()
        output.line(f"Start {workspace.startup.attempt}, {workspace.startup.state}:")
        for step in workspace.startup.steps:
            output.line(line_of(step))


@click.command()
@workspace_name
@as_json
def stop(name: str, as_json: bool) -> None:
    """Stop a workspace. Its home, its Docker volume and its place on the tailnet stay."""
    from cli.following import following

    client, wanted = Client(), StopWorkspace(name=name)
    workspace = following(
        client, name, "the stop", lambda: client.call("workspaces.stop", Workspace, wanted, seconds=None)
    )
    if as_json:
        output.data(workspace)
    else:
        output.line(f"{name} is stopped; `perry start {name}` starts it again.")


@click.command()
@workspace_name
@as_json
def restart(name: str, as_json: bool) -> None:
    """Restart a workspace. Its tailnet address and connections stay; one that is stopped is started."""
    from cli.following import following

    client, wanted = Client(), StopWorkspace(name=name)
    workspace = following(
        client, name, "the restart", lambda: client.call("workspaces.restart", Workspace, wanted, seconds=None)
    )
    if as_json:
        output.data(workspace)
    else:
        output.line(f"{name} is {status_of(workspace)}.")


def status_of(workspace: Workspace) -> str:
    """One word, or two, for how it stands."""
    if workspace.deleting:
        return "deleting"
    starting = workspace.startup is not None and workspace.startup.state is StartupState.RUNNING
    if starting and workspace.status is not WorkspaceStatus.CREATING:
        return f"{workspace.status}, starting"
    return str(workspace.status)


def worker_note(workspace: Workspace) -> str | None:
    """What there is to say of its worker, and to do; None where all is well."""
    worker = workspace.worker
    if worker is None:
        return None
    if worker.error:
        return f"Its worker is not heard: {worker.error.rstrip('.')}; `perry sync {workspace.name}` brings it anew."
    if worker.outdated:
        return f"Its worker has another version than the agent's; `perry sync {workspace.name}` brings that."
    return None


def _worker(workspace: Workspace) -> str:
    worker = workspace.worker
    return "" if worker is None else f"{worker.state} {worker.version or ''}".strip()


def _row(workspace: Workspace) -> list[str]:
    return [
        workspace.name,
        status_of(workspace),
        _tailnet(workspace),
        str(workspace.ports.ssh),
        output.age(workspace.created),
        workspace.repo or "",
    ]


def _tailnet(workspace: Workspace) -> str:
    tailnet = workspace.tailnet
    if tailnet.status is TailnetState.NONE:
        return ""
    address = tailnet.ips[0] if tailnet.ips else ""
    if tailnet.status is TailnetState.ONLINE:
        return f"{tailnet.hostname} {address}".strip()
    return f"{tailnet.status} {address}".strip()


def _ssh(workspace: Workspace) -> str:
    published = f"port {workspace.ports.ssh} of the agent's machine"
    if workspace.tailnet.status is TailnetState.ONLINE:
        return f"ssh workspace@{workspace.tailnet.hostname} (on the tailnet), or {published}"
    return f"{published}: `perry ssh {workspace.name}` there"
