"""``perry doctor``: looks at everything that Perry needs, from here."""

import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

import click
import msgspec

from cli import config, output
from cli.client import Client
from cli.commands.parameters import as_json
from cli.commands.workspaces import worker_note
from cli.errors import CliError, NotReachable
from protocol.agent import AgentInfo
from protocol.auth import IdentityKind, WhoAmI
from protocol.config import Config
from protocol.folders import CONFIG_FILE, TOKEN_FILE
from protocol.health import Readiness
from protocol.tailnet import TailnetStatus
from protocol.version import VERSION
from protocol.workspaces import TailnetState, Workspace, WorkspaceStatus

MASK: Final = "***"
"""What the agent shows in place of a secret."""
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """One line. ``advice`` is what to do where it is not well."""

    name: str
    verdict: Verdict
    text: str
    advice: str | None = None


STYLES: Final = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


@click.command()
@as_json
def doctor(as_json: bool) -> None:
    """Check what Perry needs, line by line, with what to do. Exit code 1 where something fails."""
    found: list[Check] = []
    for check in checks():
        found.append(check)
        if not as_json:
            _show(check)
    if as_json:
        output.data(found)
    failed = sum(check.verdict is Verdict.FAIL for check in found)
    if failed:
        raise CliError(f"{failed} of {len(found)} checks failed; each says above what to do.")


def _show(check: Check) -> None:
    verdict = output.styled(f"{check.verdict.value:5}", STYLES[check.verdict])
    text = f"{check.text.rstrip('.')}; {check.advice}" if check.advice else check.text
    output.line(f"{verdict} {check.name:14} {output.clean(text)}")


def checks() -> Iterator[Check]:
    """All checks, in the order in which one needs the other."""
    try:
        target = config.target()
    except CliError as exc:
        yield Check("configuration", Verdict.FAIL, exc.message)
        return
    yield Check("configuration", Verdict.OK, f"{target.folder}; the agent is {target.url} ({_named_by(target)})")
    yield from _programs()
    client = Client(target)
    try:
        info = client.call("agent.info", AgentInfo)
    except NotReachable as exc:
        yield Check("agent", Verdict.FAIL, exc.message)
        yield from _this_machine(target, None)
        return
    except CliError as exc:
        yield Check("token" if exc.exit_code == 6 else "agent", Verdict.FAIL, exc.message)
        return
    yield Check("agent", Verdict.OK, f"answers on {info.hostname}, up {output.duration(info.uptime)}")
    yield from _token(client)
    if info.version == VERSION:
        yield Check("versions", Verdict.OK, f"perry and the agent are both {VERSION}")
    else:
        text = f"perry is {VERSION}, the agent {info.version}"
        yield Check("versions", Verdict.WARN, text, "install the same version on both")
    if info.docker_version:
        yield Check("docker", Verdict.OK, f"Docker Engine {info.docker_version}")
    else:
        text = "Docker does not answer the agent"
        yield Check("docker", Verdict.FAIL, text, "start it there (`sudo systemctl start docker`)")
    yield from _readiness(client)
    yield from _settings_file(client)
    settings = _settings(client)
    yield from _this_machine(target, settings)
    workspaces: list[Workspace] = []
    try:
        workspaces = client.call("workspaces.list", list[Workspace])
    except CliError as exc:
        yield Check("workspaces", Verdict.FAIL, exc.message)
    yield from _tailnet(client)
    yield from _workspaces(workspaces)
    yield from _open(settings, workspaces)


def _named_by(target: config.Target) -> str:
    return "this machine's own" if target.source == "default" else f"named by {target.source}"


def _programs() -> Iterator[Check]:
    for program, package, needed_for in (
        ("ssh", "openssh-client", "perry ssh"),
        ("git", "git", "perry start --clone PATH"),
    ):
        if shutil.which(program):
            yield Check(program, Verdict.OK, f"{program} is installed here")
        else:
            yield Check(program, Verdict.WARN, f"{program} is not here, for `{needed_for}`", f"install {package}")


