"""The part of ``~/.ssh/config`` that is Perry's: a file of its own, and one line that includes it.

``~/.ssh/perry/config`` and ``known_hosts`` are Perry's alone and are replaced whole. In ``~/.ssh/config`` there is one
``Include``, first in the file since it would else belong to the ``Host`` before it; all else there stays as it is.
"""

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec

from cli.errors import CliError

USER: Final = "workspace"
FOLDER: Final = "perry"
MARK: Final = "# Perry's workspaces; `perry ssh-config --remove` takes this away."
OF_AGENT: Final = "# Written by `perry ssh-config` for the agent at "

_HOST_LINE: Final = re.compile(r"^\s*Host[\s=]+(.*)$", re.IGNORECASE)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One host. ``host`` and ``port`` are where its ssh is; ``identity`` is the key for it, None for the person's own.

    ``through`` is a ProxyCommand that is its connection, in place of an address.
    """

    name: str
    alias: str
    host: str
    port: int = 22
    identity: Path | None = None
    through: str | None = None
    host_keys: Sequence[str]


class Files:
    """The files below a folder of ssh (``~/.ssh``)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user_config = folder / "config"
        self.config = folder / FOLDER / "config"
        self.known_hosts = folder / FOLDER / "known_hosts"

    @property
    def _include(self) -> str:
        return f'Include "{self.config}"'

    def installed_for(self) -> str | None:
        """The address of the agent whose workspaces stand there; None where nothing of Perry's does."""
        try:
            for line in self.config.read_text().splitlines():
                if line.startswith(OF_AGENT):
                    return line.removeprefix(OF_AGENT).strip()
        except (OSError, UnicodeDecodeError):
            return None
        return None

    def names_of_user(self) -> frozenset[str]:
        """Hosts that the person's own configuration names."""
        found: set[str] = set()
        for line in self._text().splitlines():
            if match := _HOST_LINE.match(line):
                found.update(word.strip('"') for word in match[1].split())
        return frozenset(found)

    def write(self, entries: Sequence[Entry], agent: str) -> bool:
        """Write all of it. Whether anything changed."""
        text = rendered(entries, self.known_hosts, agent)
        changed = self._replace(self.known_hosts, known_hosts(entries))
        changed |= self._replace(self.config, text)
        return self._replace(self.user_config, self._with_include(self._text())) or changed

    def remove(self) -> bool:
        """Take all of it away. Whether there was any."""
        found = False
        before = self._text()
        after = self._without_include(before)
        if after != before:
            found = True
            if after:
                self._replace(self.user_config, after)
            else:
                self.user_config.resolve().unlink(missing_ok=True)
        try:
            for file in (self.config, self.known_hosts):
                found |= file.exists()
                file.unlink(missing_ok=True)
            if self.config.parent.is_dir() and not any(self.config.parent.iterdir()):
                self.config.parent.rmdir()
        except OSError as exc:
            raise CliError(f"{self.config.parent} cannot be removed ({exc.strerror}); remove it by hand.") from exc
        return found

    def _with_include(self, text: str) -> str:
        rest = self._without_include(text)
        return f"{MARK}\n{self._include}\n" + (f"\n{rest}" if rest else "")

    def _without_include(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        kept: list[str] = []
        after_ours = False
        for line in lines:
            if line.strip() in (MARK, self._include):
                after_ours = True
            elif after_ours and not line.strip():
                after_ours = False  # The empty line that was put after it.
            else:
                after_ours = False
                kept.append(line)
        return "".join(kept)

    def _text(self) -> str:
        try:
            return self.user_config.read_text(errors="surrogateescape")
        except FileNotFoundError:
            return ""
        except OSError as exc:
            raise CliError(f"{self.user_config} cannot be read ({exc.strerror}); mend its permissions.") from exc

    def _replace(self, file: Path, text: str) -> bool:
        """Replace a file whole, if it is to change. A link stays one; mode and owner stay."""
        target = file.resolve()
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            content = text.encode(errors="surrogateescape")
            if target.exists() and target.read_bytes() == content:
                return False
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
            handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "wb") as out:
                out.write(content)
                os.fchmod(out.fileno(), mode)
            partial.replace(target)
        except OSError as exc:
            partial.unlink(missing_ok=True)
            raise CliError(f"{target} cannot be written ({exc.strerror}); mend that folder's permissions.") from exc
        return True


def alias(name: str, taken: Collection[str]) -> str:
    """What a workspace is called in ssh's configuration: its name, unless the person has a host of that name."""
    return name if name not in taken else f"{name}.perry"


def known_hosts(entries: Sequence[Entry]) -> str:
    """The host keys of all, each under its workspace's name."""
    return "".join(f"{entry.name} {key}\n" for entry in entries for key in entry.host_keys)


def rendered(entries: Sequence[Entry], known: Path, agent: str) -> str:
    """Perry's file."""
    blocks = [_block(entry, known) for entry in entries]
    return "\n".join([f"{OF_AGENT}{agent}\n# Made anew each time: what is changed here is lost.\n", *blocks])


def _block(entry: Entry, known: Path) -> str:
    lines = [f"Host {entry.alias}", f"    HostName {entry.host}", f"    User {USER}"]
    if entry.port != 22:
        lines.append(f"    Port {entry.port}")
    if entry.through:
        lines.append(f"    ProxyCommand {entry.through}")
    if entry.identity is not None:
        lines += [f"    IdentityFile {_quoted(entry.identity)}", "    IdentitiesOnly yes"]
    lines += [
        f"    HostKeyAlias {entry.name}",
        f"    UserKnownHostsFile {_quoted(known)}",
        "    GlobalKnownHostsFile /dev/null",
        "    StrictHostKeyChecking yes",
        "    UpdateHostKeys no",
        "    CheckHostIP no",
    ]
    return "\n".join(lines) + "\n"


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("%", "%%") + '"'
