"""What a worker tells becomes what is listed, read and searched; in any order of bad luck."""

import anyio
import pytest

from controlplane.errors import NotFound
from protocol.sessions import MessageRole, SessionRef, SessionStatus, Text
from protocol.worker import ReadSession, Request, Result
from tests.fakes.worker import message
from tests.unit.sessions.conftest import Index, until


async def test_a_session_is_listed_read_and_found(index: Index) -> None:
    worker = index.worker()
    async with index.followed():
        worker.write("one", message(0, "please mend the fence", MessageRole.USER), message(1, "The fence is mended."))
        await index.settled()
        [info] = await index.all()
        assert (info.title, info.message_count, info.live) == ("please mend the fence", 2, True)
        assert [told.ordinal for told in await index.messages("one")] == [0, 1]
        assert await index.found("mended fence") == [("one", 1)]
    await until(lambda: not index.follower.live, "it is let go")
    [info] = await index.all()
    assert not info.live
    assert await index.found("mended") == [("one", 1)]
    with pytest.raises(NotFound, match="perry sessions list"):
        await index.sessions.get(SessionRef(workspace="alpha", agent="claude", session_id="other"))


async def test_what_is_unchanged_is_not_read_again(index: Index) -> None:
    worker = index.worker(page=3)
    for number in range(5):
        worker.write(f"s{number}", *(message(at, f"word{at}") for at in range(7)))
    async with index.followed():
        await index.settled()

    def pages() -> int:
        return sum(isinstance(request, ReadSession) for request in worker.asked)

    asked = pages()
    assert asked == 15
    worker.restart()
    async with index.followed():
        worker.write("s2", message(7, "more"))
        worker.set_status("s3", SessionStatus.BUSY)
        await index.settled()
    assert pages() <= asked + 2 + 1


async def test_what_was_not_told_is_gone(index: Index) -> None:
    worker = index.worker()
    worker.write("stays", message(0, "here"))
    worker.write("goes", message(0, "gone"))
    async with index.followed():
        await index.settled()
    worker.remove("goes")
    worker.restart()
    async with index.followed():
        await index.settled()
    assert await index.found("gone") == []
    assert await index.found("here") == [("stays", 0)]


async def test_a_message_that_grows_is_one(index: Index) -> None:
    worker = index.worker()
    async with index.followed():
        text = ""
        for number in range(30):
            text += f" grown{number}"
            worker.write("one", message(0, text))
            if number % 10 == 0:
                await index.settled()
        await index.settled()
        await until(lambda: index.messages("one"), "it is there")

        async def whole() -> bool:
            return await index.found("grown29") == [("one", 0)]

        await until(whole, "all of it is found")
        assert await index.found("grown0 grown15") == [("one", 0)]
        [info] = await index.all()
        assert info.message_count == 1


async def test_one_that_goes_and_comes_back_while_it_is_read(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = index.worker()
    worker.write("one", message(0, "first"))
    async with index.followed():
        await index.settled()
        puller = index.follower.puller("alpha")
        assert puller is not None and puller._link is not None
        link, noting = puller._link, puller._noting
        ask, asked, go_on = link.ask, anyio.Event(), anyio.Event()

        async def slowly(request: Request) -> Result:
            answer = await ask(request)
            if isinstance(request, ReadSession) and not asked.is_set():
                asked.set()
                await go_on.wait()
            return answer

        monkeypatch.setattr(link, "ask", slowly)
        worker.write("one", message(1, "second"))
        await asked.wait()
        worker.remove("one")
        await until(lambda: not noting.known, "it is gone")
        worker.write("one", message(0, "anew"))
        await until(lambda: noting.known, "it is back")
        go_on.set()
        await index.settled()
        assert [each.blocks for each in await index.messages("one")] == [[Text(text="anew")]]
