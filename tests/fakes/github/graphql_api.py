"""GitHub's GraphQL API: queries are executed by the schema that GitHub publishes, over the repositories in memory.

https://docs.github.com/en/graphql. Answers are mappings from a type's fields to values, or to functions of the field's
arguments. A field that such a mapping does not have is an error: the schema would take an empty answer for many.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from graphql import (
    ExecutionResult,
    GraphQLError,
    GraphQLResolveInfo,
    GraphQLSchema,
    OverlappingFieldsCanBeMergedRule,
    build_ast_schema,
    execute_sync,
    extend_schema,
    parse,
    specified_rules,
    validate,
)

from tests import npm_packages

from .repositories import Comment, Issue, PullRequest, Repository, Review

PUBLISHED = Path(__file__).parent / "published"
SINCE = Path(__file__).parent / "since.graphql"

Answer = Mapping[str, Any]

RULES = [rule for rule in specified_rules if rule is not OverlappingFieldsCanBeMergedRule]
"""GitHub's server lets the state of an issue and that of a pull request have one name: gh asks so for an issue."""


@functools.cache
def schema() -> GraphQLSchema:
    """GitHub's. It takes half a second of the processor's time."""
    package = npm_packages.installed(PUBLISHED, "github-schema") / "@octokit" / "graphql-schema"
    document = parse((package / "schema.graphql").read_text(), no_location=True)
    since = parse(SINCE.read_text(), no_location=True)
    return extend_schema(build_ast_schema(document, assume_valid=True), since, assume_valid=True)


