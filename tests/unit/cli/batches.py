"""Batches as a fake agent has them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from protocol.batches import (
    Batch,
    BatchEntry,
    BatchItemResult,
    BatchState,
    BatchSummary,
    ItemState,
    WatchedBatch,
)
from protocol.tasks import TaskResult
from tests.unit.cli.agent import FakeAgent
from tests.unit.cli.test_tasks import task

ID = "b-0123456789ab"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DISPATCH = ("dispatch", "--each", "86,87", "--name", "pr-{}", "--clone", "https://x/y.git", "Review PR #{}")


def entry(item: str, state: ItemState = ItemState.SUCCEEDED, **more: Any) -> BatchEntry:
    over = state in (ItemState.SUCCEEDED, ItemState.FAILED)
    given: dict[str, Any] = (
        {"said": f"I read {item}.", "started": NOW, "ended": NOW + timedelta(seconds=90)} if over else {}
    )
    return BatchEntry(
        number=int(item) - 85,
        item=item,
        agent="claude",
        state=state,
        done=over,
        **({"workspace": f"pr-{item}"} | given | more),
    )


def batch(*entries: BatchEntry, state: BatchState = BatchState.DONE) -> Batch:
    counts: dict[str, int] = {}
    for each in entries:
        counts[each.state] = counts.get(each.state, 0) + 1
    summary = BatchSummary(
        id=ID,
        state=state,
        text="Review PR #{}",
        created=NOW,
        parallel=5,
        wake="now",
        remove_when="never",
        counts=counts,
    )
    return Batch(summary=summary, items=list(entries))


GOING = batch(entry("86", ItemState.RUNNING), entry("87", ItemState.PENDING), state=BatchState.RUNNING)
ENDED = batch(entry("86"), entry("87", ItemState.FAILED, reason="No \x1bmoney.", removal="kept: it has work"))


def ends(agent: FakeAgent, batch: Batch = ENDED) -> None:
    """The agent has a batch that runs, and then is over."""
    agent.answers["batches.start"] = agent.answers["batches.get"] = GOING
    agent.answers["batches.wait"] = lambda wanted: WatchedBatch(batch=batch, mark="2", done=True)
    agent.answers["batches.result"] = lambda wanted: BatchItemResult(
        entry=batch.items[wanted["number"] - 1],
        result=TaskResult(task=task(), last_message="All\x1b[2J is well.\nReally."),
        log=b"\xff\x1b]0;log\x07\r\n\tand more",
        patch=b"From 0\x1b" if wanted["number"] == 1 else None,
    )


def asked(agent: FakeAgent, procedure: str = "batches.start") -> dict[str, Any]:
    (wanted,) = (wanted for call, wanted in agent.calls if call == procedure)
    assert wanted.pop("key")
    return dict(wanted)
