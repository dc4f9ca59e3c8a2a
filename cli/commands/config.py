"""``perry config``."""

import os
import stat
from pathlib import Path
from typing import Final

import click
import msgspec

from cli import config as configured
from cli import output
from cli.client import Client
from cli.commands.config_shown import show
from cli.commands.parameters import as_json
from cli.errors import CliError, Misused, NotAuthorised, NotReachable, NotReady
from protocol.auth import WhoAmI
from protocol.config import ConfigChange, SetConfig, UnsetConfig
from protocol.errors import ErrorCode
from protocol.folders import CLIENT_FILE
from protocol.health import Health
from protocol.version import API_VERSION, VERSION

TOKEN_LIMIT: Final = 4096
"""More than any token has, in bytes."""


class Config(click.Group):
    """A group whose command ``worker`` is also called ``agent``."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "worker" if cmd_name == "agent" else cmd_name)


@click.group(cls=Config, invoke_without_command=True)
@as_json
@click.pass_context
def config(ctx: click.Context, as_json: bool) -> None:
    """Show the agent's settings and what workspaces are given, each with where it comes from; or set up perry."""
    if ctx.invoked_subcommand is None:
        show(as_json)


class Worker(msgspec.Struct, frozen=True, rename="camel"):
    """What ``perry config worker --json`` prints."""

    worker: str | None
    url: str
    has_token: bool
    source: str


@config.command()
@click.argument("host", required=False)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the agent's token, for a device that is not on its tailnet. Nobody else may read it.",
)
@click.option("--remove", is_flag=True, help="Forget it; perry then looks for an agent by itself.")
@as_json
def worker(host: str | None, token_file: Path | None, remove: bool, as_json: bool) -> None:
    """Say which agent the commands of this device speak to: HOST is a name, host:port or a URL.

    On the agent's tailnet its name is all there is to say: perry config worker perry. Without HOST it shows what is
    set. `perry config agent` is the same command.
    """
    if remove and (host or token_file):
        raise Misused("--remove takes no other argument.")
    if token_file and not host:
        raise Misused("--token-file goes with the host that the token is for: perry config worker HOST --token-file …")
    if remove:
        _remove()
    elif host:
        _set(host, token_file)
    if as_json or not (remove or host):
        _show(as_json)


CREDENTIAL_FILE: Final = "tailnet.credentialFile"


@config.command("set")
@click.argument("key")
@click.argument("value")
@as_json
def set_(key: str, value: str, as_json: bool) -> None:
    """Put one of the agent's settings into its config.json; a list has commas. docs/settings.md has them all.

    A secret is never a value: write it into a file that only you can read, and name the file.
    """
    client = Client()
    if key == CREDENTIAL_FILE and client.target.local and (here := Path(value).expanduser()).is_file():
        value = str(here.absolute())
    _changed(client.call("config.set", ConfigChange, SetConfig(key=key, value=value)), as_json)


@config.command()
@click.argument("key")
@as_json
def unset(key: str, as_json: bool) -> None:
    """Take one of the agent's settings out of its config.json, so that the default counts."""
    _changed(Client().call("config.unset", ConfigChange, UnsetConfig(key=key)), as_json)


def _changed(change: ConfigChange, as_json: bool) -> None:
    if as_json:
        output.data(change)
        return
    value = change.value if isinstance(change.value, str) else msgspec.json.encode(change.value).decode()
    output.note(f"{change.key} is {output.clean(value) or 'empty'} now, in {output.clean(change.file)}.")
    if change.restart:
        output.note("The agent that runs goes on with what it had: `perry agent kill`, then `perry agent run -d`.")


def _show(as_json: bool) -> None:
    target = configured.target()
    named = configured.client_settings(target.folder).get("worker")
    shown = Worker(
        worker=str(named) if named else None,
        url=target.url,
        has_token=configured.token(target) is not None,
        source=target.source,
    )
    if as_json:
        output.data(shown)
        return
    whence = "nothing else is set" if target.source == "default" else f"{target.source} says so"
    output.line(f"perry speaks to the agent at {shown.url}; {output.clean(whence)}.")
    output.line(f"A token {'goes' if shown.has_token else 'does not go'} with it.")


def _set(host: str, token_file: Path | None) -> None:
    folder = configured.folder()
    target = configured.named(host, folder)
    token = _token_in(token_file) if token_file else configured.client_token(target)
    client = Client(target, token=token)
    health = _health(client, host)
    if health.api_version != API_VERSION:
        raise NotReady(
            f"The agent at {target.url} is version {health.version} (API {health.api_version}) and this perry is "
            f"{VERSION} (API {API_VERSION}), which do not understand each other; install the same version on both."
        )
    recognised = _recognised(client)
    configured.write_client(folder, worker=host.strip(), token=token)
    output.note(f"perry speaks to the agent at {target.url} from now on; {folder / CLIENT_FILE} says so.")
    if recognised is None:
        output.warn(
            f"The agent at {target.url} wants a token: `perry agent token` on its machine prints it; put it into a "
            f"file that only you can read, and call `perry config worker {host} --token-file FILE`."
        )
    elif "manage" not in recognised.may:
        who = " ".join(part for part in (recognised.login, f"on {recognised.node}" if recognised.node else "") if part)
        output.warn(f"It knows you as {who or recognised.kind}, who may not use it; its `auth.owners` says who may.")
    if os.environ.get("PERRY_URL"):
        output.warn("PERRY_URL is set here, and wins over it.")


def _remove() -> None:
    folder = configured.folder()
    if configured.write_client(folder, worker=None, token=None):
        output.note(f"{folder / CLIENT_FILE} names no agent any more.")
    else:
        output.note("No agent was named; there is nothing to remove.")


def _health(client: Client, host: str) -> Health:
    try:
        status, body = client.get("/health")
        health = msgspec.json.decode(body, type=Health)
    except NotReachable as exc:
        raise NotReachable(f"{exc.message} Nothing was changed.") from exc
    except msgspec.DecodeError:
        status, health = 0, None
    if status != 200 or health is None or not health.ok:
        raise CliError(
            f"What answers at {client.target.url} is no Perry agent, so nothing was changed; check {host!r}, and its "
            "port where it is not 7391."
        )
    return health


def _recognised(client: Client) -> WhoAmI | None:
    """How the agent knows us; None where it wants a token. NotAuthorised where ours is wrong."""
    try:
        return client.call("auth.whoami", WhoAmI)
    except NotAuthorised as exc:
        if exc.code == ErrorCode.UNAUTHORIZED and "Authorization" not in client.headers():
            return None
        raise


def _token_in(file: Path) -> str:
    try:
        # Not blocking: a FIFO would wait for somebody to write.
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as opened:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise Misused(f"{file} is no file; put the token into a file of its own.")
            if about.st_mode & 0o077:
                raise NotAuthorised(f"{file} can be read by others; call `chmod 600 {file}`, and then this again.")
            text = opened.read(TOKEN_LIMIT + 1)
    except OSError as exc:
        raise Misused(f"{file} cannot be read ({exc.strerror}); give a file with the agent's token.") from exc
    token = text.decode("ascii", errors="replace").strip()
    if not token or len(text) > TOKEN_LIMIT or not token.isprintable() or not token.isascii() or " " in token:
        raise Misused(
            f"{file} holds no token; it has to be the line that `perry agent token` prints, and nothing else."
        )
    return token
