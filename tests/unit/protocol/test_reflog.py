"""What somebody else made, by the log of the branches: one rule for what a task left and what would be lost."""

import pytest

from protocol import reflog

ONE, TWO, THREE = "1" * 40, "2" * 40, "3" * 64


@pytest.mark.parametrize(
    ("words", "elsewhere"),
    [
        ("commit: Mine", False),
        ("commit (amend): fetch origin main: storing head", False),
        ("branch: Created from HEAD", False),
        ("branch: Created from main", False),
        ("branch: Created from origin/patch-1", True),
        ("branch: Created from refs/remotes/origin/patch-1", True),
        ("branch: Created from origin-of-mine", False),
        ("fetch origin refs/pull/87/head:patch-1: storing ref", True),
        ("fetch -q origin +refs/heads/x:refs/heads/x: storing head", True),
        ("fetch --depth 1 origin x:y: storing head", True),
        ("fetch https://example.com/you/project x:y: fast-forward", True),
        ("fetch git@example.com:you/project x:y: fast-forward", True),
        ("fetch gone x:y: storing head", False),
        ("fetch ../near main:near: storing head", False),
        ("fetch near/by main:near: storing head", False),
        ("fetch -q /tmp/other main:near: storing head", False),
        ("fetch file:///tmp/other main:near: storing head", False),
        ("fetch --upload-pack origin ../near main:near: storing head", False),
        ("fetch -o origin near main:near: storing head", False),
        ("fetch --refmap origin:x near main:near: storing head", False),
        ("pull: Fast-forward", False),
        ("pull --ff-only: Fast-forward", False),
        ("pull origin main: Fast-forward", True),
        ("pull ../near main: Fast-forward", False),
        ("pull --rebase (finish): returning to refs/heads/main", False),
        ("pull: Merge made by the 'ort' strategy.", False),
        ("fetch", False),
        ("", False),
    ],
)
def test_what_came_from_elsewhere(words: str, elsewhere: bool) -> None:
    assert reflog.elsewhere(f"{ONE} {words}\n", "origin\nupstream\n") == ([ONE] if elsewhere else [])


@pytest.mark.parametrize("words", ["pull: Fast-forward", "pull -q --ff-only: Fast-forward"])
def test_what_was_pulled_is_others_work_but_not_sure_to_be_elsewhere(words: str) -> None:
    """It may have been a branch of the same repository."""
    assert reflog.elsewhere(f"{ONE} {words}\n", "origin") == []
    assert reflog.elsewhere(f"{ONE} {words}\n", "origin", pulled=True) == [ONE]
    assert reflog.elsewhere(f"{ONE} pull ../near main: Fast-forward\n", "origin", pulled=True) == []


def test_each_is_named_once_and_nothing_that_is_no_commit() -> None:
    log = f"{TWO} fetch origin a:b: storing head\n{TWO} pull origin: Fast-forward\n{THREE} pull origin: Fast-forward\n"
    log += "--all fetch origin a:b: storing head\n" + "1" * 41 + " pull origin: Fast-forward\n"
    assert reflog.elsewhere(log, "origin") == [TWO, THREE]
