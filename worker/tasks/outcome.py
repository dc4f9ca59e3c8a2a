"""What a task has left in its project: commits, the size of the diff, what is not committed or not pushed."""

import subprocess
from pathlib import Path
from typing import Final

from protocol import reflog
from protocol.tasks import Commit
from protocol.worker import TaskOutcome

GIT: Final = ("git", "-c", "core.fsmonitor=false", "-c", "core.pager=cat")
SECONDS: Final = 15
COMMITS: Final = 200
STAT_LIMIT: Final = 20_000
CHANGES: Final = 500


class _Failed(Exception):
    """git said no."""


def head(folder: str) -> str | None:
    """The commit that the project is on; None where it is no repository, or has none yet."""
    try:
        return _git(folder, "rev-parse", "--verify", "-q", "HEAD").strip() or None
    except _Failed:
        return None


def outcome(folder: str, base: str | None, last_message: str | None) -> TaskOutcome:
    """What there is since ``base``. Where git cannot say, ``unknown`` has its reason."""
    if not Path(folder, ".git").exists():
        return TaskOutcome(last_message=last_message)
    try:
        now = head(folder)
        others, sure = _others(folder) if now else ([], [])
        start = _start(folder, base, others)
        commits: tuple[Commit, ...] = ()
        if now is not None and now != start:
            span = f"{start}..HEAD" if start is not None else "HEAD"
            log = _git(folder, "log", f"--max-count={COMMITS}", "--format=%H %s", span, "--not", *others)
            commits = tuple(
                Commit(id=id_, subject=subject[:500])
                for id_, _, subject in (line.partition(" ") for line in log.splitlines())
            )
        stat = _git(folder, "diff", "--stat=100", start) if start is not None else ""
        status = _git(folder, "status", "--porcelain")
        elsewhere = ("--not", "--remotes", *sure)
        unpushed = _git(folder, "rev-list", "--count", "--branches", "HEAD", *elsewhere) if now else "0"
        return TaskOutcome(
            last_message=last_message,
            commits=commits,
            diff_stat=stat.strip("\n")[:STAT_LIMIT] or None,
            uncommitted=len(status.splitlines()),
            unpushed=int(unpushed),
        )
    except (_Failed, ValueError) as exc:
        return TaskOutcome(last_message=last_message, unknown=f"git could not say what was left: {exc}")


def _others(folder: str) -> tuple[list[str], list[str]]:
    """Commits of others that a branch was put on since the clone: work that no task did; and those of them that are
    sure to be elsewhere too."""
    said = _git(folder, *reflog.CHANGES), _git(folder, *reflog.REMOTES)
    return reflog.elsewhere(*said, pulled=True), reflog.elsewhere(*said)


def _start(folder: str, base: str | None, others: list[str]) -> str | None:
    """From where the task went on: ``base``, or what it has fetched since and checked out."""
    known = {base, *others}
    if not others:
        return base
    log = _git(folder, "rev-list", f"--max-count={CHANGES}", "HEAD")
    return next((id_ for id_ in log.split() if id_ in known), base)


def standing(folder: str, base: str | None) -> tuple[Commit | None, int | None, int | None]:
    """The last commit, how many there are since ``base``, and how many files are in none; None where git cannot say."""
    if not Path(folder, ".git").exists():
        return None, None, None
    try:
        changed = len(_git(folder, "status", "--porcelain").splitlines())
        if (now := head(folder)) is None:
            return None, 0, changed
        id_, _, subject = _git(folder, "log", "-1", "--format=%H %s").strip().partition(" ")
        commits = int(_git(folder, "rev-list", "--count", f"{base}..HEAD")) if base not in (None, now) else 0
        return Commit(id=id_, subject=subject[:500]), commits, changed
    except (_Failed, ValueError):
        return None, None, None


def _git(folder: str, *arguments: str) -> str:
    try:
        ran = subprocess.run([*GIT, "-C", folder, *arguments], capture_output=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise _Failed(str(exc)) from exc
    if ran.returncode != 0:
        raise _Failed(ran.stderr.decode(errors="replace").strip()[-300:] or f"exit code {ran.returncode}")
    return ran.stdout.decode(errors="replace")