class Api:
    """What one person sees of these repositories."""

    def __init__(self, viewer: str, repositories: Mapping[str, Repository]) -> None:
        self.viewer = viewer
        self.repositories = repositories
        self._counted = itertools.count(1)

    def answer(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The body of the answer; its status is 200 also where there are errors."""
        try:
            document = parse(query)
        except GraphQLError as exc:
            return {"errors": [exc.formatted]}
        if problems := validate(schema(), document, RULES):
            return {"errors": [each.formatted for each in problems]}
        result = execute_sync(
            schema(), document, _Root(self), variable_values=dict(variables), field_resolver=_field, type_resolver=_type
        )
        assert isinstance(result, ExecutionResult)
        return _as_github(result)

    # --- what there is

    def repository(self, owner: str, name: str) -> Repository:
        found = self.repositories.get(f"{owner}/{name}".lower())
        if found is None:
            # The words and the type are those that gh looks for: api/queries_repo.go in github.com/cli/cli.
            raise _not_found(f"Could not resolve to a Repository with the name '{owner}/{name}'.")
        return found

    def numbered(self, repository: Repository, number: int) -> Answer:
        if number in repository.pulls:
            return self.pull(repository, repository.pulls[number])
        if number in repository.issues:
            return self.issue(repository, repository.issues[number])
        raise _not_found(f"Could not resolve to an issue or pull request with the number of {number}.")

    def subject(self, node: str) -> tuple[Repository, Issue]:
        """The issue or pull request of a node's id."""
        for repository in self.repositories.values():
            for found in (*repository.issues.values(), *repository.pulls.values()):
                if _id(repository, found) == node:
                    return repository, found
        raise _not_found(f"Could not resolve to a node with the global id of '{node}'")

    # --- as types of the schema

    def repository_answer(self, repository: Repository) -> Answer:
        def pulls(headRefName: str | None = None, states: list[str] | None = None, **_: Any) -> Answer:
            found = [
                self.pull(repository, each)
                for each in repository.pulls.values()
                if headRefName in (None, each.head) and (not states or "OPEN" in states)
            ]
            return _connection(reversed(found))

        return {
            "__typename": "Repository",
            "id": f"R_{repository.full_name}",
            "name": repository.name,
            "databaseId": 1,
            "nameWithOwner": repository.full_name,
            "sshUrl": f"git@github.com:{repository.full_name}.git",
            "owner": _user(repository.owner),
            "url": repository.url,
            "description": "",
            "hasIssuesEnabled": True,
            "hasWikiEnabled": False,
            "isPrivate": True,
            "viewerPermission": "WRITE" if repository.owner == self.viewer else "READ",
            "defaultBranchRef": {"__typename": "Ref", "name": "main"},
            "parent": repository.parent and self.repository_answer(repository.parent),
            "mergeCommitAllowed": True,
            "rebaseMergeAllowed": True,
            "squashMergeAllowed": True,
            "pullRequest": lambda number: self.numbered(repository, number),
            "issue": lambda number: self.numbered(repository, number),
            "issueOrPullRequest": lambda number: self.numbered(repository, number),
            "pullRequests": pulls,
            "issues": lambda **_: _connection(self.issue(repository, each) for each in repository.issues.values()),
        }

    def issue(self, repository: Repository, issue: Issue) -> Answer:
        return {
            "__typename": "Issue",
            "id": _id(repository, issue),
            "number": issue.number,
            "title": issue.title,
            "body": issue.body,
            "state": "OPEN",
            "stateReason": None,
            "closed": False,
            "closedAt": None,
            "url": f"{repository.url}/issues/{issue.number}",
            "author": _user(issue.author),
            "createdAt": _at(issue),
            "updatedAt": _at(issue),
            "assignees": _nothing,
            "labels": _nothing,
            "milestone": None,
            "reactionGroups": [],
            "comments": lambda **_: _connection(map(_comment, issue.comments)),
            # Since 2025 it answers with this alone: the deprecation in the schema, and github.com/cli/cli/issues/12640.
            "projectCards": _sunset,
            "projectItems": _nothing,
            "issueType": None,
            "parent": None,
            "subIssues": _nothing,
            "subIssuesSummary": {"total": 0, "completed": 0, "percentCompleted": 0},
            "blockedBy": _nothing,
            "blocking": _nothing,
        }

    def pull(self, repository: Repository, pull: PullRequest) -> Answer:
        return {
            **self.issue(repository, pull),
            "__typename": "PullRequest",
            "url": f"{repository.url}/pull/{pull.number}",
            "isDraft": pull.draft,
            "baseRefName": pull.base,
            "headRefName": pull.head,
            "headRefOid": repository.git("rev-parse", f"refs/pull/{pull.number}/head"),
            "headRepository": self.repository_answer(pull.source),
            "headRepositoryOwner": _user(pull.source.owner),
            "isCrossRepository": pull.source is not repository,
            "maintainerCanModify": pull.source is repository,
            "mergeable": "MERGEABLE",
            "mergeStateStatus": "CLEAN",
            "mergedAt": None,
            "reviewDecision": None,
            "reviewRequests": _nothing,
            "autoMergeRequest": None,
            # Nothing checks these commits.
            "commits": lambda **_: {
                "totalCount": repository.commits(pull),
                "nodes": [{"commit": {"statusCheckRollup": None}}],
            },
            "latestReviews": lambda **_: _connection(map(_review, pull.reviews)),
            "reviews": lambda **_: _connection(map(_review, pull.reviews)),
            "additions": lambda: sum(added for added, _ in repository.changed_lines(pull)),
            "deletions": lambda: sum(deleted for _, deleted in repository.changed_lines(pull)),
        }

    # --- what changes something

    def comment(self, subject: str, body: str) -> Answer:
        repository, issue = self.subject(subject)
        number = next(self._counted)
        kind = "pull" if isinstance(issue, PullRequest) else "issues"
        url = f"{repository.url}/{kind}/{issue.number}#issuecomment-{number}"
        issue.comments.append(Comment(f"IC_{number}", self.viewer, body, url))
        return {"commentEdge": {"node": _comment(issue.comments[-1])}, "clientMutationId": None}

    def review(self, subject: str, body: str, event: str | None) -> Answer:
        _, pull = self.subject(subject)
        assert isinstance(pull, PullRequest)
        state = {"APPROVE": "APPROVED", "REQUEST_CHANGES": "CHANGES_REQUESTED", "COMMENT": "COMMENTED"}.get(event or "")
        if state in ("APPROVED", "CHANGES_REQUESTED") and pull.author == self.viewer:
            # https://docs.github.com/en/pull-requests: nobody approves what is their own.
            raise _unprocessable("Can not approve your own pull request")
        pull.reviews.append(Review(f"PRR_{next(self._counted)}", self.viewer, body, state or "PENDING"))
        return {"pullRequestReview": _review(pull.reviews[-1]), "clientMutationId": None}

    def create_pull(self, wanted: Mapping[str, Any]) -> Answer:
        repository = next(
            each for each in self.repositories.values() if f"R_{each.full_name}" == wanted["repositoryId"]
        )
        head, base = wanted["headRefName"], wanted["baseRefName"]
        # The refusals are those of the REST API as well: "Validation failed" of
        # https://docs.github.com/en/rest/pulls/pulls#create-a-pull-request
        if repository.oid(head) is None:
            raise _unprocessable(
                f"Head sha can't be blank, Base sha can't be blank, No commits between {base} and {head}, "
                "Head ref must be a branch"
            )
        if any(each.head == head and each.base == base for each in repository.pulls.values()):
            raise _unprocessable(f"A pull request already exists for {repository.owner}:{head}.")
        if repository.git("rev-list", "--count", f"refs/heads/{base}..refs/heads/{head}") == "0":
            raise _unprocessable(f"No commits between {base} and {head}")
        body = wanted.get("body") or ""
        number, draft = repository.next_number(), bool(wanted.get("draft"))
        made = repository.open_pull(number, wanted["title"], body, source=repository, head=head, base=base, draft=draft)
        made.author = self.viewer
        return {"pullRequest": self.pull(repository, made), "clientMutationId": None}


class _Root(dict[str, Any]):
    """What queries and mutations begin with."""

    def __init__(self, api: Api) -> None:
        super().__init__(
            viewer=_user(api.viewer),
            repository=lambda owner, name, **_: api.repository_answer(api.repository(owner, name)),
            addComment=lambda input: api.comment(input["subjectId"], input["body"]),
            addPullRequestReview=lambda input: api.review(
                input["pullRequestId"], input.get("body") or "", input.get("event")
            ),
            createPullRequest=lambda input: api.create_pull(input),
        )


def _field(source: Any, info: GraphQLResolveInfo[Any], **arguments: Any) -> Any:
    try:
        found = source[info.field_name]
    except KeyError:
        raise GraphQLError(f"The stand-in has no {info.parent_type.name}.{info.field_name}.") from None
    return found(**arguments) if callable(found) else found


def _type(value: Any, *_: Any) -> str:
    kind: str = value["__typename"]
    return kind


def _as_github(result: ExecutionResult) -> dict[str, Any]:
    """With ``type`` beside each message, where GitHub has it, and not below ``extensions``."""
    answer: dict[str, Any] = {"data": result.data}
    if result.errors:
        answer["errors"] = [
            {**each.formatted, **({"type": each.extensions["type"]} if each.extensions else {})}
            for each in result.errors
        ]
    return answer


def _not_found(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"type": "NOT_FOUND"})


