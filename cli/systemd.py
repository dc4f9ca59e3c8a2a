"""The agent as a service of systemd: of one person's own systemd, or of the machine's.

The unit has absolute paths and nothing secret. What it runs is what ``perry agent run`` runs.
"""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from cli.errors import CliError, Misused, NotReady, Refused

UNIT: Final = "perry-agent.service"
SYSTEM_UNITS: Final = Path("/etc/systemd/system")
BOOTED: Final = Path("/run/systemd/system")
"""There where systemd is what the machine was started with (sd_booted(3))."""

SECONDS: Final = 90.0

_CARRIED: Final = ("DOCKER_HOST", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")
_NOT_SETTINGS: Final = frozenset({"PERRY_CONFIG_DIR", "PERRY_URL", "PERRY_TOKEN"})

# What holds without namespaces of its own, which a person's systemd may not be allowed to make.
_HARDENING: Final = """\
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
"""
_SYSTEM_HARDENING: Final = """\
ProtectSystem=full
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
"""


class Mode(StrEnum):
    """Whose systemd runs it."""

    USER = "user"
    SYSTEM = "system"


class Service(msgspec.Struct, frozen=True):
    """A service that is installed. ``active`` and ``enabled`` are systemd's words."""

    mode: Mode
    unit: Path
    active: str
    enabled: str


def unit_text(
    mode: Mode, *, folder: Path, environ: Mapping[str, str], python: str, user: str, docker_group: bool, linger: bool
) -> str:
    """The unit. Pure."""
    carried = [f"Environment={_quoted(f'{name}={environ[name]}')}" for name in _CARRIED if environ.get(name)]
    lines = [
        "# Written by `perry agent install`, which writes it anew; `perry agent uninstall` removes it.",
        "[Unit]",
        "Description=Perry agent",
        *(["Wants=docker.service network-online.target", "After=docker.service network-online.target"]
          if mode is Mode.SYSTEM else
          # A person's systemd knows no units of the machine's; the agent itself waits for Docker.
          []),
        "StartLimitIntervalSec=300",
        "StartLimitBurst=20",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={_quoted(python, command=True)} -P -m controlplane run",
        f"Environment={_quoted(f'PERRY_CONFIG_DIR={folder}')}",
        *carried,
        "WorkingDirectory=/",
        "UMask=0077",
        "Restart=on-failure",
        "RestartSec=2",
        "KillMode=mixed",
        "TimeoutStopSec=60",
        *([f"User={user}", *(["SupplementaryGroups=docker"] if docker_group else [])]
          if mode is Mode.SYSTEM else []),
        *_HARDENING.splitlines(),
    ]  # fmt: skip
    if mode is Mode.SYSTEM:
        lines += _SYSTEM_HARDENING.splitlines()
        if not any(folder.is_relative_to(temporary) for temporary in ("/tmp", "/var/tmp")):
            lines.append("PrivateTmp=yes")
    target = "multi-user.target" if mode is Mode.SYSTEM else "default.target"
    lines += ["", "[Install]", f"WantedBy={target}", "", "[X-Perry]", f"Linger={'yes' if linger else 'no'}", ""]
    return "\n".join(lines)


def _quoted(text: str, *, command: bool = False) -> str:
    if not text.isprintable():
        raise Misused(f"{text!r} cannot stand in a unit of systemd; use a path of printable characters.")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + (escaped.replace("$", "$$") if command else escaped) + '"'


def person() -> str:
    """Who the agent is for: who called sudo, else who runs this."""
    if os.geteuid() == 0 and (invoker := os.environ.get("SUDO_USER")):
        return invoker
    return pwd.getpwuid(os.geteuid()).pw_name


def left_behind(environ: Mapping[str, str]) -> list[str]:
    """Settings in this shell's environment, which a service does not see."""
    return sorted(name for name in environ if name.startswith("PERRY_") and name not in _NOT_SETTINGS)


def unit_file(mode: Mode) -> Path:
    if mode is Mode.SYSTEM:
        return SYSTEM_UNITS / UNIT
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "systemd" / "user" / UNIT


def installed() -> list[Service]:
    """The services that there are, of this person and of the machine."""
    found: list[Service] = []
    for mode in Mode:
        file = unit_file(mode)
        if file.exists():
            active, enabled = (_ask(mode, verb) for verb in ("is-active", "is-enabled"))
            found.append(Service(mode, file, active, enabled))
    return found


def require_systemd(mode: Mode) -> None:
    """Refuse what cannot work, before anything is written."""
    if not BOOTED.exists() or shutil.which("systemctl") is None:
        raise NotReady(
            "This machine does not run systemd; `perry agent run -d` runs the agent in the background until the "
            "machine restarts."
        )
    if mode is Mode.SYSTEM and os.geteuid() != 0:
        raise Misused("A service of the machine takes root; call `sudo perry agent install --system`.")
    if mode is Mode.USER and os.geteuid() == 0 and os.environ.get("SUDO_USER"):
        raise Misused("Under sudo it would be root's; call it without sudo for your own, or with --system.")


def install(mode: Mode, folder: Path, *, linger: bool) -> bool:
    """Write the unit, and start it, also at the next boot. Whether it will run without anybody logged in."""
    user = person()
    file = unit_file(mode)
    if mode is Mode.SYSTEM and (other := _user_of(file)) not in (None, user):
        raise Refused(f"{file} runs the agent of {other}; a machine has one such service: uninstall that one first.")
    lingers = mode is Mode.SYSTEM or _lingers(user)
    enabled_it = not lingers and linger and _enable_linger(user)
    if mode is Mode.USER:
        _require_user_manager()
    enabled_before = file.exists() and "Linger=yes" in file.read_text()
    text = unit_text(
        mode,
        folder=folder.absolute(),
        environ=os.environ,
        python=sys.executable,
        user=user,
        docker_group=mode is Mode.SYSTEM and user != "root" and _group_exists("docker"),
        linger=enabled_it or enabled_before,
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{file.name}.{os.getpid()}")
        partial.write_text(text)
        partial.chmod(0o644)
        partial.replace(file)
    except OSError as exc:
        raise CliError(f"{file} cannot be written ({exc.strerror}); mend that folder's permissions.") from exc
    _must(mode, "daemon-reload")
    _must(mode, "reset-failed", UNIT, may_fail=True)
    _must(mode, "enable", UNIT)
    _must(mode, "restart", UNIT)
    return lingers or enabled_it


def uninstall(service: Service) -> None:
    """Stop it and remove the unit. What the agent keeps in its folder stays."""
    if service.mode is Mode.SYSTEM and os.geteuid() != 0:
        raise Misused(f"{service.unit} is the machine's; call `sudo perry agent uninstall`.")
    lingered = "Linger=yes" in service.unit.read_text()
    _must(service.mode, "disable", "--now", UNIT)
    service.unit.unlink(missing_ok=True)
    _must(service.mode, "daemon-reload")
    _must(service.mode, "reset-failed", UNIT, may_fail=True)
    if lingered and service.mode is Mode.USER:
        _run(["loginctl", "disable-linger", person()])


def why(mode: Mode) -> str:
    """The last thing that the agent itself said, for a sentence."""
    field = "_SYSTEMD_USER_UNIT" if mode is Mode.USER else "_SYSTEMD_UNIT"
    done = _run(["journalctl", "-q", f"{field}={UNIT}", "_TRANSPORT=stdout", "-n", "1", "-o", "cat"])
    return done.stdout.strip() if done.returncode == 0 else ""


def restarts(mode: Mode) -> int:
    """How often systemd has started it again since somebody started it."""
    text = _run([*_systemctl(mode), "show", "--property=NRestarts", "--value", UNIT]).stdout.strip()
    return int(text) if text.isdigit() else 0


def journal(mode: Mode, *, tail: int, follow: bool) -> list[str]:
    """The command that shows its log."""
    unit = ["--user-unit" if mode is Mode.USER else "-u", UNIT]
    return ["journalctl", *unit, "-n", str(tail), "-o", "cat", *(["-f"] if follow else ["--no-pager"])]


# --- systemd


def _systemctl(mode: Mode) -> list[str]:
    return ["systemctl", "--user"] if mode is Mode.USER else ["systemctl"]


def _environment() -> dict[str, str]:
    """This one, with the place of the person's own systemd, which a shell by ``su`` does not know."""
    environment = dict(os.environ)
    runtime = f"/run/user/{os.geteuid()}"
    if "XDG_RUNTIME_DIR" not in environment and os.path.isdir(runtime):
        environment["XDG_RUNTIME_DIR"] = runtime
    return environment


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env=_environment(), stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as exc:
        raise CliError(f"`{' '.join(command)}` did not end within {SECONDS:.0f} s; call it by hand.") from exc
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]} is missing")


