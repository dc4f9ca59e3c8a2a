"""Workers that mean harm, a file that is damaged, a disk that is full, workspaces that are deleted."""

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from controlplane.errors import NotFound, NotReady, OutOfSpace, StateError, WorkerUnavailable
from controlplane.sessions import aggregate, noting, pages, store, storing
from controlplane.sessions.database import SessionsDatabase
from controlplane.sessions.masking import Mask
from protocol.sessions import DeleteSession, MessageRole, RenameSession, SessionRef, SessionStatus, ToolCall
from protocol.worker import Page, ReadSession, Request, SessionFacts, SessionSeen
from tests.fakes.worker import message
from tests.unit.sessions.conftest import Index, until

FAR = datetime(9999, 1, 1, tzinfo=UTC)


# --- workers that mean harm


def page(*messages: Any, **more: Any) -> Page:
    given = {"facts": SessionFacts(), "cursor": "c", "mark": "1.1", "more": False, **more}
    return Page(messages=list(messages), **given)


async def test_what_is_out_of_bounds_is_cut_or_left_out(index: Index) -> None:
    worker = index.worker()
    evil = "\x1b[2J\u202eevil\n" * 100
    odd = msgspec.structs.replace(message(5, "fine"), at=FAR, id="x" * 9_999, role=MessageRole("king"))
    facts = SessionFacts(title=evil, cwd=evil, last_activity=FAR, created=datetime(1, 1, 1), cost=float("inf"),
                         resume=["sh", "-c", "\x1b]0;"])  # fmt: skip
    given = page(message(-1, "before"), message(1 << 40, "after"), odd, facts=facts)
    worker.answers = lambda request: given if isinstance(request, ReadSession) else None
    worker.write("one")
    async with index.followed():
        await until(lambda: index.messages("one"), "it is read")
        [info] = await index.all()
        assert info.title.isprintable() and len(info.title) <= 200
        assert info.last_activity <= datetime.now(UTC) + timedelta(seconds=5)
        assert (info.created, info.cost, info.resume) == (None, None, None)
        [told] = await index.messages("one")
        assert (told.ordinal, told.role, len(told.id)) == (5, MessageRole.SYSTEM, 256)


async def test_a_clock_that_jumps_loses_nothing_and_no_session_is_the_first_for_ever(index: Index) -> None:
    worker = index.worker()
    async with index.followed():
        for number, at in enumerate((datetime(2026, 6, 1, tzinfo=UTC), FAR, datetime(1970, 1, 2, tzinfo=UTC))):
            session = worker.write("one", message(number, f"word {number}", at=at))
            session.last_activity = at
            worker.changed(session)
            await index.settled()
        assert [each.ordinal for each in await index.messages("one")] == [0, 1, 2]
        assert sorted(await index.found("word")) == [("one", 0), ("one", 1), ("one", 2)]
        now = datetime.now(UTC) + timedelta(seconds=1)
        session = worker.write("two", message(0, "x", at=now))
        session.last_activity = now
        worker.changed(session)
        await index.settled()
        await until(lambda: first_is(index, "two"), "who is active now comes first")


async def first_is(index: Index, session_id: str) -> bool:
    return (await index.all())[0].session_id == session_id


@pytest.mark.parametrize(
    ("agent", "session_id"),
    [("Claude", "x"), ("", "x"), ("claude", ""), ("claude", "a\nb"), ("a" * 33, "x"), ("c", "x" * 300)],
)
def test_names_that_are_none(agent: str, session_id: str) -> None:
    seen = SessionSeen(seq=1, agent=agent, session_id=session_id, mark="m", status=SessionStatus.IDLE)
    assert aggregate.key_of(seen) is None


async def test_pages_without_end_delay_nobody(index: Index) -> None:
    hostile, honest = index.worker("hostile"), index.worker("honest", page=5)
    asked = 0

    def endless(request: Request) -> Page | None:
        nonlocal asked
        asked += 1
        return page(message(0, f"again {asked}"), cursor=str(asked), mark=str(asked), more=True)

    hostile.answers = endless
    hostile.write("one")
    for number in range(20):
        honest.write(f"s{number}", *(message(at, f"word {at}") for at in range(10)))
    async with index.followed("hostile"), index.followed("honest"):
        await until(lambda: len(honest.asked) >= 1, "the other has its first turn")
        before = asked
        await until(lambda: len(honest.asked) >= 40, "all of the other is read")
        # Fair turns: what never ends got not many more of them than what has ended by now.
        assert asked - before <= 40 * 8
        await index.settled("honest")