def _token(client: Client) -> Iterator[Check]:
    try:
        who = client.call("auth.whoami", WhoAmI)
    except CliError as exc:
        yield Check("token", Verdict.FAIL, exc.message)
        return
    if who.kind is IdentityKind.ANONYMOUS:
        yield Check("token", Verdict.FAIL, "the agent does not know you", "set PERRY_TOKEN to its `perry agent token`")
        return
    file = client.target.folder / TOKEN_FILE
    if client.target.local and file.exists() and (mode := stat.S_IMODE(file.stat().st_mode)) & 0o077:
        yield Check("token", Verdict.FAIL, f"others can read {file} (mode {mode:o})", f"chmod 600 {file}")
    else:
        yield Check("token", Verdict.OK, f"accepted, as {who.login}" if who.login else "accepted")


def _readiness(client: Client) -> Iterator[Check]:
    """What the agent itself finds wanting."""
    try:
        found = msgspec.json.decode(client.get("/ready", seconds=20)[1], type=Readiness)
    except (CliError, msgspec.DecodeError) as exc:
        yield Check("ready", Verdict.FAIL, f"the agent does not say whether it is ready: {exc}")
        return
    for each in found.checks:
        if not each.ok or each.degraded:
            verdict = Verdict.WARN if each.ok else Verdict.FAIL
            yield Check(f"ready: {each.name}", verdict, each.detail or "not well")
    if found.ready:
        yield Check("ready", Verdict.OK, f"the agent has {', '.join(each.name for each in found.checks) or 'all'}")


def _settings_file(client: Client) -> Iterator[Check]:
    """Secrets that stand in config.json, where others can read it. The agent masks those that it has."""
    file = client.target.folder / CONFIG_FILE
    try:
        items = client.call("config.get", Config).items
        mode = stat.S_IMODE(file.stat().st_mode)
    except (CliError, OSError):
        return
    secret = [item.key for item in items if item.source == "file" and MASK in str(item.value)]
    if client.target.local and secret and mode & 0o077:
        text = f"others can read {file} (mode {mode:o}), which has {', '.join(secret)}"
        yield Check("settings", Verdict.FAIL, text, f"chmod 600 {file}")


def _settings(client: Client) -> dict[str, object]:
    try:
        return {item.key: item.value for item in client.call("config.get", Config).items}
    except CliError:
        return {}


def _this_machine(target: config.Target, settings: dict[str, object] | None) -> Iterator[Check]:
    """What only the agent's own machine can show."""
    if not target.local:
        return
    if Path("/dev/net/tun").exists():
        yield Check("tun", Verdict.OK, "/dev/net/tun is there")
    else:
        text = "there is no /dev/net/tun, so workspaces have only forwarded ports and no ssh without a key"
        yield Check("tun", Verdict.WARN, text, "`sudo modprobe tun`")
    settings = settings or {}
    tag = str(settings.get("imageTag", "latest"))
    embedded = settings.get("tailnet.provider", "embedded") == "embedded"
    own = (f"perry/{name}:{tag}" for name in ("sidecar", *(["headscale"] if embedded else [])))
    images = [str(settings.get("workspaces.image", "perry/workspace-base:latest")), *own]
    missing = _missing_images(images)
    if missing is None:
        yield Check("images", Verdict.WARN, "could not be looked at from here", "run this as a user who may use docker")
    elif missing:
        yield Check("images", Verdict.FAIL, f"not there: {', '.join(missing)}", "`perry agent build`")
    else:
        yield Check("images", Verdict.OK, ", ".join(images))


