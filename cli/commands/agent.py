"""``perry agent``: runs the control plane of this machine, and looks after it."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

import click
import msgspec

from cli import config, output, systemd
from cli.client import Client
from cli.commands import agent_service
from cli.commands.parameters import as_json
from cli.errors import CliError, Missing, NotReachable
from cli.readiness import wait_until_ready
from protocol.agent import AgentInfo, Killed
from protocol.folders import AGENT_LOG
from protocol.tailnet import TailnetStatus

POLL_SECONDS: Final = 0.1
END_SECONDS: Final = 60.0
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


@click.group()
def agent() -> None:
    """The Perry agent: the control plane of this machine."""


@agent.command()
@click.option("--detach", "-d", is_flag=True, help="Run in the background; return when it is ready.")
@click.option("--host", help="Address to listen on, instead of the configured one.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on, instead of the configured one.")
@click.option(
    "--config-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of its configuration and state."
)
def run(detach: bool, host: str | None, port: int | None, config_dir: Path | None) -> None:
    """Run the agent, in the foreground unless -d is given. With -d its log is agent.log in its folder."""
    environment = dict(os.environ)
    if config_dir is not None:
        environment["PERRY_CONFIG_DIR"] = str(config_dir.expanduser().absolute())
    if host is not None:
        environment["PERRY_HOST"] = host
    if port is not None:
        environment["PERRY_PORT"] = str(port)
    if not detach:
        _say_what_is_open(config.own(environment), environment)
        _exec(["run"], environment)
    # PERRY_URL may name another machine's; this one's own address is what was asked for.
    environment.pop("PERRY_URL", None)
    client = Client(config.own(environment))
    if client.answers():
        output.line(f"A Perry agent runs at {client.target.url} already.")
        return
    _say_what_is_open(client.target, environment)
    _run_in_background(client, environment)


@agent.command()
@click.option("--image", "images", multiple=True, metavar="NAME", help="Only this image; may be given more than once.")
@click.option("--no-cache", is_flag=True, help="Build from nothing.")
def build(images: tuple[str, ...], no_cache: bool) -> None:
    """Build Perry's images on this machine. What is up to date stays as it is."""
    arguments = [part for image in images for part in ("--image", image)]
    _exec(["build", *arguments, *(["--no-cache"] if no_cache else [])], dict(os.environ))


agent.add_command(agent_service.install)
agent.add_command(agent_service.uninstall)


class ServiceStatus(msgspec.Struct, frozen=True, rename="camel"):
    """A service of systemd, where one is installed. ``active`` and ``enabled`` are systemd's words."""

    mode: str
    unit: str
    active: str
    enabled: str


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """What ``perry agent status --json`` prints."""

    running: bool
    url: str
    agent: AgentInfo | None = None
    tailnet: TailnetStatus | None = None
    services: list[ServiceStatus] = []


@agent.command()
@as_json
def status(as_json: bool) -> None:
    """Show whether the agent runs, and how it stands. Exit code 3 where none answers."""
    client = Client()
    services = _services() if client.target.local else []
    try:
        info = client.call("agent.info", AgentInfo)
    except NotReachable:
        if as_json:
            output.data(Status(running=False, url=client.target.url, services=services))
        else:
            output.pairs([("Service", _shown(each)) for each in services])
        raise
    try:
        tailnet, tailnet_word = client.call("tailnet.status", TailnetStatus), None
    except CliError as exc:
        tailnet, tailnet_word = None, exc.message
    if as_json:
        output.data(Status(running=True, url=client.target.url, agent=info, tailnet=tailnet, services=services))
        return
    if tailnet is not None:
        tailnet_word = f"{tailnet.provider}, {'ready' if tailnet.ready else tailnet.error or 'not ready'}"
    output.pairs(
        [
            ("Agent", f"runs at {client.target.url} on {info.hostname}"),
            *(("Service", _shown(each)) for each in services),
            ("Version", info.version),
            ("Uptime", output.duration(info.uptime)),
            ("Docker", info.docker_version or "does not answer"),
            ("Tailnet", tailnet_word),
            ("Workspaces", str(info.workspaces_count)),
        ]
    )


