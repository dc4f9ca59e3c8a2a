"""A stand-in for GitHub: its API as far as work with issues and pull requests needs it, and its git server.

Nothing of it is made to fit our tests. It is held to what GitHub publishes:

* GraphQL (:mod:`graphql_api`): GitHub's own schema (https://docs.github.com/en/graphql/overview/public-schema), as the
  npm package ``@octokit/graphql-schema`` carries it, and what came since (``since.graphql``). Each query is validated
  against it and executed by it; what the stand-in has no answer for is an error, and never an empty answer. What a
  schema does not say, as when a pull request is refused, has its source beside it.
* REST (:mod:`rest_api`): the few calls that ``gh`` makes, each with the page of https://docs.github.com/en/rest that it
  follows.
* git (:mod:`git_server`): git's own ``http-backend`` on bare repositories, with ``refs/pull/<number>/head`` for each
  pull request, as https://docs.github.com/en/pull-requests/collaborating-with-pull-requests describes them.

It is met under GitHub's own names, by https: workspaces ask a proxy (:mod:`server`), which takes requests for
``github.com`` and ``api.github.com`` and answers them itself. So commands and addresses are those that people have.
"""

from .repositories import Issue, PullRequest, Repository
from .server import GitHub

__all__ = ["GitHub", "Issue", "PullRequest", "Repository"]