def _unprocessable(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"type": "UNPROCESSABLE"})


def _sunset(**_: Any) -> Answer:
    raise GraphQLError(
        "Projects (classic) is being deprecated in favor of the new Projects experience, see: "
        "https://github.blog/changelog/2024-05-23-sunset-notice-projects-classic/."
    )


def _id(repository: Repository, issue: Issue) -> str:
    kind = "PR" if isinstance(issue, PullRequest) else "I"
    return f"{kind}_{repository.full_name}_{issue.number}"


def _at(issue: Issue) -> str:
    return issue.created.strftime("%Y-%m-%dT%H:%M:%SZ")


def _user(login: str) -> Answer:
    return {"__typename": "User", "id": f"U_{login}", "login": login, "name": login.title()}


def _connection(nodes: Iterable[Answer]) -> Answer:
    found = list(nodes)
    page = {"__typename": "PageInfo", "hasNextPage": False, "endCursor": None}
    return {"nodes": found, "totalCount": len(found), "pageInfo": page}


_nothing: Callable[..., Answer] = lambda **_: _connection(())  # noqa: E731


def _comment(comment: Comment) -> Answer:
    return {
        "__typename": "IssueComment",
        "id": comment.id,
        "author": _user(comment.author),
        "authorAssociation": "OWNER",
        "body": comment.body,
        "url": comment.url,
        "createdAt": "2026-01-01T00:00:00Z",
        "includesCreatedEdit": False,
        "isMinimized": False,
        "minimizedReason": None,
        "reactionGroups": [],
        "viewerDidAuthor": True,
    }


def _review(review: Review) -> Answer:
    return {
        "__typename": "PullRequestReview",
        "id": review.id,
        "author": _user(review.author),
        "authorAssociation": "OWNER",
        "body": review.body,
        "state": review.state,
        "submittedAt": "2026-01-01T00:00:00Z",
        "commit": None,
        "reactionGroups": [],
    }
