"""What a worker remembers of what it told."""

import asyncio

import pytest

from protocol.sessions import SessionStatus
from protocol.worker import SessionGone, SessionSeen
from worker.journal import Journal

pytestmark = pytest.mark.anyio


def seen(session: str, mark: str = "1") -> SessionSeen:
    return SessionSeen(seq=0, agent="claude", session_id=session, mark=mark, status=SessionStatus.BUSY)


def numbers(journal: Journal, after: int) -> list[tuple[int, str]] | None:
    news = journal.since(after)
    if news is None:
        return None
    return [(each.seq, each.session_id) for each in news if isinstance(each, SessionSeen | SessionGone)]


async def test_the_latest_of_each_session_is_kept_in_the_order_of_its_number() -> None:
    journal = Journal()
    for mark in range(1000):
        journal.tell(seen("a", str(mark)))
    journal.tell(seen("b"))
    journal.tell(SessionGone(seq=0, agent="claude", session_id="a"))
    assert numbers(journal, 0) == [(1001, "b"), (1002, "a")]
    assert numbers(journal, 1001) == [(1002, "a")]
    assert numbers(journal, 1002) == []


async def test_sessions_of_two_agents_are_two() -> None:
    journal = Journal()
    journal.tell(seen("a"))
    journal.tell(SessionSeen(seq=0, agent="codex", session_id="a", mark="1", status=SessionStatus.IDLE))
    assert numbers(journal, 0) == [(1, "a"), (2, "a")]


async def test_what_was_forgotten_is_not_passed_over() -> None:
    journal = Journal(ring=2)
    for session in "abc":
        journal.tell(seen(session))
    assert numbers(journal, 0) is None
    assert numbers(journal, 1) == [(2, "b"), (3, "c")]


@pytest.mark.parametrize("after", [-1, 4, 1 << 60])
async def test_a_number_that_was_never_given_is_no_place(after: int) -> None:
    journal = Journal()
    for session in "abc":
        journal.tell(seen(session))
    assert journal.since(after) is None


async def test_who_waits_is_woken_and_who_is_behind_does_not_wait() -> None:
    journal = Journal()
    waiting = [asyncio.create_task(journal.beyond(0)) for _ in range(3)]
    await asyncio.sleep(0)
    journal.tell(seen("a"))
    await asyncio.wait_for(asyncio.gather(*waiting), 5)
    await asyncio.wait_for(journal.beyond(0), 5)


async def test_each_run_is_another() -> None:
    assert Journal().epoch != Journal().epoch
