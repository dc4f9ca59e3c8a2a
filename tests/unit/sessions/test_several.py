"""Many sessions are read for the first time, several in one request; workers that cannot, or will not, are read too."""

import sqlite3
import threading
import time
from collections.abc import Sequence

import anyio
import pytest

from controlplane.errors import WorkerError
from controlplane.sessions import fulltext
from controlplane.sessions.pages import Stored
from controlplane.sessions.pulling import FIRST_LANES, LANES, SEVERAL
from controlplane.sessions.storing import Given, Storing
from protocol.worker import Done, Page, Pages, ReadSession, ReadSessions, Refused, Request, Result, SessionFacts
from tests.fakes.worker import FakeWorker, message
from tests.unit.sessions.conftest import Index, until
from worker.requests import AT_ONCE

SESSIONS = 100


def written(index: Index, *, page: int = 100) -> FakeWorker:
    worker = index.worker(page=page)
    for number in range(SESSIONS):
        worker.write(f"s{number}", message(0, f"first {number}"), message(1, f"second {number}"))
    return worker


async def all_there(index: Index) -> None:
    await index.settled()
    for number in (0, 57, SESSIONS - 1):
        assert [each.ordinal for each in await index.messages(f"s{number}")] == [0, 1]
        assert sorted(await index.found(f"{number}")) == [(f"s{number}", 0), (f"s{number}", 1)]


async def test_few_requests_and_each_is_bounded(index: Index) -> None:
    worker = written(index, page=1)
    async with index.followed():
        await all_there(index)
    asked = [request for request in worker.asked if isinstance(request, ReadSessions)]
    # The fake answers half of what it is asked; each session has two pages.
    assert 2 * SESSIONS / SEVERAL < len(asked) < SESSIONS
    assert max(len(request.sessions) for request in asked) == SEVERAL


