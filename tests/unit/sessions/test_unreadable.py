"""A store that its worker cannot read: what was known of it stays, until the worker knows what is there."""

import anyio

from protocol.worker import StoreSeen
from tests.fakes.worker import message
from tests.unit.sessions.conftest import Index, until


async def ids(index: Index) -> set[str]:
    return {info.session_id for info in await index.all()}


async def test_its_sessions_stay_until_all_of_it_was_seen(index: Index) -> None:
    worker = index.worker()
    for name in ("one", "two"):
        worker.write(name, message(0, f"word of {name}"), agent="opencode")
    worker.write("mine", message(0, "word of mine"))
    worker.write("gone", message(0, "word of gone"))
    async with index.followed():
        await index.settled()
    # While nobody follows, two are deleted, and one is written; then the worker begins anew, and cannot read one store.
    worker.remove("two", agent="opencode")
    worker.remove("gone")
    worker.unreadable.add("opencode")
    worker.restart()
    async with index.followed():
        await until(lambda: gone(index, {"one", "two", "mine"}), "what is known to be gone is gone, and nothing else")
        assert await index.found("word of two") == [("two", 0)]
        await anyio.sleep(0.05)
        assert await ids(index) == {"one", "two", "mine"}
        worker.write("three", message(0, "word"), agent="opencode")
        worker.can_read("opencode")
        await until(lambda: gone(index, {"one", "mine", "three"}), "what went meanwhile is gone")
        await index.settled()


async def gone(index: Index, left: set[str]) -> bool:
    return await ids(index) == left


async def test_a_stream_that_breaks_meanwhile_changes_nothing(index: Index) -> None:
    worker = index.worker()
    worker.write("one", message(0, "word"), agent="opencode")
    worker.write("two", message(0, "word"), agent="opencode")
    async with index.followed():
        await index.settled()
    worker.remove("two", agent="opencode")
    worker.unreadable.add("opencode")
    worker.restart()
    async with index.followed():
        await anyio.sleep(0.1)
    async with index.followed(epoch=worker.epoch, after=worker.seq):
        worker.can_read("opencode")
        await until(lambda: gone(index, {"one"}), "what went meanwhile is gone")


async def test_a_worker_that_says_so_at_the_wrong_time_harms_nobody(index: Index) -> None:
    worker = index.worker()
    worker.write("one", message(0, "word"))
    async with index.followed():
        await index.settled()
        for whole in (False, True, True, False):
            worker.tell(StoreSeen(seq=0, agent="claude", whole=whole))
        worker.tell(StoreSeen(seq=0, agent="x" * 32, whole=True))
        worker.write("two", message(0, "word"))
        await index.settled()
        assert await ids(index) == {"one", "two"}
