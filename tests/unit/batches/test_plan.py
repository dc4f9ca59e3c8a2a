"""What a batch is made of, and what is refused before anything begins."""

import pytest

from controlplane.batches.plan import planned
from controlplane.errors import InvalidInput, PerryError, TooLarge
from protocol.batches import BatchItem, StartBatch
from protocol.tasks import TaskAgent
from tests.unit.batches.conftest import wanted


def test_the_item_is_put_in_its_places() -> None:
    batch = wanted(
        "86", "87", task="Review PR {}, and {} only", clone="https://x/{}.git", branch="pr/{}", agent=TaskAgent.CODEX
    )
    first, second = planned(batch)
    assert (first.item, first.task.workspace, first.task.task) == ("86", "pr-86", "Review PR 86, and 86 only")
    assert (second.task.clone, second.task.branch) == ("https://x/87.git", "pr/87")
    assert all(each.task.create and each.task.start for each in (first, second))


def test_what_an_item_has_of_its_own_goes_first() -> None:
    own = BatchItem(
        item="a",
        workspace="mine",
        task="Do {}",
        agent=TaskAgent.CLAUDE,
        model="opus",
        timeout=60,
        clone="https://x/own.git",
        branch="b-{}",
    )
    batch = StartBatch(
        items=[own, BatchItem(item="b")],
        name="pr-{}",
        task="Look",
        model="sonnet",
        timeout=5,
        clone="https://x/all.git",
        origin="https://x/origin.git",
    )
    mine, other = (each.task for each in planned(batch))
    assert (mine.workspace, mine.task, mine.agent, mine.model, mine.timeout) == ("mine", "Do a", "claude", "opus", 60)
    assert (mine.clone, mine.branch, mine.origin) == ("https://x/own.git", "b-a", None)
    assert (other.workspace, other.task, other.agent, other.model) == ("pr-b", "Look", "opencode", "sonnet")
    assert (other.clone, other.origin) == ("https://x/all.git", "https://x/origin.git")


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (wanted(), "--each"),
        (wanted(*map(str, range(201))), "201 items"),
        (wanted("86", "86"), "'86' is there twice"),
        (wanted("86", "87", name="review"), "same workspace; put {} into it"),
        (
            StartBatch(items=[BatchItem(item="a", workspace="x"), BatchItem(item="b", workspace="x")], task="t"),
            "'a' and",
        ),
        (wanted("86", name=None), "--name"),
        (wanted("Fix it", agent=TaskAgent.CLAUDE), "'pr-Fix it' is no workspace name"),
        (wanted("PR", agent=TaskAgent.CLAUDE), "'PR': 'pr-PR'"),
        (wanted("ry", name="per{}"), "Perry's own"),
        (wanted("86", name="{}"), "no workspace name"),
        (wanted("x" * 70), "no workspace name"),
        (wanted("86", task=None), "task is empty"),
        (wanted("86", task=" \n"), "task is empty"),
        (wanted("86", task="a\0b"), "NUL"),
        (wanted(" "), "word or more"),
        (wanted("86", clone="--upload-pack=x"), "no repository"),
        (wanted("86", clone="https://me:pass@x/y"), "credential"),
        (wanted("86", clone="https://x/y", branch="{}..86"), "no name of a branch"),
        (wanted("86", branch="b"), "--clone"),
        (wanted("$(rm -rf ~)", name="x", task="echo {}"), "shell"),
        (wanted("a'b", name="x", task="echo {}"), "shell"),
        (wanted("a\nb", name="x", task="echo {}"), "shell"),
        (wanted("-rf", name="x", task="rm {}"), "not beginning with - or #"),
        (wanted("--exec=x", name="x", task="git grep {}"), "not beginning with - or #"),
        (wanted("#1", name="x", task="make {} && make test"), "not beginning with - or #"),
    ],
)
def test_what_is_refused(batch: StartBatch, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        planned(batch)
    assert words in refused.value.message


@pytest.mark.parametrize("item", ["86", "fix/a-b#1", "a=b", "@x", "+x", "_x", "src/a.py"])
def test_a_plain_word_may_stand_in_a_command(item: str) -> None:
    (only,) = planned(wanted(item, name="x", task="echo {}"))
    assert only.task.task == f"echo {item}"


def test_one_name_is_enough_for_one_item() -> None:
    assert [each.task.workspace for each in planned(wanted("86", name="review"))] == ["review"]


@pytest.mark.parametrize("item", ["$(rm -rf ~)", "it's “quoted”", "two\nlines", "{}"])
def test_an_agent_is_told_any_item_as_it_is(item: str) -> None:
    (only,) = planned(wanted(item, name="x", task="Fix {}.", agent=TaskAgent.CLAUDE))
    assert only.task.task == f"Fix {item}."


@pytest.mark.parametrize("item", ["$(rm)", "two\nlines"])
def test_a_shell_is_told_any_item_that_is_not_in_its_command(item: str) -> None:
    (only,) = planned(wanted(item, name="x", task="make test"))
    assert only.task.task == "make test"


@pytest.mark.parametrize(("size", "error"), [((1 << 20) + 1, InvalidInput), (1 << 20, TooLarge)])
def test_texts_are_bounded(size: int, error: type[PerryError]) -> None:
    with pytest.raises(error, match="file"):
        planned(wanted(*"abcdefghij", task="x" * size))
