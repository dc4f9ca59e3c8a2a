"""What may be cloned."""

import pytest

from controlplane.errors import InvalidInput
from controlplane.workspaces import repository


@pytest.mark.parametrize(
    "clone",
    [
        "https://example.org/owner/project.git",
        "ssh://git@example.org:2222/owner/project",
        "git@example.org:owner/project.git",
        "example.org:project",
        "upload:0123456789abcdef",
    ],
)
def test_repositories_that_may_be_cloned(clone: str) -> None:
    assert repository.valid_clone(clone) == clone


@pytest.mark.parametrize(
    "clone",
    [
        "--upload-pack=touch /tmp/x",
        "-oProxyCommand=touch /tmp/x",
        "ext::sh -c touch% /tmp/x",
        "ssh://-oProxyCommand=x/y",
        "ssh://-oProxyCommand=x@example.org/y",
        "-oProxyCommand=x:y",
        "https://example.org/a\nb",
        "https://example.org/a b",
        "file:///etc",
        "/etc",
        "../secrets",
        "https://user:secret@example.org/a",
        "https://token@example.org/a",
        "http://[::1/a",
        "upload:../../etc/passwd",
        "",
        "a" * 3000,
    ],
)
def test_what_git_must_never_be_handed(clone: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        repository.valid_clone(clone)
    assert "secret" not in caught.value.message or "secrets" in clone


@pytest.mark.parametrize("branch", ["-b", "a..b", "a b", "a\n", "x.lock", ""])
def test_branches_that_are_none(branch: str) -> None:
    with pytest.raises(InvalidInput):
        repository.valid_branch(branch)


def test_the_same_repository_by_other_words() -> None:
    assert repository.same("git@example.org:owner/project.git", "https://example.org/owner/project")
    assert not repository.same("https://example.org/owner/project", "https://example.org/owner/other")


def test_a_credential_is_never_shown() -> None:
    assert repository.shown("https://user:secret@example.org/a?token=b") == "https://example.org/a"


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("fatal: Remote branch nope not found in upstream origin", "a --branch that is there"),
        ("remote: Repository not found.", "check the URL"),
        (
            "fatal: unable to access 'https://h/': server verification failed: certificate signer not trusted.",
            "certificate of its authority",
        ),
        ("fatal: unable to access 'https://h/': SSL certificate problem: self-signed certificate", "of its authority"),
        ("fatal: unable to access 'http://h:1/': Failed to connect to h port 1 after 0 ms", "the server runs"),
        ("ssh: connect to host h port 1: Connection refused", "the server runs"),
        ("Host key verification failed.", "ssh.knownHosts"),
    ],
)
def test_what_to_do_about_what_git_says(said: str, advice: str) -> None:
    assert advice in repository.advice(said)
