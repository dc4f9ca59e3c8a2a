"""GitHub's REST API, as far as ``gh`` asks it. Pure."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .repositories import Repository

_PULL = re.compile(r"/repos/([^/]+/[^/]+)/pulls/([0-9]+)")
DIFF = "application/vnd.github.v3.diff"


class Reply(NamedTuple):
    """JSON, or text where it is one."""

    status: int
    body: Mapping[str, Any] | str
    headers: Mapping[str, str] = {}


NOT_FOUND = Reply(404, {"message": "Not Found", "documentation_url": "https://docs.github.com/rest", "status": "404"})
BAD_CREDENTIALS = Reply(401, {"message": "Bad credentials", "documentation_url": "https://docs.github.com/rest"})
"""https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api#failed-login-limit"""


def answer(path: str, accept: str, repositories: Mapping[str, Repository]) -> Reply:
    """What a GET is answered with, by somebody with a right token."""
    if path == "/":
        # https://docs.github.com/en/rest/meta/meta#github-api-root, and for the header
        # https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps
        return Reply(
            200, {"current_user_url": "https://api.github.com/user"}, {"X-OAuth-Scopes": "repo, read:org, gist"}
        )
    if match := _PULL.fullmatch(path):
        repository = repositories.get(match[1].lower())
        pull = repository.pulls.get(int(match[2])) if repository else None
        if repository is not None and pull is not None and accept == DIFF:
            # https://docs.github.com/en/rest/pulls/pulls#get-a-pull-request: "Diff format"
            return Reply(200, repository.diff(pull), {"Content-Type": f"{DIFF}; charset=utf-8"})
    return NOT_FOUND