@agent.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines as they come.")
@click.option("--tail", "-n", type=click.IntRange(min=1), default=200, show_default=True, help="Newest lines.")
def logs(follow: bool, tail: int) -> None:
    """Show the log of this machine's agent: that of its service, or of `perry agent run -d`."""
    if services := [each for each in systemd.installed() if each.active != "inactive"]:
        command = systemd.journal(services[0].mode, tail=tail, follow=follow)
        try:
            os.execvp(command[0], command)
        except OSError as exc:
            raise CliError(f"{command[0]} cannot be run ({exc.strerror}); install it.") from exc
    file = config.folder() / AGENT_LOG
    try:
        for each in _newest(file, tail):
            output.line(each)
        if follow:
            for each in _following(file):
                output.line(each)
    except FileNotFoundError as exc:
        raise Missing(
            f"There is no {file}; only `perry agent run -d` writes it; one in the foreground logs to its terminal."
        ) from exc
    except OSError as exc:
        raise CliError(f"{file} cannot be read ({exc.strerror}); run this as the person who runs the agent.") from exc


@agent.command()
def kill() -> None:
    """End the agent, gracefully. Workspaces run on."""
    # Only one that was named: nobody ends another machine's agent by having none of their own.
    client = Client(config.target(find=False))
    client.call("agent.kill", Killed)
    deadline = time.monotonic() + END_SECONDS
    while client.answers():
        if time.monotonic() > deadline:
            raise CliError(f"The agent at {client.target.url} was told to end and has not; see `perry agent logs`.")
        time.sleep(POLL_SECONDS)
    output.line("The agent has ended; workspaces run on.")


@agent.command()
@as_json
def token(as_json: bool) -> None:
    """Print the token of this machine's agent, for PERRY_TOKEN on another device. Whoever has it may do everything."""
    folder = config.folder()
    found = config.local_token(folder)
    if found is None:
        raise Missing(f"There is no token in {folder} yet; the first `perry agent run` makes it.")
    if as_json:
        output.data({"token": found})
    else:
        output.line(found)


def _services() -> list[ServiceStatus]:
    return [ServiceStatus(each.mode, str(each.unit), each.active, each.enabled) for each in systemd.installed()]


def _shown(each: ServiceStatus) -> str:
    return f"{each.unit} ({each.mode}): {each.active}, {each.enabled}"


def _say_what_is_open(own: config.Target, environment: dict[str, str]) -> None:
    """Before it listens anywhere but on this machine."""
    host = config.listens_on(environment)
    if host in LOOPBACK:
        return
    where = "every address of this machine" if host in ("0.0.0.0", "::") else host
    output.warn(
        f"The agent listens on {where}, port {own.port}, over plain http: whoever can reach that may try tokens, and "
        "whoever sees one on its way may do everything. Where there is a tailnet, its devices need none of it: they "
        "reach the agent at http://perry."
    )


# --- the control plane as a process


def _command(arguments: list[str]) -> list[str]:
    # -P: the folder that this is called in must not be searched for modules.
    return [sys.executable, "-P", "-m", "controlplane", *arguments]


def _exec(arguments: list[str], environment: dict[str, str]) -> NoReturn:
    command = _command(arguments)
    sys.stdout.flush()
    os.execve(command[0], command, environment)


def _run_in_background(client: Client, environment: dict[str, str]) -> None:
    file = client.target.folder / AGENT_LOG
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise CliError(f"{file} cannot be written ({exc.strerror}); mend that folder, or give --config-dir.") from exc
    began_at = os.fstat(log).st_size
    process = subprocess.Popen(
        _command(["run"]),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    os.close(log)
    try:
        wait_until_ready(client, lambda: None if process.poll() is None else _last_words(file, began_at), log=str(file))
    finally:
        # It outlives this program; without this Python warns that nobody waited for it.
        process.returncode = process.returncode or 0
    output.line(f"The agent runs at {client.target.url}; its log is {file}, `perry agent kill` ends it.")


def _last_words(file: Path, offset: int) -> str:
    """The last line that it wrote in this run, from its structured log where it is one."""
    with file.open("rb") as log:
        log.seek(offset)
        lines = [line for line in log.read()[-65536:].decode(errors="replace").splitlines() if line.strip()]
    return output.clean(lines[-1]) if lines else f"it said nothing; {file} may have more."


def _newest(file: Path, count: int) -> Iterator[str]:
    with file.open(errors="replace") as log:
        yield from (output.clean(line.rstrip("\n")) for line in deque(log, maxlen=count))


def _following(file: Path) -> Iterator[str]:
    """New lines as they come, also when the file was cut or replaced."""
    with file.open(errors="replace") as log:
        log.seek(0, os.SEEK_END)
        while True:
            if line := log.readline():
                yield output.clean(line.rstrip("\n"))
                continue
            if os.fstat(log.fileno()).st_size < log.tell():
                log.seek(0)
            time.sleep(POLL_SECONDS)
