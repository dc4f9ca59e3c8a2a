"""Reads what is to be brought from this machine. What cannot be read is a sentence, and nothing else waits for it."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import pwd
import stat
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from controlplane.credentials.plan import Merge, Person, Plan, Wish, as_json, combined
from controlplane.errors import InvalidInput

LIMIT: Final = 64 << 20
"""Bytes that a workspace is brought in all."""

FILES: Final = 5000
"""Files that a workspace is brought in all."""

SKIPPED: Final = frozenset({".git", "node_modules", ".DS_Store", "__pycache__"})


NOBODY: Final = Person()


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """A file to deliver; ``path`` is below home."""

    path: str
    merge: Merge
    mode: int
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


class Gathered(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. ``spared`` are paths of which nothing is known now, so what was brought there stays."""

    items: tuple[Item, ...]
    problems: tuple[str, ...]
    spared: tuple[str, ...]
    secrets: tuple[str, ...]


class Unread(Exception):
    """A source that cannot be read; the message says why."""


def home_of(environ: Mapping[str, str]) -> Path:
    """Of the person whose control plane this is: under sudo, of the one who called it."""
    if os.geteuid() == 0 and (name := environ.get("SUDO_USER")):
        with contextlib.suppress(KeyError):
            return Path(pwd.getpwnam(name).pw_dir)
    return Path(environ.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir)


def expanded(path: str, home: Path) -> Path:
    """A path as people write it in ``config.json``."""
    if path == "~" or path.startswith("~/"):
        return home / path[2:]
    return home / path


def gather(plan: Plan, home: Path) -> Gathered:
    """Read all that the plan names."""
    reader = _Reader(home)
    for wish in plan.wishes:
        reader.take(wish)
    problems = (*plan.problems, *reader.problems)
    # A setting with a problem says nothing of what was brought for it before.
    return Gathered(items=tuple(reader.items()), problems=problems, spared=tuple(reader.spared), secrets=plan.secrets)


class _Reader:
    def __init__(self, home: Path) -> None:
        self._home = home
        self._found: dict[str, list[Item]] = {}
        self._room = LIMIT
        self._files = 0
        self.problems: list[str] = []
        self.spared: list[str] = []

    def items(self) -> Iterator[Item]:
        for path, found in self._found.items():
            try:
                yield _joined(found)
            except ValueError:
                self.problems.append(f"~/{path} would have to be put together from sources that are not all right.")
                self.spared.append(path)

    def take(self, wish: Wish) -> None:
        try:
            if isinstance(wish.source, bytes):
                self._add(wish, wish.path, wish.source, 0o700 if wish.executable else 0o600)
            else:
                self._read(wish, expanded(wish.source, self._home))
        except Unread as exc:
            self.problems.append(f"{wish.setting}: {exc}")
            self.spared.append(wish.path)

    def _add(self, wish: Wish, path: str, content: bytes, mode: int) -> None:
        self._files += 1
        self._room -= len(content)
        if self._files > FILES:
            raise Unread(f"there are more than {FILES} files to bring; name less of them.")
        if self._room < 0:
            raise Unread(f"there are more than {LIMIT >> 20} MB to bring; name less, or put it into an image.")
        merge = wish.merge
        if wish.keys:
            chosen = {key: value for key, value in _object(content).items() if key in wish.keys}
            if not chosen:
                return
            content = as_json(chosen)
        if merge in (Merge.JSON, Merge.TOML) and not _is_structured(merge, content):
            merge = Merge.FILE
        self._found.setdefault(path, []).append(Item(path=path, merge=merge, mode=mode, content=content))

    def _read(self, wish: Wish, source: Path) -> None:
        try:
            about = source.stat()
        except FileNotFoundError:
            if not wish.required:
                return
            raise Unread(_missing(source)) from None
        except OSError as exc:
            raise Unread(_because(source, exc)) from None
        if stat.S_ISDIR(about.st_mode):
            self._read_folder(wish, source)
        else:
            self._add(wish, wish.path, *self._content(source))

    def _content(self, source: Path) -> tuple[bytes, int]:
        content, about = read_file(source, self._room)
        return content, 0o700 if about.st_mode & 0o100 else 0o600

    def _read_folder(self, wish: Wish, folder: Path) -> None:
        inside = folder.resolve()
        plain = msgspec.structs.replace(wish, merge=Merge.FILE)
        for parent, folders, files in os.walk(folder, onerror=_raise):
            folders[:] = sorted(name for name in folders if name not in SKIPPED)
            linked = [name for name in folders if os.path.islink(os.path.join(parent, name))]
            for name in sorted([*(each for each in files if each not in SKIPPED), *linked]):
                file = Path(parent, name)
                path = f"{wish.path}/{file.relative_to(folder).as_posix()}"
                try:
                    target = file.resolve()
                    if not target.is_relative_to(inside):
                        raise Unread(f"{file} is a link out of its folder, and was left out; name its target itself.")
                    if target.is_dir():
                        raise Unread(f"{file} is a link to a folder, and was left out; name that folder itself.")
                    self._add(plain, path, *self._content(target))
                except Unread as exc:
                    self.problems.append(f"{wish.setting}: {exc}")
                    self.spared.append(path)
                    if self._room < 0 or self._files > FILES:
                        self.spared.append(wish.path)
                        return