def _must(mode: Mode, *arguments: str, may_fail: bool = False) -> None:
    done = _run([*_systemctl(mode), *arguments])
    if done.returncode != 0 and not may_fail:
        words = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise CliError(f"`{' '.join([*_systemctl(mode), *arguments])}` failed: {words}")


def _ask(mode: Mode, verb: str) -> str:
    with contextlib.suppress(CliError):
        return _run([*_systemctl(mode), verb, UNIT]).stdout.strip() or "unknown"
    return "unknown"


def _require_user_manager() -> None:
    done = _run([*_systemctl(Mode.USER), "show", "--property=Version"])
    if done.returncode != 0:
        user = person()
        raise NotReady(
            f"No systemd runs for {user} here ({' '.join(done.stderr.split()) or 'it does not answer'}); "
            f"`sudo loginctl enable-linger {user}` starts one, and `sudo perry agent install --system` needs none."
        )


def _lingers(user: str) -> bool:
    return Path("/var/lib/systemd/linger", user).exists()


def _enable_linger(user: str) -> bool:
    # Without a terminal loginctl does not ask for a password, and the same with --no-ask-password.
    return _run(["loginctl", "--no-ask-password", "enable-linger", user]).returncode == 0


def _user_of(file: Path) -> str | None:
    try:
        found = re.search(r"^User=(.+)$", file.read_text(), re.MULTILINE)
    except OSError:
        return None
    return found[1].strip() if found else None


def _group_exists(name: str) -> bool:
    import grp

    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True
