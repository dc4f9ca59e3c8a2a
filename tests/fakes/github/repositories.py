"""Repositories with their issues and pull requests: bare ones of git on the disk, the rest in memory."""

import os
import subprocess
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

GIT_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "Ada" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "ada@example.com" for who in ("AUTHOR", "COMMITTER")},
}
"""git as on a server: with nothing of whoever runs the tests."""


@dataclass
class Comment:
    id: str
    author: str
    body: str
    url: str


@dataclass
class Review:
    """``state`` as the enumeration PullRequestReviewState has it."""

    id: str
    author: str
    body: str
    state: str


@dataclass
class Issue:
    number: int
    title: str
    body: str
    author: str
    created: datetime
    comments: list[Comment] = field(default_factory=list)


@dataclass
class PullRequest(Issue):
    """``head`` is a branch of ``source``, which is the repository itself or a fork."""

    source: "Repository" = field(kw_only=True)
    head: str = field(kw_only=True)
    base: str = field(kw_only=True)
    draft: bool = field(default=False, kw_only=True)
    reviews: list[Review] = field(default_factory=list, kw_only=True)


class Repository:
    """``owner/name``, and its folder below ``root``. Its default branch is ``main``."""

    def __init__(self, root: Path, owner: str, name: str, *, parent: "Repository | None" = None) -> None:
        self.owner = owner
        self.name = name
        self.parent = parent
        self.folder = root / owner / f"{name}.git"
        self.issues: dict[int, Issue] = {}
        self.pulls: dict[int, PullRequest] = {}
        source = ["clone", "-q", "--bare", str(parent.folder)] if parent else ["init", "-q", "--bare", "-b", "main"]
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        _git(*source, str(self.folder))
        self.git("config", "http.receivepack", "true")

    @property
    def full_name(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def url(self) -> str:
        return f"https://github.com/{self.full_name}"

    def git(self, *arguments: str, content: bytes = b"") -> str:
        """Output of git in it."""
        return _git(f"--git-dir={self.folder}", *arguments, content=content)

    def commit(self, branch: str, files: dict[str, str], message: str) -> str:
        """A commit on a branch, which is made from ``main`` where there is none of that name. Its id."""
        start = self.oid(branch) or self.oid("main")
        index = {"GIT_INDEX_FILE": str(self.folder / "index-for-tests")}
        at = f"--git-dir={self.folder}"
        if start:
            _git(at, "read-tree", start, env=index)
        for path, text in files.items():
            blob = self.git("hash-object", "-w", "--stdin", content=text.encode())
            _git(at, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=index)
        tree = _git(at, "write-tree", env=index)
        made = self.git("commit-tree", tree, "-m", message, *(["-p", start] if start else []))
        self.git("update-ref", f"refs/heads/{branch}", made)
        (self.folder / "index-for-tests").unlink()
        return made

    def oid(self, branch: str) -> str | None:
        """The commit at a branch's end."""
        try:
            return self.git("rev-parse", "-q", "--verify", f"refs/heads/{branch}^{{commit}}")
        except subprocess.CalledProcessError:
            return None

    def show(self, what: str) -> str:
        """``branch:path``, as ``git show`` takes it."""
        return self.git("show", what)

    def open_issue(self, number: int, title: str, body: str) -> Issue:
        made = Issue(number, title, body, self.owner, datetime.now(UTC))
        self.issues[number] = made
        return made

    def open_pull(self, number: int, title: str, body: str, *, source: "Repository", head: str, base: str = "main",
                  draft: bool = False) -> PullRequest:  # fmt: skip
        """A pull request, with the ref under which everybody may fetch it."""
        made = PullRequest(
            number, title, body, source.owner, datetime.now(UTC), source=source, head=head, base=base, draft=draft
        )
        self.git("fetch", "-q", str(source.folder), f"+refs/heads/{head}:refs/pull/{number}/head")
        self.pulls[number] = made
        return made

    def next_number(self) -> int:
        """Issues and pull requests are counted together."""
        return max((*self.issues, *self.pulls), default=0) + 1

    def diff(self, pull: PullRequest) -> str:
        """From where the two branches parted, as GitHub shows it."""
        return self.git("diff", _range(pull)) + "\n"

    def commits(self, pull: PullRequest) -> int:
        return int(self.git("rev-list", "--count", _range(pull).replace("...", "..")))

    def changed_lines(self, pull: PullRequest) -> list[tuple[int, int]]:
        """Of each file: how many were added, and deleted."""
        lines = (line.split("\t") for line in self.git("diff", "--numstat", _range(pull)).splitlines())
        return [(int(added), int(deleted)) for added, deleted, _ in lines]


def _range(pull: PullRequest) -> str:
    return f"refs/heads/{pull.base}...refs/pull/{pull.number}/head"


def _git(*arguments: str, content: bytes = b"", env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        ["git", *arguments], input=content, capture_output=True, check=True, env=GIT_ENVIRONMENT | (env or {})
    )
    return done.stdout.decode().strip()