async def test_an_older_worker_is_asked_for_each(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = written(index)
    asked = 0
    answer = worker.answer

    def older(request: Request) -> Result:
        nonlocal asked
        if isinstance(request, ReadSessions):
            asked += 1
            raise WorkerError("This worker does not understand that request.", data={"code": "unknown"})
        return answer(request)

    monkeypatch.setattr(worker, "answer", older)
    async with index.followed():
        await all_there(index)
    assert 0 < asked < 10  # Once by each lane.


async def test_only_what_has_changed_hurries_others(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where each is asked for by itself, as of an older worker."""
    worker, urgent_ones = written(index), 0
    add = Storing.add

    async def counted(self: Storing, given: Sequence[Given], *, urgent: bool) -> list[Stored | None]:
        nonlocal urgent_ones
        urgent_ones += urgent
        return await add(self, given, urgent=urgent)

    def older(request: Request) -> Result | None:
        if isinstance(request, ReadSessions):
            raise WorkerError("This worker does not understand that request.", data={"code": "unknown"})
        return None

    worker.answers = older
    monkeypatch.setattr(Storing, "add", counted)
    async with index.followed():
        await all_there(index)
        assert urgent_ones == 0
        worker.write("s7", message(2, "later"))
        await index.settled()
        assert urgent_ones > 0


def refused(request: ReadSessions) -> Result:
    return Pages(pages=[Refused(code="failed", message="It cannot be read.") for _ in request.sessions])


def too_many(request: ReadSessions) -> Result:
    page = Page(messages=[message(0, "strange")], facts=SessionFacts(), cursor="c", mark="m", more=False)
    return Pages(pages=[page] * (len(request.sessions) + 1))


@pytest.mark.parametrize("answer", [refused, too_many, lambda request: Pages(pages=[]), lambda request: Done()])
async def test_what_a_hostile_one_answers_to_several_keeps_none_from_being_read(index: Index, answer: object) -> None:
    worker = written(index)
    given = 0

    def strange(request: Request) -> Result | None:
        nonlocal given
        if not isinstance(request, ReadSessions) or given > 20:
            return None
        given += 1
        return answer(request)  # type: ignore[operator,no-any-return]

    worker.answers = strange
    async with index.followed():
        await all_there(index)
        assert await index.found("strange") == []
    assert given


async def test_one_that_cannot_be_read_does_not_keep_the_others(index: Index) -> None:
    worker = written(index)
    unreadable = Refused(code="failed", message="It cannot be read.")
    worker.answers = lambda request: (
        unreadable if isinstance(request, ReadSession) and request.session_id == "s50" else None
    )
    async with index.followed():

        async def others() -> bool:
            return len([each for each in await index.all() if each.message_count == 2]) == SESSIONS - 1

        await until(others, "the others are read")
        worker.answers = lambda request: None
        await all_there(index)


async def test_what_changes_does_not_wait_for_what_is_read_first(index: Index) -> None:
    """All requests for several hang; a session that changes is read meanwhile."""
    worker = written(index)
    async with index.followed():
        await index.settled()
        puller = index.follower.puller("alpha")
        assert puller is not None and puller._link is not None
        ask, hang, hung = puller._link.ask, anyio.Event(), 0

        async def slowly(request: Request) -> Result:
            nonlocal hung
            if isinstance(request, ReadSessions):
                hung += 1
                await hang.wait()
            return await ask(request)

        puller._link.ask = slowly  # type: ignore[method-assign]
        puller._noting.first = True
        for number in range((LANES + FIRST_LANES + 1) * SEVERAL):
            worker.write(f"new{number}", message(0, "new"))
        await until(lambda: hung == FIRST_LANES, "several are asked for")
        await anyio.sleep(0.05)
        puller._noting.first = False
        worker.write("s7", message(2, "while others hang"))
        await until(lambda: has(index, "while others hang"), "it is read and found")
        hang.set()
        await index.settled()


async def test_one_that_hangs_keeps_none_from_its_turn_that_was_asked_for_with_it(index: Index) -> None:
    """After a request for several has failed, and each is asked for by itself."""
    worker = index.worker()
    worker.write("old", message(0, "old"))
    async with index.followed():
        await index.settled()
        puller = index.follower.puller("alpha")
        assert puller is not None and puller._link is not None
        ask, hang, hangs, together = puller._link.ask, anyio.Event(), anyio.Event(), list[str]()

        async def slowly(request: Request) -> Result:
            if isinstance(request, ReadSessions):
                together[:] = together or [each.session_id for each in request.sessions]
                raise WorkerError("It cannot be read.")
            if isinstance(request, ReadSession) and together and request.session_id == together[-1]:
                hangs.set()
                await hang.wait()
            return await ask(request)

        puller._link.ask = slowly  # type: ignore[method-assign]
        puller._noting.first = True
        for number in range(SEVERAL):
            worker.write(f"new{number}", message(0, "new"))
        await until(hangs.is_set, "the last is asked for")
        puller._noting.first = False
        worker.write(together[0], message(1, "meanwhile"))

        async def read() -> bool:
            return await index.found("meanwhile") == [(together[0], 1)]

        await until(read, "the first is read again")
        hang.set()
        await index.settled()


async def test_refused_pages_write_nothing(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = written(index)
    worker.answers = lambda request: refused(request) if isinstance(request, ReadSessions) else None
    add, sizes = Storing.add, list[int]()

    async def some(self: Storing, given: Sequence[Given], *, urgent: bool) -> list[Stored | None]:
        sizes.append(len(given))
        return await add(self, given, urgent=urgent)

    monkeypatch.setattr(Storing, "add", some)
    async with index.followed():
        await until(lambda: len(worker.asked) > 10, "several are asked for")
        worker.answers = lambda request: None
        await all_there(index)
    assert 0 not in sizes and sum(sizes) >= SESSIONS


def test_a_worker_answers_more_at_once_than_it_is_asked_for_pages() -> None:
    assert LANES + FIRST_LANES < AT_ONCE


async def has(index: Index, words: str) -> bool:
    return await index.found(words) == [("s7", 2)]


async def test_hurried_it_puts_in_little_and_loses_nothing(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fulltext, "LEAST_BYTES", 0)
    worker = index.worker()
    worker.write("one", *(message(number, f"word{number} all") for number in range(90)))
    async with index.followed():
        await index.settled()

    def again(db: sqlite3.Connection) -> list[int]:
        """All of it out, and in again while others are hurried from the fiftieth look on."""
        for row in db.execute("SELECT id, role, blocks FROM messages").fetchall():
            fulltext.take_out(db, row["id"], row["role"], row["blocks"], fulltext.scope_of(1, "claude"))
            db.execute("INSERT INTO pending VALUES (?)", (row["id"],))
        counts = []
        # The last comes first in the full text: what was read and not put in is not the end of what waits.
        db.execute("UPDATE messages SET at = 10000000000 - id % 7 * 1000")
        looks = iter([False, False, False, True] + [True] * 100)
        while fulltext.put_in(db, lambda: next(looks)):
            counts.append(db.execute("SELECT count(*) FROM pending").fetchone()[0])
            assert db.execute("SELECT count(*) FROM docs").fetchone()[0] == 90 - counts[-1]
        return counts

    counts = await index.database.write(again)
    assert len(counts) >= 3 and counts == sorted(counts, reverse=True)
    for number in range(90):
        assert await index.found(f"word{number}") == [("one", number)]
    await index.database.write(lambda db: db.execute("INSERT INTO texts (texts) VALUES ('integrity-check')"))


async def test_who_waits_to_be_seen_hurries_the_others(index: Index) -> None:
    worker = index.worker()
    worker.write("one", message(0, "before"))
    async with index.followed():
        await index.settled()
        begun = threading.Event()

        def long(db: sqlite3.Connection) -> bool:
            begun.set()
            until_ = time.monotonic() + 20
            while not index.database.hurried and time.monotonic() < until_:
                time.sleep(0.001)
            return index.database.hurried

        async def write() -> None:
            assert await index.database.write(long)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write)
            await until(begun.is_set, "it is written")
            worker.write("one", message(1, "after"))
        await index.settled()
        assert not index.database.hurried