async def test_a_session_that_is_always_void_is_read_slowly(index: Index) -> None:
    worker = index.worker()
    worker.answers = lambda request: page(message(0, "anew"), cursor="c", mark="other", reset=True, more=True)
    worker.write("one")
    async with index.followed():
        await anyio.sleep(0.5)
        asked = len(worker.asked)
        assert 1 <= asked <= 12


async def test_a_workspace_has_so_much_text_and_no_more(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "TEXT_LIMIT", 5_000)
    worker, other = index.worker(), index.worker("other")
    async with index.followed(), index.followed("other"):
        worker.write("one", *(message(at, "x" * 1_000) for at in range(20)))
        other.write("two", message(0, "still kept"))
        await index.settled("other")
        await until(lambda: index.messages("one"), "something is kept")
        assert len(await index.messages("one")) <= 5


async def test_sessions_above_the_limit_are_left_out(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noting, "SESSIONS_LIMIT", 3)
    worker = index.worker()
    for number in range(9):
        worker.write(f"s{number}", message(0, "x"))
    async with index.followed():
        await until(lambda: index.messages("s0"), "the first are read")
        assert len(await index.all()) == 3


async def test_a_flood_leaves_turns_to_others(index: Index) -> None:
    loud, quiet = index.worker("loud", page=1_000), index.worker("quiet")
    loud.write("one")
    quiet.write("two")
    async with index.followed("loud"), index.followed("quiet"):
        for burst in range(20):
            for number in range(500):
                loud.write("one", message(burst * 500 + number, "noise"))
            quiet.write("two", message(burst, f"word{burst}"))
            await index.settled("quiet")
        await until(lambda: all_of(index, "loud", 10_000), "all of it is read")
        # A session that changes ten thousand times is read as often as there is time, not ten thousand times.
        assert len(loud.asked) < 1_000


async def all_of(index: Index, workspace: str, count: int) -> bool:
    return [each.message_count for each in await index.all(workspace=workspace)] == [count]


# --- the file


async def test_a_damaged_index_is_made_anew_while_it_runs(index: Index) -> None:
    worker = index.worker()
    async with index.followed():
        worker.write("one", message(0, "before"))
        await index.settled()
        index.follower.damaged()
        await until(lambda: list(index.file.parent.glob("*.damaged-*")), "it is moved aside")
        worker.write("one", message(1, "after"))
        await index.settled()
        assert await index.found("before") == [("one", 0)]


def test_a_damaged_file_is_moved_aside_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    file.write_bytes(b"this is no database at all, and long enough to be seen as none" * 99)
    SessionsDatabase(file).close()
    [aside] = tmp_path.glob("sessions.db.damaged-*")
    assert aside.read_bytes().startswith(b"this is no database")


def test_a_newer_file_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "sessions.db"
    SessionsDatabase(file).close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StateError, match="newer Perry"):
        SessionsDatabase(file)


async def test_a_full_disk_loses_nothing(index: Index) -> None:
    worker = index.worker()
    async with index.followed():
        worker.write("one", message(0, "first"))
        await index.settled()
        pages = await index.database.read(lambda db: db.execute("PRAGMA page_count").fetchone()[0])
        index.database._writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OutOfSpace, match="No space"):
            await index.database.write(
                lambda db: db.execute("INSERT INTO messages VALUES (7, '', '', 0, '', ?)", ("x" * 10**6,))
            )
        worker.write("two", *(message(at, "y" * 9_000) for at in range(30)))
        await anyio.sleep(0.1)
        assert await index.messages("one")
        index.database._writer.execute("PRAGMA max_page_count = 1000000")
        await index.settled()


async def test_a_locked_file_is_a_sentence(index: Index) -> None:
    index.database._writer.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(index.file, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotReady, match="Another program"):
            await index.sessions.keep("alpha", True)
    finally:
        other.close()
    await index.sessions.keep("alpha", True)


# --- workspaces that are deleted; sessions that are


async def test_sessions_go_with_their_workspace(index: Index) -> None:
    worker = index.worker()
    worker.write("one", message(0, "fence"))
    async with index.followed():
        await index.settled()
    index.follower.deleted("alpha")
    await until(lambda: no_sessions(index), "they are gone")
    assert await index.found("fence") == []

    async def cleared() -> bool:
        return not await index.database.read(lambda db: db.execute("SELECT count(*) FROM messages").fetchone()[0])

    await until(cleared, "nothing of them is left")


async def no_sessions(index: Index) -> bool:
    return not await index.all()


