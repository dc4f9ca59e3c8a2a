"""A local repository on its way into a workspace: its committed state, as a git bundle.

All local branches and tags go, and HEAD. What git does not have as a commit there stays behind, and is counted, so that
the person is told. git is never given a shell, and every operand of the user's comes after ``--`` or as a full path.
"""

import os
import re
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from cli.errors import CliError, Misused

SCP_LIKE: Final = re.compile(r"^(?:[A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!//)[^\s:]\S*$")
REMOTE_SCHEMES: Final = frozenset({"https", "http", "ssh", "git"})
BRANCH: Final = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._/+@#-]{0,250}$")
"""Branches that the control plane takes by name; with another one, git's own choice is HEAD."""


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A local repository that can travel. ``git_dir`` is what git is given; ``worktree`` is None for a bare one."""

    git_dir: Path
    worktree: Path | None
    branch: str | None
    origin: str | None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """What does not travel: counts of paths, stashes; whether submodules and LFS files are only referred to."""

    changed: int = 0
    untracked: int = 0
    ignored: int = 0
    stashes: int = 0
    submodules: bool = False
    lfs: bool = False

    def sentence(self) -> str | None:
        """For the person; None where all of it travels."""
        counts = [
            (self.changed, "changed file", "changed files"),
            (self.untracked, "untracked", "untracked"),
            (self.ignored, "ignored", "ignored"),
            (self.stashes, "stash", "stashes"),
        ]
        parts = [f"{count} {one if count == 1 else many}" for count, one, many in counts if count]
        said = [f"Not committed, so left out: {', '.join(parts)}."] if parts else []
        if self.submodules:
            said.append("Submodules travel as references: run `git submodule update --init` in the workspace.")
        if self.lfs:
            said.append("LFS files travel as pointers: run `git lfs pull` in the workspace.")
        return " ".join(said) or None


def local_path(clone: str) -> Path | None:
    """The folder that ``--clone`` names; None for a URL. Misused where it is neither."""
    if clone.startswith("file://"):
        parts = urlsplit(clone)
        if parts.netloc not in ("", "localhost"):
            raise Misused(f"{clone!r} names a file on another machine; give its https or ssh URL.")
        from urllib.parse import unquote

        path = Path(unquote(parts.path))
    else:
        path = Path(clone).expanduser() if clone.startswith("~") else Path(clone)
        if not clone or not path.is_dir():
            if "://" in clone or ":" in clone.split("/", 1)[0]:
                return None
            raise Misused(
                f"--clone {clone!r} is neither a folder here nor a URL; give a path, an https:// or ssh:// URL, "
                "or git@host:owner/repository."
            )
    if not path.is_dir():
        raise Misused(f"There is no folder {path}; give the path of a git repository.")
    return Path(os.path.abspath(path))


def inspect(path: Path) -> Repository:
    """Look at a repository. Misused, in a sentence, where it cannot travel as it stands."""
    asked = _git(
        path, "rev-parse", "--is-bare-repository", "--absolute-git-dir", "--is-shallow-repository", check=False
    )
    if asked.returncode != 0:
        raise Misused(f"{path} is no git repository ({_words(asked)}); `git init` and commit there, or give another.")
    bare, git_dir, shallow = asked.stdout.splitlines()[:3]
    worktree = None
    if bare != "true":
        top = Path(_git(path, "rev-parse", "--show-toplevel").stdout.rstrip("\n"))
        if not os.path.samefile(top, path):
            raise Misused(f"{path} is a folder inside the repository {top}; give that one to --clone.")
        worktree = top
    origin = _origin(path)
    if shallow == "true":
        instead = f", or give its URL: --clone {origin}" if origin else ""
        raise Misused(f"{path} is a shallow clone, whose history would break; `git fetch --unshallow` there{instead}.")
    if _git(path, "rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False).returncode != 0:
        raise Misused(f"{path} has no commit yet, and only commits travel; commit there first.")
    head = _git(path, "symbolic-ref", "--quiet", "--short", "HEAD", check=False).stdout.strip()
    return Repository(git_dir=Path(git_dir), worktree=worktree, branch=head or None, origin=origin)


def branch_to_take(repository: Repository, wanted: str | None) -> str | None:
    """The branch that the clone checks out: the one asked for, else the one that is checked out here."""
    if wanted is None:
        return repository.branch if repository.branch and BRANCH.fullmatch(repository.branch) else None
    for kind in ("heads", "tags"):
        ref = f"refs/{kind}/{wanted}"
        if _git(repository.git_dir, "rev-parse", "--verify", "--quiet", ref, check=False).returncode == 0:
            return wanted
    raise Misused(f"--branch {wanted!r} is no branch or tag in the local repository; create it there first.")


def left_out(repository: Repository) -> LeftOut:
    """What will not be in the clone."""
    if repository.worktree is None:
        return LeftOut()
    status = _git(repository.worktree, "status", "--porcelain=v1", "-z", "--ignored=traditional", "--no-renames")
    kinds = [entry[:2] for entry in status.stdout.split("\0") if len(entry) > 3]
    stashes = _git(repository.worktree, "stash", "list", "--format=%H").stdout.split()
    tracked = _git(repository.worktree, "ls-tree", "--name-only", "HEAD", "--", ".gitmodules").stdout.strip()
    attributes = _git(repository.worktree, "show", "HEAD:.gitattributes", check=False).stdout
    return LeftOut(
        changed=sum(kind not in ("??", "!!") for kind in kinds),
        untracked=kinds.count("??"),
        ignored=kinds.count("!!"),
        stashes=len(stashes),
        submodules=bool(tracked),
        lfs="filter=lfs" in attributes,
    )


def write(repository: Repository, file: Path) -> None:
    """Write the bundle."""
    made = _git(
        repository.git_dir, "bundle", "create", "--quiet", str(file), "HEAD", "--branches", "--tags", check=False
    )
    if made.returncode != 0:
        raise CliError(f"git could not bundle {repository.worktree or repository.git_dir}: {_words(made)}.")


def without_credentials(url: str) -> str | None:
    """A remote's URL as the workspace gets it; None where it means nothing in there."""
    if "://" not in url:
        return url if SCP_LIKE.fullmatch(url) and "::" not in url else None
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return None
    if parts.scheme not in REMOTE_SCHEMES or not host or any(c.isspace() for c in url):
        return None
    place = parts.netloc.rpartition("@")[2]
    if parts.scheme == "ssh" and parts.username:
        place = f"{parts.username}@{place}"
    return urlunsplit((parts.scheme, place, parts.path, "", ""))


def _origin(path: Path) -> str | None:
    url = _git(path, "config", "--get", "remote.origin.url", check=False).stdout.strip()
    return without_credentials(url) if url else None


def _git(folder: Path, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}
    # Set inside git's hooks; they would point git at another repository than the one that was named.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        environment.pop(name, None)
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            check=False,
        )
    except FileNotFoundError as exc:
        raise CliError("git is not installed here; install it, or give --clone a URL.") from exc
    if check and done.returncode != 0:
        raise CliError(f"git could not look at {folder}: {_words(done)}.")
    return done


def _words(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].strip().rstrip(".") if lines else f"exit code {done.returncode}"
