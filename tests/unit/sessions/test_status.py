"""What a session is doing is what its worker said last, whatever is read of it meanwhile."""

import pytest

from protocol.sessions import SessionStatus
from protocol.worker import ReadSession, Request, Result
from tests.fakes import worker as fake
from tests.fakes.worker import message
from tests.unit.sessions.conftest import Index, until


async def test_an_agent_that_ends_while_its_last_page_is_read_is_idle(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = index.worker()
    ask = fake._Link.ask

    async def is_idle() -> bool:
        return [info.status for info in await index.all()] == [SessionStatus.IDLE]

    async def ask_slowly(link: fake._Link, request: Request) -> Result:
        page = await ask(link, request)
        session = worker.sessions["claude", "one"]
        if isinstance(request, ReadSession) and session.status is SessionStatus.BUSY:
            # Its process ends; its file stays as it is, so its mark does too.
            session.status = SessionStatus.IDLE
            worker.tell(worker._seen(session))
            await until(is_idle, "the end is told")
        return page

    monkeypatch.setattr(fake._Link, "ask", ask_slowly)
    worker.write("one", message(0, "All is done."))
    worker.sessions["claude", "one"].status = SessionStatus.BUSY
    async with index.followed():
        await index.settled()
        assert await is_idle()