def _missing_images(images: list[str]) -> list[str] | None:
    """Those that Docker does not have; None where it cannot be asked from here."""
    program = shutil.which("docker")
    if program is None:
        return None
    command = [program, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode != 0:
        return None
    there = set(asked.stdout.split())
    return [image for image in images if image not in there]


def _tailnet(client: Client) -> Iterator[Check]:
    try:
        tailnet = client.call("tailnet.status", TailnetStatus)
    except CliError as exc:
        yield Check("tailnet", Verdict.FAIL, exc.message)
        return
    if tailnet.provider == "none":
        text = "there is none: workspaces are reached by `perry ssh` on the agent's machine"
        yield Check("tailnet", Verdict.WARN, text, "set tailnet.provider to have one")
        return
    if not tailnet.ready:
        advice = None if tailnet.error else "see `perry agent logs`"
        yield Check("tailnet", Verdict.FAIL, tailnet.error or f"{tailnet.provider} is not ready", advice)
        return
    online = sum(node.online for node in tailnet.nodes)
    yield Check("tailnet", Verdict.OK, f"{tailnet.provider}, {online} of {len(tailnet.nodes)} devices online")
    if tailnet.warning:
        yield Check("tailnet", Verdict.WARN, tailnet.warning)
    if tailnet.credential:
        until = f", until {tailnet.credential_expires}" if tailnet.credential_expires else ""
        yield Check("credential", Verdict.OK, f"the {tailnet.credential} is in use{until}")
    if tailnet.owners_warning:
        yield Check("owners", Verdict.FAIL, tailnet.owners_warning)
    else:
        yield Check("owners", Verdict.OK, ", ".join(tailnet.owners))
    if tailnet.gateway is not None:
        url = f"http://{tailnet.gateway.name}"
        if tailnet.gateway.error:
            yield Check("gateway", Verdict.WARN, f"{url}, the agent on the tailnet: {tailnet.gateway.error}")
        else:
            yield Check("gateway", Verdict.OK, f"the agent is at {url} for devices on the tailnet")
    device = next((node for node in tailnet.nodes if set(node.ips) & _own_addresses()), None)
    if device is not None:
        yield Check("this device", Verdict.OK, f"on the tailnet as {device.name}")
    else:
        yield Check("this device", Verdict.WARN, "not on the tailnet", "`perry tailnet join` shows how to join")


def _own_addresses() -> set[str]:
    """Addresses of this machine that are a tailnet's: the source address that a packet to its resolver would have."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("100.100.100.100", 53))  # Sends nothing.
            return {str(probe.getsockname()[0])}
    except OSError:
        return set()


def _workspaces(workspaces: list[Workspace]) -> Iterator[Check]:
    for each in workspaces:
        tailnet = each.tailnet
        off = tailnet.status in (TailnetState.FAILED, TailnetState.OFFLINE)
        if each.status is WorkspaceStatus.ERROR or each.error:
            text = f"{each.name}: {each.error or 'in error'}"
            yield Check("workspace", Verdict.WARN, text, f"`perry start {each.name}` tries again")
        elif off and each.status is WorkspaceStatus.RUNNING:
            text = f"{each.name} is {tailnet.status} on the tailnet"
            yield Check("workspace", Verdict.WARN, text, tailnet.error or f"`perry restart {each.name}`")
        if note := worker_note(each):
            yield Check("worker", Verdict.WARN, f"{each.name}: {note}")


def _open(settings: dict[str, object], workspaces: list[Workspace]) -> Iterator[Check]:
    """What others can reach, said plainly."""
    host, bind = str(settings.get("host", "127.0.0.1")), str(settings.get("ssh.bind", "127.0.0.1"))
    if host in LOOPBACK:
        yield Check("open: agent", Verdict.OK, f"listens on {host} only")
    else:
        text = f"listens on {host}, unencrypted: whoever reaches that address and sees a token may do everything"
        yield Check("open: agent", Verdict.WARN, text, "set `host` to 127.0.0.1 unless you need it")
    if bind in LOOPBACK:
        yield Check("open: ssh", Verdict.OK, f"workspaces' ssh ports are published on {bind} only, for keys")
    else:
        yield Check("open: ssh", Verdict.WARN, f"workspaces' ssh ports are published on {bind}, for keys only")
    with_docker = [each.name for each in workspaces if each.docker]
    if with_docker:
        text = f"root in a workspace with Docker inside can become root on the machine: {', '.join(with_docker)}"
        yield Check("open: docker", Verdict.WARN, text, "`perry start NAME --no-docker` is a boundary")
