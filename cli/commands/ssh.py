"""``perry ssh``: hands over to the system's ssh, with the workspace's host keys known beforehand."""

import os
import re
import shlex
import shutil
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from cli import output
from cli.client import Client
from cli.commands.parameters import workspace_name
from cli.errors import CliError, NotReachable, NotReady
from protocol.config import Config
from protocol.folders import SSH_KEY
from protocol.workspaces import TailnetState, Workspace, WorkspaceRef, WorkspaceStatus

USER = "workspace"
PROBE_SECONDS = 2.0
HOST_KEY = re.compile(r"^(?:ssh|ecdsa|sk)-[a-zA-Z0-9@.-]+ [A-Za-z0-9+/=]+$")
KNOWN_HOSTS = "ssh/workspaces"
"""Folder below the configuration for one file of host keys per workspace."""


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "-A",
    "--forward-agent/--no-forward-agent",
    default=None,
    help="Let what runs in the workspace use the keys of this device's ssh agent, for as long as the connection lasts. "
    "On the agent's machine ssh.forwardAgent is the default.",
)
@workspace_name
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(forward_agent: bool | None, name: str, command: tuple[str, ...]) -> NoReturn:
    """Open a shell in a workspace, or run COMMAND there, by the ssh of this machine.

    Options of ssh may stand between NAME and COMMAND, such as -L 3000:localhost:3000.

    Goes over the tailnet where this device is on it; else, on the agent's machine, by the published port; else through
    the agent, with a key of yours in ssh.authorizedKeys. The exit code is ssh's. Programs that call ssh themselves find
    a workspace under its name: ssh workspace@NAME.
    """
    if forward_agent:
        _must_have_an_agent()
    client = Client()
    if forward_agent is None:
        forward_agent = _is_wished(client)
    connect(client, name, ["-A"] if forward_agent else [], command)


def connect(client: Client, name: str, more: Sequence[str], command: Sequence[str]) -> NoReturn:
    """Become the ssh to a workspace, with ``more`` options. CliError where there is no way.

    ``command`` is what stands after the workspace's name: options, and after ``--`` or a first word the command.
    """
    workspace = client.call("workspaces.get", Workspace, WorkspaceRef(name=name))
    if workspace.status is WorkspaceStatus.STOPPED:
        raise NotReady(f"{name} is stopped; `perry start {name}` starts it.")
    if not workspace.ssh_host_keys:
        raise NotReady(f"{name} has no ssh host key yet; `perry start {name}` shows how far it is.")
    program = shutil.which("ssh")
    if program is None:
        raise CliError(f"There is no ssh client here; install openssh-client, or use `perry exec {name} -- …`.")
    known_hosts = write_known_hosts(client.target.folder, workspace)
    try:
        options, host = route(client, workspace)
    except NotReachable:
        options, host = _by_the_agent(name)
    options = [*options, *more]
    # After "--", ssh takes all that follows the host as the command; else options may come first. Ours win.
    ends = list(command[:1]) == ["--"]
    operands = ["--", host, *command[1:]] if ends else [host, *command]
    try:
        os.execv(program, ["ssh", *common(name, known_hosts), *options, "-l", USER, *operands])
    except OSError as exc:
        raise CliError(f"{program} cannot be run ({exc.strerror}); use `perry exec {name} -- …`.") from exc


def _by_the_agent(name: str) -> tuple[list[str], str]:
    """Options and host where this device is neither on the tailnet nor the agent's machine."""
    output.note(
        f"{name} does not answer on the tailnet from this device (`perry tailnet join`); ssh goes through the agent, "
        f"with a key of yours in ssh.authorizedKeys. `perry exec -t {name} -- bash` needs none."
    )
    return ["-o", f"ProxyCommand={through_agent(name)}"], name


def through_agent(name: str) -> str:
    """The command that is a connection to a workspace's ssh by way of the agent, as ssh's ProxyCommand takes it."""
    command = [_program(), "exec", "--stdin", name, "--", "socat", "-", "TCP:localhost:22"]
    return shlex.join(command).replace("%", "%%")


def _program() -> str:
    """This program, as ssh can call it."""
    called = Path(sys.argv[0])
    return str(called.absolute()) if called.name == "perry" and called.exists() else shutil.which("perry") or "perry"


def _is_wished(client: Client) -> bool:
    """Whether the settings have the agent forwarded, and there is one. Another machine's must not lend out our keys."""
    if not client.target.local or not os.path.exists(os.environ.get("SSH_AUTH_SOCK", "")):
        return False
    return setting(client, "ssh.forwardAgent") is True


