"""``perry proxy``: ports of a workspace on this device, carried by the system's ssh or by the agent."""

import contextlib
import os
import re
import shutil
import socket
import sys
from typing import Any, Final, NoReturn

import click
import msgspec

from cli import output
from cli.client import Client
from cli.commands import ssh
from cli.commands.parameters import workspace_name
from cli.errors import CliError, Misused, NotReachable, NotReady
from protocol.workspaces import Workspace, WorkspaceRef, WorkspaceStatus

PERRYS_OWN: Final = {7392: "the worker", 18789: "the wake door"}
MAPPING: Final = re.compile(r"^(?:([0-9]{1,5}):)?([0-9]{1,5})$")


class Mapping(msgspec.Struct, frozen=True):
    """A port of this device, and the workspace's port behind it."""

    local: int
    remote: int


class MappingParameter(click.ParamType[Mapping]):
    """``8080:3000``, or ``3000`` for the same on both sides."""

    name = "port"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Mapping:
        match = MAPPING.fullmatch(str(value))
        if str(value).endswith("/udp"):
            self.fail("UDP is not carried; on the tailnet a workspace's UDP ports are open to you.", param, ctx)
        if match is None:
            self.fail(f"{value!r} is no port; write 8080:3000, or 3000 for the same on both sides.", param, ctx)
        mapping = Mapping(local=int(match[1] or match[2]), remote=int(match[2]))
        if not (0 < mapping.local < 65536 and 0 < mapping.remote < 65536):
            self.fail(f"{value!r} has a port beyond 1 to 65535.", param, ctx)
        if mapping.remote in PERRYS_OWN:
            self.fail(
                f"Port {mapping.remote} is {PERRYS_OWN[mapping.remote]} of Perry's, and not for this.", param, ctx
            )
        return mapping


@click.command()
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address of this device to listen on.")
@workspace_name
@click.argument("ports", nargs=-1, required=True, type=MappingParameter(), metavar="[LOCAL:]PORT…")
def proxy(bind: str, name: str, ports: tuple[Mapping, ...]) -> None:
    """Bring TCP ports of a workspace to this device, until ctrl-C: perry proxy alpha 8080:3000

    For devices off the tailnet; on it, http://NAME:PORT needs no proxy. Also reaches what listens on the workspace's
    loopback, such as many dev servers, which the tailnet does not. UDP is not carried.

    Carried by the ssh of this machine where that gets there by itself: by the tailnet, or by the published port on the
    agent's machine. Elsewhere the agent carries it, which needs neither ssh nor a key.
    """
    if not re.fullmatch(r"[0-9A-Za-z.:*-]+", bind) or bind.startswith("-"):
        raise Misused(f"{bind!r} is no address; give one of this device's, such as 127.0.0.1.")
    if len({each.local for each in ports}) < len(ports):
        raise Misused("Each needs a port of its own on this device; write 8080:3000 8081:3001.")
    client = Client()
    workspace = client.call("workspaces.get", Workspace, WorkspaceRef(name=name))
    if workspace.status is WorkspaceStatus.STOPPED:
        raise NotReady(f"{name} is stopped; `perry start {name}` starts it.")
    if (program := shutil.which("ssh")) is not None:
        with contextlib.suppress(NotReachable):
            options, host = ssh.route(client, workspace)
            _must_be_free(bind, ports)
            _by_ssh(program, client, workspace, [*options], host, bind, ports)
    from cli.forwarding import through_agent

    through_agent(client, name, bind, [(each.local, each.remote) for each in ports])


def _must_be_free(bind: str, ports: tuple[Mapping, ...]) -> None:
    """Looks before ssh does, which would say so after we have said that they are there."""
    for each in ports:
        family = socket.AF_INET6 if ":" in bind else socket.AF_INET
        try:
            socket.create_server(("" if bind == "*" else bind, each.local), family=family).close()
        except OSError as exc:
            from cli.forwarding import not_listened_on

            raise not_listened_on(bind, each.local, exc) from exc


def _by_ssh(
    program: str,
    client: Client,
    workspace: Workspace,
    options: list[str],
    host: str,
    bind: str,
    ports: tuple[Mapping, ...],
) -> NoReturn:
    name = workspace.name
    known_hosts = ssh.write_known_hosts(client.target.folder, workspace)
    address = f"[{bind}]" if ":" in bind else bind
    forwards = [part for each in ports for part in ("-L", f"{address}:{each.local}:localhost:{each.remote}")]
    for each in ports:
        output.line(f"http://{address}:{each.local} is port {each.remote} of {name}")
    output.note("ctrl-C ends it.")
    sys.stdout.flush()
    # A connection that the person shares (ControlMaster) would end with this, or not end it.
    arguments = ["-N", "-T", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15", "-o", "ControlPath=none"]
    try:
        os.execv(
            program, ["ssh", *ssh.common(name, known_hosts), *arguments, *options, *forwards, "-l", ssh.USER, host]
        )
    except OSError as exc:
        raise CliError(f"{program} cannot be run ({exc.strerror}); install openssh-client.") from exc