async def test_sessions_that_were_kept_are_not_those_of_a_new_workspace(index: Index) -> None:
    worker = index.worker()
    worker.write("one", message(0, "fence"))
    async with index.followed():
        await index.settled()
    await index.sessions.keep("alpha", True)
    index.follower.deleted("alpha")

    async def kept() -> bool:
        return any(each.deleted_workspace for each in await index.all())

    await until(kept, "they are kept")
    index.created["alpha"] = "2026-02-02T00:00:00Z"
    fresh = index.worker()
    fresh.write("two", message(0, "gate"))
    async with index.followed():
        await until(lambda: index.messages("two"), "the new one is read")
        marked = {each.session_id: (each.deleted_workspace, each.live) for each in await index.all()}
        assert marked == {"one": (True, False), "two": (False, True)}
        assert await index.found("fence", workspace="alpha") == [("one", 0)]
        one = DeleteSession(workspace="alpha", agent="claude", session_id="one", in_workspace=True)
        with pytest.raises(NotFound, match="was deleted"):
            await index.sessions.delete(one)
        await index.sessions.delete(msgspec.structs.replace(one, in_workspace=False))
        assert [each.session_id for each in await index.all()] == ["two"]


async def test_what_was_deleted_while_nobody_looked(index: Index) -> None:
    for name in ("alpha", "beta", "gamma"):
        index.worker(name).write("one", message(0, "x"))
        async with index.followed(name):
            await index.settled(name)
    await index.follower.end_others([("alpha", "2026-01-01T00:00:00Z")], unsure=["gamma"])
    assert sorted(each.workspace for each in await index.all()) == ["alpha", "gamma"]


async def test_deleted_from_the_index_it_comes_back_with_a_change(index: Index) -> None:
    worker = index.worker()
    worker.write("one", message(0, "first"))
    one = SessionRef(workspace="alpha", agent="claude", session_id="one")
    async with index.followed():
        await index.settled()
        await index.sessions.delete(DeleteSession(workspace="alpha", agent="claude", session_id="one"))
        worker.write("two", message(0, "other"))
        await until(lambda: index.messages("two"), "others are read")
        with pytest.raises(NotFound):
            await index.sessions.get(one)
        worker.write("one", message(1, "second"))
        await index.settled()
        assert len(await index.messages("one")) == 2


async def test_rename_and_delete_in_the_workspace(index: Index) -> None:
    worker = index.worker()
    worker.write("one", message(0, "first"))
    rename = RenameSession(workspace="alpha", agent="claude", session_id="one", title=" Mend the\tfence ")
    delete = DeleteSession(workspace="alpha", agent="claude", session_id="one", in_workspace=True)
    async with index.followed():
        await index.settled()
        assert (await index.sessions.rename(rename)).title == "Mend the fence"
        assert worker.sessions["claude", "one"].facts.title == "Mend the fence"
    for asked in (index.sessions.rename(rename), index.sessions.delete(delete)):
        with pytest.raises(WorkerUnavailable, match="perry start alpha"):
            await asked
    async with index.followed():
        await index.sessions.delete(delete)
        assert not worker.sessions
        assert await no_sessions(index)


async def test_secrets_are_masked_in_all_that_is_kept(index: Index) -> None:
    key = "sk-ant-" + "a1B2" * 10
    index.secrets.append("hunter2-hunter2")
    worker = index.worker()
    call = ToolCall(call_id="c", name="Bash", input=f'{{"k":"{key}"}}')
    told = message(0, f"my key is {key} and hunter2-hunter2", MessageRole.USER)
    worker.write("one", msgspec.structs.replace(told, blocks=[*told.blocks, call]))
    async with index.followed():
        await index.settled()
        kept = str(await index.messages("one")) + str(await index.all())
        assert "a1B2" not in kept and "hunter2" not in kept
        assert await index.found("a1B2a1B2*") == []
    assert b"a1B2a1B2" not in index.file.read_bytes()


async def test_a_page_that_was_under_way_while_its_session_was_deleted_is_dropped(index: Index) -> None:
    seen = SessionSeen(seq=1, agent="claude", session_id="one", mark="m", status=SessionStatus.IDLE)

    def work(db: sqlite3.Connection) -> None:
        number = store.workspace(db, "alpha", "")
        [(reading, _)] = store.note(db, number, [(aggregate.Key("claude", "one"), seen)], now=10**12)
        row = reading.row.id

        def add(given: Page, cursor: str | None) -> pages.Stored | None:
            return pages.add(db, row, pages.prepared(given, Mask(), 10**12), seen, cursor, 10**12, 10**6)

        assert add(page(message(0, "first"), cursor="a", more=True), None) is not None
        store.forget(db, row)
        assert add(page(message(1, "second"), cursor="b"), "a") is None
        assert add(page(message(0, "first"), cursor="a"), None) is not None
        store.remove(db, [row])
        assert add(page(message(1, "second"), cursor="b"), "a") is None

    await index.database.write(work)
