"""Puts what is brought into a workspace. A program of its own, that knows nothing but Python's library.

The control plane sends its source along, so it is always of the control plane's version. It runs in the workspace as
the workspace's user, so it can do no more than that user can; it follows no link, and what it writes is whole or not
there. What the user has made or changed stays. On standard input, then output, each JSON on a line of its own:

    request   {"complete": bool, "spared": [path …], "items": [{"path", "merge", "mode", "sha256", "size"} …]}
    answer    {"need": [index …]}
    contents  of those, one after the other, as many bytes as was said
    answer    {"brought": […], "removed": […], "kept": [[path, why] …], "failed": [[path, why] …]}

Paths are relative to home. ``merge`` is own (Perry's own file: replaced), file (replaced where it is as it was
brought), json or toml (only what is not the user's). ``complete``: what was brought before and is no item now, nor
below a spared path, is taken away where it is as it was brought.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import stat
import sys
import time

# Each start of a workspace waits for this program, and half of its time would be what only types and TOML need.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

OWN_FOLDER = ".perry/credentials"
MANIFEST = "delivered.json"
LOCK_SECONDS = 30.0
READ_LIMIT = 64 << 20
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MISSING = object()


class Kept(Exception):
    """The user's own stands there, and stays. The message says what it is."""


class Failed(Exception):
    """It cannot be put there. The message says why."""


# --- merging: what was brought before (base), what is brought now (new), what stands there (theirs)


def merged(base: Any, new: Any, theirs: Any) -> Any:
    """Theirs with what is new; what they changed or added stays, what they deleted stays deleted."""
    if same(theirs, base):
        return new
    if isinstance(theirs, dict) and (isinstance(new, dict) or isinstance(base, dict)):
        result: dict[str, Any] = {}
        olds = base if isinstance(base, dict) else {}
        news = new if isinstance(new, dict) else {}
        for key in [*theirs, *(key for key in news if key not in theirs)]:
            value = merged(olds.get(key, MISSING), news.get(key, MISSING), theirs.get(key, MISSING))
            if value is not MISSING:
                result[key] = value
        if not result and new is MISSING and theirs:
            return MISSING
        return result
    if theirs is MISSING:
        return MISSING if new is not MISSING and same(base, new) else new
    return theirs


def same(one: Any, other: Any) -> bool:
    """Equal also in kind: 1 is not true."""
    if one is MISSING or other is MISSING:
        return one is other
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(other, sort_keys=True, default=str)


def merged_json(base: bytes | None, new: bytes | None, theirs: bytes) -> bytes | None:
    """The merged document; None where nothing is left. Kept where theirs is no JSON object."""
    try:
        document = json.loads(theirs)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Kept("is no JSON object that could be merged")
    old = json.loads(base) if base else MISSING
    fresh = json.loads(new) if new is not None else MISSING
    result = merged(old, fresh, document)
    if same(result, document):
        return theirs
    return None if result is MISSING else (json.dumps(result, indent=2, ensure_ascii=False) + "\n").encode()


def merged_toml(base: bytes | None, new: bytes | None, theirs: bytes) -> bytes | None:
    """Theirs with whole keys and tables of the top that it lacks. Kept where more than that would have to change."""
    import tomllib

    try:
        document = tomllib.loads(theirs.decode())
    except (ValueError, RecursionError):
        raise Kept("is no TOML that could be merged") from None
    old = tomllib.loads(base.decode()) if base else MISSING
    fresh = tomllib.loads(new.decode()) if new is not None else MISSING
    wanted = merged(old, fresh, document)
    if same(wanted, document):
        return theirs
    parts = pieces(new.decode()) if new is not None else []
    head = [text for key, text, table in parts if not table and key not in document]
    tail = [text for key, text, table in parts if table and key not in document]
    result = "".join(head) + theirs.decode().rstrip("\n") + "\n" + "".join("\n" + text for text in tail)
    try:
        fits = same(tomllib.loads(result), wanted)
    except ValueError:
        fits = False
    if not fits:
        raise Kept("has been changed there where it would have to be merged")
    return result.encode()