def read_file(source: Path, room: int) -> tuple[bytes, os.stat_result]:
    """A plain file's content. Unread where it is something else, or larger than there is room for."""
    try:
        # Not blocking: a FIFO would wait for somebody to write.
        handle = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise Unread(f"{source} is no plain file; name a file or a folder of files.")
            content = file.read(room + 1) if about.st_size <= room else b""
            if about.st_size > room or len(content) > room:
                raise Unread(
                    f"{source} has {max(about.st_size, len(content)) / (1 << 20):.0f} MB, and {LIMIT >> 20} MB is all "
                    "that can be brought; put it into an image, or copy it with scp."
                )
            return content, about
    except OSError as exc:
        raise Unread(_because(source, exc)) from None


def read_text(path: str, home: Path) -> str:
    """The text of a file that a setting refers to, without the line break at its end. InvalidInput says why not."""
    source = expanded(path, home)
    try:
        return read_file(source, 1 << 20)[0].decode().removesuffix("\n")
    except Unread as exc:
        raise InvalidInput(str(exc)) from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{source} is no text; name a file of text.") from None


def authorized_keys(entries: Sequence[str], home: Path, problems: list[str]) -> bytes:
    """The public keys that the entries are, or that stand in the files that they name."""
    keys: list[str] = []
    for entry in entries:
        if " " in entry.strip() and not entry.startswith(("/", "~")):
            keys.append(entry.strip())
            continue
        pattern = str(expanded(entry, home))
        for file in sorted(glob.glob(pattern)) if "*" in entry else [pattern]:
            try:
                lines = read_text(file, home).splitlines()
                if any("PRIVATE KEY" in line for line in lines):
                    raise InvalidInput(f"{file} is a private key; name its public half, {file}.pub.")
                keys += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
            except InvalidInput as exc:
                problems.append(f"ssh: {exc.message}")
    return "".join(f"{key}\n" for key in dict.fromkeys(keys)).encode()


def git_person(home: Path) -> Person:
    """Who commits on this machine, as git's own configuration of its user has it."""
    command = ["git", "config", "--global", "--null", "--get-regexp", r"^user\.(name|email)$"]
    environ = {"HOME": str(home), "PATH": os.environ.get("PATH", os.defpath)}
    try:
        done = subprocess.run(command, env=environ, cwd="/", capture_output=True, timeout=5, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return Person()
    found: dict[str, str] = {}
    for entry in done.stdout.decode(errors="replace").split("\0"):
        key, _, value = entry.partition("\n")
        found[key] = value
    return Person(found.get("user.name", ""), found.get("user.email", ""))


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_structured(merge: Merge, content: bytes) -> bool:
    if merge is Merge.JSON:
        return bool(_object(content))
    try:
        tomllib.loads(content.decode())
    except ValueError:
        return False
    return True


def _joined(found: Sequence[Item]) -> Item:
    """One item of several for one path. ValueError where they cannot be put together."""
    first = found[0]
    if len(found) == 1:
        return first
    if all(item.merge is Merge.JSON for item in found):
        content = as_json(combined([_object(item.content) for item in found]))
    elif all(item.merge is Merge.TOML for item in found):
        content = b"\n".join(item.content.rstrip(b"\n") + b"\n" for item in found)
        tomllib.loads(content.decode())
    else:
        return found[-1]
    return msgspec.structs.replace(first, content=content)


def _missing(source: Path) -> str:
    return f"{source} does not exist; make it, or take it out of config.json."


def _because(source: Path, exc: OSError) -> str:
    if exc.errno == errno.ENOENT:
        return _missing(source)
    if exc.errno in (errno.EACCES, errno.EPERM):
        return f"{source} cannot be read by the agent's user; mend its permissions, or take it out of config.json."
    return f"{source} cannot be read ({exc.strerror}); mend it, or take it out of config.json."


def _raise(exc: OSError) -> None:
    raise Unread(_because(Path(exc.filename), exc))
