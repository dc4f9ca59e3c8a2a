"""What is said of what a task has left."""

import pytest

from controlplane.tasks.state import left_behind
from protocol.tasks import Commit
from protocol.worker import TaskOutcome

COMMIT = Commit(id="abcdef1234567", subject="Fix it")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (TaskOutcome(), ""),
        (TaskOutcome(commits=(COMMIT,)), "It left 1 commit, the newest abcdef1234 “Fix it”."),
        (
            TaskOutcome(commits=(COMMIT, COMMIT), uncommitted=1, unpushed=1),
            "It left 2 commits, the newest abcdef1234 “Fix it”; 1 file not committed; 1 commit not pushed.",
        ),
        (TaskOutcome(uncommitted=2, unpushed=3), "It left 2 files not committed; 3 commits not pushed."),
    ],
)
def test_one_is_one(outcome: TaskOutcome, said: str) -> None:
    assert left_behind(outcome) == said