def _must_have_an_agent() -> None:
    """NotReady where there is none to forward: ssh would say nothing, and a push would fail much later."""
    agent = os.environ.get("SSH_AUTH_SOCK")
    if not agent:
        raise NotReady("There is no ssh agent to forward (SSH_AUTH_SOCK is not set); `eval $(ssh-agent)` starts one.")
    if not os.path.exists(agent):
        raise NotReady(f"The ssh agent at {agent} is gone; `eval $(ssh-agent)` starts another.")


def common(name: str, known_hosts: Path) -> list[str]:
    """Options with which the host keys are those that the agent knows, and no others."""
    escaped = str(known_hosts).replace("%", "%%")
    return [
        "-o",
        f'UserKnownHostsFile="{escaped}"',
        "-o",
        "GlobalKnownHostsFile=/dev/null",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "UpdateHostKeys=no",
        "-o",
        "CheckHostIP=no",
        "-o",
        f"HostKeyAlias={name}",
    ]


def route(client: Client, workspace: Workspace) -> tuple[list[str], str]:
    """Options and host: by the tailnet, else by the published port."""
    if workspace.tailnet.status is not TailnetState.NONE and (host := on_tailnet(workspace)) is not None:
        return [], host
    target = client.target
    key = target.folder / SSH_KEY
    if target.local and os.access(key, os.R_OK):
        options = ["-i", str(key), "-o", "IdentitiesOnly=yes", "-p", str(workspace.ports.ssh)]
        return options, published_at(client)
    if target.local and key.exists():
        raise NotReady(f"{key} cannot be read; run this as the person who runs the agent.")
    why = f" ({workspace.tailnet.error})" if workspace.tailnet.error else ""
    raise NotReachable(
        f"{workspace.name} does not answer on the tailnet from this device{why}; `perry tailnet join` shows "
        f"how to join, and `perry exec {workspace.name} -- …` works without."
    )


def on_tailnet(workspace: Workspace) -> str | None:
    """The name under which it answers here: one that resolves to the workspace's address, with an ssh server there.

    The address alone would not do: another tailnet that this machine is on may have given it to another device.
    """
    for host in (workspace.tailnet.hostname, workspace.tailnet.dns_name):
        if host and re.fullmatch(r"[a-z0-9.-]+", host) and not host.startswith("-"):
            for address in _addresses(host):
                if address in workspace.tailnet.ips and _ssh_answers(address):
                    return host
    return None


def _addresses(host: str) -> list[str]:
    """What a name resolves to. Bounded in time: a broken resolver must not keep anyone waiting."""
    found: list[str] = []

    def look() -> None:
        try:
            found.extend(str(info[4][0]) for info in socket.getaddrinfo(host, 22, type=socket.SOCK_STREAM))
        except OSError:
            return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return list(found)


def _ssh_answers(address: str) -> bool:
    try:
        with socket.create_connection((address, 22), timeout=PROBE_SECONDS) as connection:
            connection.settimeout(PROBE_SECONDS)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def published_at(client: Client) -> str:
    """The address that ssh ports are published on, as this machine reaches it."""
    bind = str(setting(client, "ssh.bind") or "")
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(bind, bind)


def setting(client: Client, key: str) -> object:
    """The agent's, None where it has none of that name."""
    items = client.call("config.get", Config).items
    return next((item.value for item in items if item.key == key), None)


def host_keys(workspace: Workspace) -> list[str]:
    """Its host keys, each of which is one. CliError for anything else, which could be a line about another host."""
    for key in workspace.ssh_host_keys:
        if not HOST_KEY.fullmatch(key):
            raise CliError(f"The agent gave a host key of {workspace.name} that is none: {output.clean(key)[:80]!r}.")
    return workspace.ssh_host_keys


def write_known_hosts(folder: Path, workspace: Workspace) -> Path:
    """The workspace's host keys, as the control plane knows them, under its name. Replaced at once and whole."""
    keys = host_keys(workspace)
    file = folder / KNOWN_HOSTS / workspace.name
    partial = file.with_name(f".{workspace.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.write_text("".join(f"{workspace.name} {key}\n" for key in keys))
        partial.replace(file)
    except OSError as exc:
        raise CliError(f"The host keys cannot be written to {file} ({exc.strerror}); mend that folder.") from exc
    return file
