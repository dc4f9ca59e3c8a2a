"""Pages that come while others are written are written together; what fails, fails for each of them."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import anyio
import pytest

from controlplane.errors import OutOfSpace
from controlplane.sessions import follower, store
from controlplane.sessions.aggregate import Key
from controlplane.sessions.masking import Mask
from controlplane.sessions.storing import Given, Storing
from protocol.sessions import SessionStatus
from protocol.worker import Page, SessionFacts, SessionSeen
from tests.fakes.worker import message
from tests.unit.sessions.conftest import Index, until

T = TypeVar("T")

SESSIONS = 12


def seen(number: int) -> SessionSeen:
    return SessionSeen(seq=1, agent="claude", session_id=f"s{number}", mark="m", status=SessionStatus.IDLE)


async def rows(index: Index) -> list[int]:
    def work(db: sqlite3.Connection) -> list[int]:
        workspace = store.workspace(db, "alpha", "")
        told = [(Key("claude", f"s{number}"), seen(number)) for number in range(SESSIONS)]
        return [reading.row.id for reading, _ in store.note(db, workspace, told, now=10**12)]

    return await index.database.write(work)


async def test_pages_that_wait_are_written_together(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    found, writes, write = await rows(index), 0, index.database.write
    storing = Storing(index.database, Mask)

    async def slowly(work: Callable[[sqlite3.Connection], T]) -> T:
        nonlocal writes
        writes += 1
        await anyio.sleep(0.1)
        return await write(work)

    monkeypatch.setattr(index.database, "write", slowly)

    async def add(number: int) -> None:
        page = Page(messages=[message(0, f"word{number}")], facts=SessionFacts(), cursor="c", mark="m", more=False)
        [stored] = await storing.add([Given(found[number], page, None, lambda: seen(number))])
        assert stored is not None and stored.row.session_id == f"s{number}" and stored.ordinals == (0,)

    async with anyio.create_task_group() as tasks:
        for number in range(SESSIONS):
            tasks.start_soon(add, number)
    assert writes <= SESSIONS // 2
    kept = await index.database.read(lambda db: db.execute("SELECT sum(bytes), count(*) FROM sessions").fetchone())
    assert tuple(kept) == (storing.size, SESSIONS)


async def test_each_is_told_that_there_is_no_space(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await rows(index)
    storing = Storing(index.database, Mask)

    async def full(work: object) -> None:
        await anyio.sleep(0.05)
        raise OutOfSpace("No space is left.")

    failed = 0
    page = Page(messages=[message(0, "word")], facts=SessionFacts(), cursor="c", mark="m", more=False)

    async def add(number: int) -> None:
        nonlocal failed
        with pytest.raises(OutOfSpace):
            await storing.add([Given(found[number], page, None, lambda: seen(number))])
        failed += 1

    with monkeypatch.context() as patch:
        patch.setattr(index.database, "write", full)
        async with anyio.create_task_group() as tasks:
            for number in range(SESSIONS):
                tasks.start_soon(add, number)
    assert failed == SESSIONS and storing.size == 0
    assert await storing.add([Given(found[0], page, None, lambda: seen(0))]) != [None]


async def test_what_waits_when_all_ends_is_searched_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "SETTLED_SECONDS", 3600.0)
    before = Index(tmp_path)
    worker = before.worker()
    worker.write("one", message(0, "first words"), message(1, "more words"))
    async with before.running(), before.followed():
        await until(lambda: before.messages("one"), "it is read")
        assert await before.found("words") == []
    monkeypatch.setattr(follower, "SETTLED_SECONDS", 0.0)
    after = Index(tmp_path)
    after.workers["alpha"] = worker
    async with after.running(), after.followed():
        await after.settled()
        assert sorted(await after.found("words")) == [("one", 0), ("one", 1)]
        worker.rewrite("one", message(0, "other"))
        await after.settled()
        assert await after.found("words") == [] and await after.found("other") == [("one", 0)]
