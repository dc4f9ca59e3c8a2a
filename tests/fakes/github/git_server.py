"""git over https: git's own ``http-backend`` (https://git-scm.com/docs/git-http-backend), a CGI program."""

import base64
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .repositories import GIT_ENVIRONMENT

SECONDS = 60


class GitReply(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def password(headers: Mapping[str, str]) -> str | None:
    """That of HTTP's basic authentication: for GitHub a token, with any name."""
    kind, _, given = headers.get("Authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    return base64.b64decode(given).decode().partition(":")[2]


def serve(
    root: Path, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes, user: str
) -> GitReply:
    """Answer a request of git's. As at GitHub ``.git`` may be left out of a repository's address."""
    owner, name, *rest = path.strip("/").split("/")
    environment = GIT_ENVIRONMENT | {
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "PATH_INFO": "/" + "/".join([owner, f"{name.removesuffix('.git')}.git", *rest]),
        "REQUEST_METHOD": method,
        "QUERY_STRING": query,
        "CONTENT_TYPE": headers.get("Content-Type", ""),
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
        "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
        "REMOTE_USER": user,
        "REMOTE_ADDR": "127.0.0.1",
    }
    done = subprocess.run(
        ["git", "http-backend"], input=body, capture_output=True, env=environment, timeout=SECONDS, check=True
    )
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    status, found = 200, list[tuple[str, str]]()
    for line in head.decode().split("\r\n"):
        key, _, value = line.partition(": ")
        if key == "Status":
            status = int(value.split()[0])
        else:
            found.append((key, value))
    return GitReply(status, found, content)
