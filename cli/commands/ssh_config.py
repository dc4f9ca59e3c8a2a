"""``perry ssh-config``: workspaces as hosts of plain ssh, VS Code's Remote-SSH, and all else that reads its file."""

import os
from pathlib import Path
from typing import Final

import click

from cli import output
from cli.client import Client
from cli.commands.ssh import host_keys, on_tailnet, published_at, through_agent
from cli.config import FOUND
from cli.errors import CliError
from cli.ssh_config import Entry, Files, alias, rendered
from protocol.folders import SSH_KEY
from protocol.workspaces import TailnetState, Workspace

PROBED: Final = 3
"""How many workspaces are tried to see whether this device is on their tailnet."""


@click.command("ssh-config")
@click.option("--print", "print_", is_flag=True, help="Show what would be written, and write nothing.")
@click.option("--remove", is_flag=True, help="Take all of it away again.")
def ssh_config(print_: bool, remove: bool) -> None:
    """Make every workspace a host of ssh on this device: `ssh alpha`, scp, rsync, VS Code Remote-SSH.

    Writes ~/.ssh/perry/config and known_hosts, and one Include line at the top of ~/.ssh/config, where all else stays
    as it is. Host keys are pinned to what the agent knows. `perry start` and `perry delete` on this device keep it up
    to date from then on; call it again after workspaces were made elsewhere.

    On the agent's machine the hosts go by their published ports, elsewhere by the tailnet, and where this device is
    not on it through the agent, with your own key in ssh.authorizedKeys. A workspace named like a host of yours is
    NAME.perry.
    """
    if print_ and remove:
        raise click.UsageError("--print and --remove exclude each other.")
    files = Files(ssh_folder())
    if remove:
        gone = files.remove()
        output.line(f"Perry's part of {files.user_config} is gone." if gone else "There was nothing to remove.")
        return
    client = Client()
    entries = entries_of(client, files)
    if print_:
        output.line(rendered(entries, files.known_hosts, client.target.url).rstrip("\n"))
        return
    changed = files.write(entries, client.target.url)
    _say(files, entries, changed)


def refresh(client: Client) -> None:
    """Bring the hosts up to date where this device has them from this agent. Only warns where that fails."""
    try:
        files = Files(ssh_folder())
        if files.installed_for() == client.target.url:
            files.write(entries_of(client, files), client.target.url)
    except CliError as exc:
        output.warn(f"The hosts of ssh were not brought up to date: {exc.message}")


def ssh_folder() -> Path:
    """Where this person's ssh reads its configuration."""
    return Path(os.environ.get("HOME") or "~").expanduser() / ".ssh"


def entries_of(client: Client, files: Files) -> list[Entry]:
    """A host for each workspace that has been up once."""
    theirs = files.names_of_user()
    key = client.target.folder / SSH_KEY
    local = client.target.local and os.access(key, os.R_OK)
    published = published_at(client) if local else ""
    entries: list[Entry] = []
    workspaces = client.call("workspaces.list", list[Workspace])
    by_tailnet = not local and _is_on_the_tailnet(client, workspaces)
    for workspace in workspaces:
        keys = host_keys(workspace)
        if not keys:
            continue
        name = alias(workspace.name, theirs)
        if local:
            entry = Entry(
                name=workspace.name,
                alias=name,
                host=published,
                port=workspace.ports.ssh,
                identity=key.absolute(),
                host_keys=keys,
            )
        elif by_tailnet and workspace.tailnet.status is not TailnetState.NONE:
            host = workspace.tailnet.dns_name or workspace.tailnet.hostname
            entry = Entry(name=workspace.name, alias=name, host=_checked(host), host_keys=keys)
        else:
            through = through_agent(workspace.name)
            entry = Entry(name=workspace.name, alias=name, host=workspace.name, through=through, host_keys=keys)
        entries.append(entry)
    return entries


def _is_on_the_tailnet(client: Client, workspaces: list[Workspace]) -> bool:
    """Whether this device is on the workspaces' tailnet; yes where there is nothing to tell by."""
    if client.target.source == FOUND:
        return True
    online = [each for each in workspaces if each.tailnet.status is TailnetState.ONLINE][:PROBED]
    return not online or any(on_tailnet(each) is not None for each in online)


def _checked(host: str) -> str:
    """A name as DNS has them. What an agent says must not become another line of the file."""
    if not host or host.startswith("-") or not set(host) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-"):
        raise CliError(f"The agent gave a tailnet name that is none: {output.clean(host)[:80]!r}.")
    return host


def _say(files: Files, entries: list[Entry], changed: bool) -> None:
    if not changed:
        output.line(f"{files.config} is up to date, with {_hosts(entries)}.")
        return
    output.line(f"{files.config} has {_hosts(entries)}; {files.user_config} includes it.")
    for entry in entries[:5]:
        output.line(f"  ssh {entry.alias}")
    for entry in entries:
        if entry.alias != entry.name:
            output.note(f"{files.user_config} has a host {entry.name} of yours, so the workspace is {entry.alias}.")


def _hosts(entries: list[Entry]) -> str:
    return f"{len(entries)} host{'' if len(entries) == 1 else 's'}"
