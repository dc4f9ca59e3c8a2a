"""Which repositories may be cloned, and what to say when one cannot be. Pure."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit, urlunsplit

from controlplane.errors import InvalidInput
from protocol.workspaces import UPLOADED

UPLOAD = re.compile(rf"^{UPLOADED}([a-z0-9]{{16,64}})$")
SCP_LIKE = re.compile(r"^(?:[A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?!/{2})[^\s:][^\s]*$")
BRANCH = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9._/+@#-]{0,250}$")
SCHEMES = frozenset({"https", "http", "ssh", "git"})

ADVICE = "use an https:// or ssh:// URL, git@host:owner/repository, or a path on your machine"


def upload_id(clone: str) -> str | None:
    """The id in ``upload:<id>``; None for a URL."""
    match = UPLOAD.fullmatch(clone)
    return match.group(1) if match else None


def upload_ids(clones: Iterable[str | None]) -> set[str]:
    """The ids of those that are uploads."""
    return {id_ for each in clones if each is not None and (id_ := upload_id(each)) is not None}


def valid_clone(clone: str) -> str:
    """A repository that git may be handed, or InvalidInput. Never a transport that runs commands or reads files."""
    if any(ord(character) < 32 or ord(character) == 127 for character in clone) or len(clone) > 2000:
        raise InvalidInput(f"The repository has control characters in it or is too long; {ADVICE}.")
    if clone.startswith(UPLOADED):
        if upload_id(clone) is None:
            raise InvalidInput("That is no upload's id; send the bundle to PUT /uploads/<id> first.")
        return clone
    if clone.startswith("-") or "::" in clone or " " in clone:
        raise InvalidInput(f"{clone[:80]!r} is no repository that git may be handed; {ADVICE}.")
    if "://" in clone:
        try:
            parts = urlsplit(clone)
            host = parts.hostname or ""
            _ = parts.port
        except ValueError as exc:
            raise InvalidInput(f"{clone[:80]!r} is no URL ({exc}); {ADVICE}.") from exc
        if parts.scheme not in SCHEMES or not host or host.startswith("-") or (parts.username or "").startswith("-"):
            raise InvalidInput(f"{clone[:80]!r} is no repository that git may be handed; {ADVICE}.")
        if parts.password or (parts.username and parts.scheme in ("http", "https")):
            # It would stand in labels, in the clone's configuration and in what is shown.
            raise InvalidInput("The URL has a credential in it, which would stay in the clone; use one without.")
        return clone
    if SCP_LIKE.fullmatch(clone):
        return clone
    raise InvalidInput(f"{clone[:80]!r} is no repository that git may be handed; {ADVICE}.")


def valid_branch(branch: str) -> str:
    """A branch or tag that git may be handed, or InvalidInput."""
    if not BRANCH.fullmatch(branch) or ".." in branch or branch.endswith((".lock", "/", ".")):
        raise InvalidInput(f"{branch[:80]!r} is no name of a branch or tag.")
    return branch


def shown(clone: str) -> str:
    """A URL without what might be a secret in it, for people and logs."""
    if "://" not in clone:
        return clone
    parts = urlsplit(clone)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def same(one: str, other: str) -> bool:
    """Whether two URLs mean the same repository, as far as their text tells."""

    def plain(url: str) -> str:
        url = url.strip().rstrip("/").removesuffix(".git")
        if match := re.fullmatch(r"(?:[^@/]+@)?([^:/]+):(?!//)(.+)", url):
            return f"{match.group(1)}/{match.group(2)}".lower()
        if "://" in url:
            parts = urlsplit(url)
            return f"{parts.hostname or ''}{parts.path}".lower()
        return url

    return plain(one) == plain(other)


def advice(git_said: str) -> str:
    """What to do about the reason that git gives, as a clause to follow its words; empty where we know no better."""
    said = git_said.lower()
    if "host key verification failed" in said:
        return "add the server's key to ssh.knownHosts in config.json"
    if "permission denied (publickey" in said:
        return "the workspace has no ssh key that this server knows; add one, or use the https:// URL"
    if "could not read username" in said or "authentication failed" in said or "terminal prompts disabled" in said:
        return "it is private or does not exist; give the workspace a credential for it, or check the URL"
    if "remote branch" in said and "not found" in said:
        return "give a --branch that is there"
    if "repository not found" in said or "does not exist" in said or "not found" in said:
        return "check the URL and that you may read it"
    if "could not resolve host" in said:
        return "check the server's name and the workspace's DNS"
    if "server verification failed" in said or "ssl certificate problem" in said:
        return (
            "put the certificate of its authority into /usr/local/share/ca-certificates (a name.crt) of the agent's "
            "machine, then `perry restart` the workspace"
        )
    if "connection refused" in said or "timed out" in said or "failed to connect" in said:
        return "see that the server runs, and that a container of the agent's machine reaches it"
    return ""