def pieces(text: str) -> list[tuple[str, str, bool]]:
    """(top-level key, its text, whether it is a table) of a TOML document, comments left out."""
    import tomllib

    found: list[tuple[str, str, bool]] = []
    lines: list[str] = []
    in_table = ""
    for line in [*text.splitlines(keepends=True), ""]:
        begins = line.startswith("[") and not in_value(lines)
        if in_table:
            if begins or not line:
                found.append((in_table, "".join(lines).strip("\n") + "\n", True))
                lines = []
            elif line:
                lines.append(line)
        if begins:
            in_table = str(next(iter(tomllib.loads(line))))
            lines = [line]
        elif not in_table and line:
            lines.append(line if line.endswith("\n") else line + "\n")
            if not in_value(lines):
                if document := tomllib.loads("".join(lines)):
                    found.append((str(next(iter(document))), "".join(lines), False))
                lines = []
    return found


def in_value(lines: list[str]) -> bool:
    """Whether a value that these lines begin goes on."""
    import tomllib

    try:
        tomllib.loads("".join(lines))
    except tomllib.TOMLDecodeError:
        return True
    return False


MERGES = {"json": merged_json, "toml": merged_toml}


# --- files below home, by handles of folders: no link is followed


class Home:
    """The home folder."""

    def __init__(self, path: str) -> None:
        self.handle = os.open(path, DIRECTORY)

    def folder(self, path: str, *, make: bool) -> int:
        """A handle of the folder that holds ``path``. Kept where a link or a file is in the way."""
        handle = os.dup(self.handle)
        walked = "~"
        try:
            for part in path.split("/")[:-1]:
                walked = f"{walked}/{part}"
                try:
                    following = os.open(part, DIRECTORY, dir_fd=handle)
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, 0o700, dir_fd=handle)
                    following = os.open(part, DIRECTORY, dir_fd=handle)
                except OSError as exc:
                    if exc.errno in (errno.ELOOP, errno.ENOTDIR):
                        link = stat.S_ISLNK(os.stat(part, dir_fd=handle, follow_symlinks=False).st_mode)
                        raise Kept(
                            f"cannot be put there, since {walked} is {'a link' if link else 'no folder'}"
                        ) from None
                    raise
                os.close(handle)
                handle = following
        except BaseException:
            os.close(handle)
            raise
        return handle

    def read(self, path: str) -> bytes | None:
        """What stands there; None for nothing. Kept where it is no plain file, or very large."""
        try:
            folder = self.folder(path, make=False)
        except FileNotFoundError:
            return None
        name = path.rpartition("/")[2]
        try:
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(about.st_mode):
                raise Kept("is a link of yours")
            if not stat.S_ISREG(about.st_mode):
                raise Kept("is no plain file")
            if about.st_size > READ_LIMIT:
                raise Kept("is very large, and yours")
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
            with os.fdopen(handle, "rb") as file:
                return file.read(READ_LIMIT + 1)
        except FileNotFoundError:
            return None
        finally:
            os.close(folder)

    def write(self, path: str, content: bytes, mode: int | None) -> None:
        """Whole or not at all. Without a ``mode`` what stands there keeps its own, else 0600."""
        name = path.rpartition("/")[2]
        temporary = f"incoming-{os.getpid()}"
        own = self.folder(f"{OWN_FOLDER}/x", make=False)
        folder = -1
        try:
            folder = self.folder(path, make=True)
            if mode is None:
                with contextlib.suppress(FileNotFoundError):
                    mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=own)
            with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=own), "wb") as file:
                file.write(content)
                os.fchmod(file.fileno(), 0o600 if mode is None else mode)
            try:
                os.rename(temporary, name, src_dir_fd=own, dst_dir_fd=folder)
            except IsADirectoryError:
                raise Kept("is a folder of yours") from None
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=own)
            os.close(own)
            if folder != -1:
                os.close(folder)

    def remove(self, path: str) -> None:
        """The file, and the folder that it was alone in."""
        folder = self.folder(path, make=False)
        try:
            os.unlink(path.rpartition("/")[2], dir_fd=folder)
        finally:
            os.close(folder)


# --- receiving


