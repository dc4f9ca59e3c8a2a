"""Which commits of a repository somebody else made, as the log of its branches tells. Pure, and one rule for both: the
worker says by it what a task has left, the control plane what would be lost with a workspace.

A branch's log has a line for each of its changes, in git's words (https://git-scm.com/docs/git-reflog). ``gh pr
checkout`` makes a branch of a remote's, or fetches what a fork has, without a remote for it.
"""

import re
from collections.abc import Iterable
from typing import Final

CHANGES: Final = ("log", "-g", "--max-count=500", "--format=%H %gs", "--branches")
"""What git is asked: the newest changes of all branches, ``<commit> <words>`` each."""

REMOTES: Final = ("remote",)
"""What git is asked as well: the names of its remotes, a line each."""

_ID: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CREATED: Final = "branch: Created from "
_NEARBY: Final = ("/", ".", "~", "file:")
_TAKES_A_WORD: Final = frozenset({"--upload-pack", "-o", "--server-option", "--refmap"})
"""Options whose next word might be taken for the source."""

_SCP_LIKE: Final = re.compile(r"(?:[\w.-]+@)?[A-Za-z0-9][\w.-]*:.+")


def elsewhere(changes: str, remotes: str, *, pulled: bool = False) -> list[str]:
    """The commits that a branch was put on and that came from a remote or an address: they are there as well. What came
    from a folder may be nowhere else, and is not among them. Both are git's answers; nothing in them is trusted.

    ``pulled``: also what a pull brought that names no source. It may have been a branch of the same repository, so
    that this is others' work, but not sure to be anywhere else.
    """
    names = frozenset(remotes.split())
    found: dict[str, None] = {}
    for line in changes.splitlines():
        id_, _, words = line.partition(" ")
        if _ID.fullmatch(id_) and _came(words, names, pulled):
            found[id_] = None
    return list(found)


def _came(words: str, remotes: frozenset[str], pulled: bool) -> bool:
    if words.startswith(_CREATED):
        made_of = words.removeprefix(_CREATED)
        return made_of.startswith(("refs/remotes/", *(f"{name}/" for name in remotes)))
    command, _, how = words.rpartition(": ")
    verb, *arguments = command.split() or [""]
    if any(each in _TAKES_A_WORD or each.startswith(_NEARBY) for each in arguments):
        return False
    source = next((each for each in arguments if not each.startswith("-") and not each.isdecimal()), None)
    if verb == "pull" and how == "Fast-forward":
        return pulled if source is None else _is_elsewhere(source, remotes)
    return verb == "fetch" and source is not None and _is_elsewhere(source, remotes)


def _is_elsewhere(source: str, remotes: Iterable[str]) -> bool:
    """Whether git was told a remote's name or another machine's address; any other word is a folder."""
    return source in remotes or "://" in source or _SCP_LIKE.fullmatch(source) is not None
