"""What a session is doing is what its worker said last, whatever is read of it meanwhile."""

from typing import Any

import anyio
import pytest

from controlplane.sessions import pages
from protocol.sessions import SessionStatus
from protocol.worker import ReadSession, Request, Result
from tests.fakes import worker as fake
from tests.fakes.worker import FakeWorker, message
from tests.unit.sessions.conftest import Index, until


async def is_idle(index: Index) -> bool:
    return [info.status for info in await index.all()] == [SessionStatus.IDLE]


async def ends(index: Index, worker: FakeWorker) -> None:
    """The agent's process ends, and that is known. Its file stays as it is, and so its mark does."""
    session = worker.sessions["claude", "one"]
    if session.status is SessionStatus.BUSY:
        session.status = SessionStatus.IDLE
        worker.tell(worker._seen(session))
        await until(lambda: is_idle(index), "the end is told")


@pytest.mark.parametrize("while_", ["asked for", "prepared"])
async def test_an_agent_that_ends_while_its_last_page_is_read_is_idle(
    index: Index, monkeypatch: pytest.MonkeyPatch, while_: str
) -> None:
    worker = index.worker()
    ask, prepared = fake._Link.ask, pages.prepared

    async def ask_slowly(link: fake._Link, request: Request) -> Result:
        page = await ask(link, request)
        if isinstance(request, ReadSession):
            await ends(index, worker)
        return page

    def prepared_slowly(*given: Any) -> Any:
        anyio.from_thread.run(ends, index, worker)
        return prepared(*given)

    if while_ == "asked for":
        monkeypatch.setattr(fake._Link, "ask", ask_slowly)
    else:
        monkeypatch.setattr(pages, "prepared", prepared_slowly)
    worker.write("one", message(0, "All is done."))
    worker.sessions["claude", "one"].status = SessionStatus.BUSY
    async with index.followed():
        await index.settled()
        assert await is_idle(index)