class Receiver:
    """One delivery."""

    def __init__(self, home: Home, request: dict[str, Any]) -> None:
        self.home = home
        self.request = request
        self.items: list[dict[str, Any]] = request["items"]
        self.delivered: dict[str, dict[str, Any]] = self._manifest()
        self.outcome: dict[str, list[Any]] = {"brought": [], "removed": [], "kept": [], "failed": []}

    def _manifest(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self.home.read(f"{OWN_FOLDER}/{MANIFEST}") or b"{}")
        except (ValueError, Kept):
            return {}
        return found if isinstance(found, dict) else {}

    def needed(self) -> list[int]:
        """The items whose content decides something."""
        found = []
        for index, item in enumerate(self.items):
            with self._noted(item["path"]):
                if self._needs(item):
                    found.append(index)
        return found

    def _needs(self, item: dict[str, Any]) -> bool:
        path, digest = item["path"], item["sha256"]
        present = self.home.read(path)
        before = self.delivered.get(path, {})
        if item["merge"] in MERGES:
            return present is None or before.get("sha256") != digest
        if present is None:
            return True
        now = hashlib.sha256(present).hexdigest()
        if now == digest:
            self.delivered[path] = {"sha256": digest, "merge": item["merge"]}
            return False
        if item["merge"] == "own" or now == before.get("sha256"):
            return True
        raise Kept("has been changed in the workspace")

    def take(self, item: dict[str, Any], content: bytes) -> None:
        """Put one item in its place."""
        path, merge = item["path"], item["merge"]
        with self._noted(path):
            present = self.home.read(path)
            note: dict[str, Any] = {"sha256": item["sha256"], "merge": merge}
            if merge in MERGES:
                base = self.delivered.get(path, {}).get("base")
                note["base"] = content.decode()
                if present is not None:
                    result = MERGES[merge](base.encode() if base else None, content, present)
                    if result is not None and result != present:
                        self.home.write(path, result, None)
                        self.outcome["brought"].append(path)
                    self.delivered[path] = note
                    return
            self.home.write(path, content, item["mode"])
            self.delivered[path] = note
            self.outcome["brought"].append(path)

    def sweep(self) -> None:
        """Take away what is not brought any more."""
        now = {item["path"] for item in self.items}
        spared = self.request["spared"]
        for path, note in list(self.delivered.items()):
            if path in now or any(path == each or path.startswith(f"{each}/") for each in spared):
                continue
            with self._noted(path):
                self._sweep_one(path, note)
            self.delivered.pop(path, None)

    def _sweep_one(self, path: str, note: dict[str, Any]) -> None:
        present = self.home.read(path)
        if present is None:
            return
        digest = hashlib.sha256(present).hexdigest()
        if digest == note.get("sha256") or note.get("merge") == "own":
            self.home.remove(path)
            self.outcome["removed"].append(path)
            return
        if note.get("merge") in MERGES and note.get("base"):
            result = MERGES[note["merge"]](note["base"].encode(), None, present)
            if result is None:
                self.home.remove(path)
            elif result != present:
                self.home.write(path, result, None)
            self.outcome["removed"].append(path)
            return
        raise Kept("is not brought any more, has been changed in the workspace, and is yours now")

    def finish(self) -> dict[str, list[Any]]:
        """Remember what was brought; what happened, for the control plane."""
        text = json.dumps(self.delivered).encode()
        if text != (self.home.read(f"{OWN_FOLDER}/{MANIFEST}") or b""):
            self.home.write(f"{OWN_FOLDER}/{MANIFEST}", text, 0o600)
        return self.outcome

    @contextlib.contextmanager
    def _noted(self, path: str) -> Any:
        try:
            yield
        except Kept as exc:
            self.outcome["kept"].append([path, str(exc)])
        except OSError as exc:
            self.outcome["failed"].append([path, exc.strerror or str(exc)])


@contextlib.contextmanager
def locked(home: Home) -> Any:
    """One delivery at a time. A folder that is not there is an OSError."""
    folder = home.folder(f"{OWN_FOLDER}/x", make=False)
    try:
        handle = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        yield
    finally:
        os.close(handle)


def say(stream: BinaryIO, answer: dict[str, Any]) -> None:
    stream.write(json.dumps(answer).encode() + b"\n")
    stream.flush()


def run(stdin: BinaryIO, stdout: BinaryIO, home: str) -> None:
    """Serve one delivery."""
    request = json.loads(stdin.readline())
    os.umask(0o077)
    place = Home(home)
    try:
        with locked(place):
            receiver = Receiver(place, request)
            need = receiver.needed()
            say(stdout, {"need": need})
            for index in need:
                item = receiver.items[index]
                content = stdin.read(item["size"])
                if len(content) != item["size"]:
                    return
                receiver.take(item, content)
            if request["complete"]:
                receiver.sweep()
            say(stdout, receiver.finish())
    except OSError as exc:
        say(stdout, {"error": exc.strerror or str(exc), "missing": isinstance(exc, FileNotFoundError)})
    except Kept as exc:
        say(stdout, {"error": f"~/{OWN_FOLDER} {exc}", "missing": False})


if __name__ == "__main__":
    run(sys.stdin.buffer, sys.stdout.buffer, os.environ["HOME"])
