"""The worker's end of the stream, on a real socket, spoken to frame by frame."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from protocol.worker import FRAME_LIMIT, PROTOCOL, Ask, Follow, Page, ReadSession, ReadStatus, SessionFacts
from tests.unit.worker.shelf import SECRET, Served, Shelf, raw

pytestmark = pytest.mark.anyio

HEADERS = {"Authorization": f"Bearer {SECRET}"}


class Case:
    def __init__(self, shelf: Shelf, served: Served, address: str) -> None:
        self.shelf, self.served, self.address = shelf, served, address

    def dial(self, headers: dict[str, str] | None = None, path: str = "/v1/stream") -> connect:
        headers = HEADERS if headers is None else headers
        url = f"ws://{self.address}{path}"
        return connect(url, additional_headers=headers, compression=None, proxy=None, max_size=None)


@pytest.fixture
async def case(tmp_path: Path) -> AsyncIterator[Case]:
    shelf = Shelf()
    served = Served(tmp_path, shelf, ring=8)
    async with served.running() as address:
        yield Case(shelf, served, address)


async def said(connection: ClientConnection) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(await asyncio.wait_for(connection.recv(), 10))
    return frame


async def begun(connection: ClientConnection, epoch: str | None = None, after: int | None = None) -> dict[str, Any]:
    await connection.send(raw(Follow(version="1", protocol=PROTOCOL, epoch=epoch, after=after)))
    return await said(connection)


async def closed(connection: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            await asyncio.wait_for(connection.recv(), 10)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


async def test_hello_then_all_that_stands_then_what_changes(case: Case) -> None:
    case.shelf.put("a", "1")
    case.shelf.put("b", "1")
    async with case.dial() as stream:
        hello = await begun(stream)
        assert (hello["type"], hello["protocol"], hello["seq"], hello["resumed"]) == ("hello", PROTOCOL, 2, False)
        assert [(await said(stream))["sessionId"] for _ in range(2)] == ["a", "b"]
        assert await said(stream) == {"type": "snapshotEnd", "seq": 2}
        case.shelf.put("a", "2")
        assert (await said(stream))["mark"] == "2"
        case.shelf.remove("b")
        assert await said(stream) == {"type": "sessionGone", "seq": 4, "agent": "claude", "sessionId": "b"}


async def test_one_that_was_away_goes_on_where_it_was(case: Case) -> None:
    case.shelf.put("a", "1")
    case.shelf.put("b", "1")
    async with case.dial() as stream:
        epoch = (await begun(stream))["epoch"]
    case.shelf.put("b", "2")
    async with case.dial() as stream:
        hello = await begun(stream, epoch, 2)
        assert hello["resumed"] and hello["epoch"] == epoch
        assert (await said(stream))["mark"] == "2"


@pytest.mark.parametrize("change", ["another epoch", "forgotten", "from the future"])
async def test_one_that_cannot_go_on_hears_everything(case: Case, change: str) -> None:
    case.shelf.put("a", "1")
    epoch, after = case.served.journal.epoch, 1
    if change == "another epoch":
        epoch = "other"
    elif change == "from the future":
        after = 7
    else:
        for number in range(20):
            case.shelf.put(f"s{number}", "1")
    async with case.dial() as stream:
        assert (await begun(stream, epoch, after))["resumed"] is False
        told = [await said(stream) for _ in range(len(case.shelf.marks) + 1)]
    assert {each.get("sessionId") for each in told[:-1]} == set(case.shelf.marks)
    assert told[-1]["type"] == "snapshotEnd"


async def test_nothing_is_taken_for_gone_before_everything_was_looked_at(case: Case) -> None:
    case.shelf.ready.clear()
    async with case.dial() as stream:
        assert (await begun(stream))["type"] == "hello"
        silence = asyncio.create_task(said(stream))
        await asyncio.sleep(0.05)
        assert not silence.done()
        case.shelf.put("a", "1")
        case.shelf.ready.set()
        assert (await silence)["sessionId"] == "a"
        assert (await said(stream))["type"] == "snapshotEnd"


async def test_a_session_that_changes_all_the_time_is_told_as_often_as_it_is_heard(case: Case) -> None:
    async with case.dial() as stream:
        await begun(stream)
        await said(stream)
        for mark in range(5000):
            case.shelf.put("a", str(mark))
            if mark % 100 == 0:
                await asyncio.sleep(0)
        told = [await said(stream)]
        while told[-1]["mark"] != "4999":
            told.append(await said(stream))
    assert len(told) < 500


async def test_each_has_its_own_place(case: Case) -> None:
    async with case.dial() as one, case.dial() as other:
        for stream in (one, other):
            await begun(stream)
            await said(stream)
        case.shelf.put("a", "1")
        assert await said(one) == await said(other)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {SECRET[:-1]}t"},
        {"Authorization": SECRET},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer \xff\xfe"},
    ],
)
async def test_without_the_secret_nobody_gets_in(case: Case, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with case.dial(headers):
            pass
    assert caught.value.response.status_code == 401


async def test_the_secret_is_the_files_as_it_is_now(case: Case) -> None:
    case.served.secret_file.write_text("another\n")
    with pytest.raises(InvalidStatus, match="401"):
        async with case.dial():
            pass
    async with case.dial({"Authorization": "Bearer another"}) as stream:
        assert (await begun(stream))["type"] == "hello"
    for content in ("", " \n"):
        case.served.secret_file.write_text(content)
        with pytest.raises(InvalidStatus, match="401"):
            async with case.dial({"Authorization": "Bearer"}):
                pass
    case.served.secret_file.unlink()
    with pytest.raises(InvalidStatus, match="503"):
        async with case.dial():
            pass


async def test_there_is_nothing_else(case: Case) -> None:
    for path in ("/", "/v1/stream/", "/v1/stream?x=1", "/metrics"):
        with pytest.raises(InvalidStatus, match="404"):
            async with case.dial(path=path):
                pass


async def test_questions_are_answered_beside_each_other_and_refusals_are_answers(case: Case) -> None:
    case.shelf.put("a", "1")
    slow = asyncio.Event()
    quick = case.shelf.answer

    async def answer(request: ReadSession) -> Page:
        if request.cursor == "slow":
            await slow.wait()
        if request.cursor == "bug":
            raise ZeroDivisionError
        return await quick(request)

    case.shelf.answer = answer
    async with case.dial() as stream:
        await begun(stream)
        for _ in range(2):
            await said(stream)
        await stream.send(raw(Ask(id=1, request=ReadSession(agent="claude", session_id="a", cursor="slow"))))
        await stream.send(raw(Ask(id=2, request=ReadSession(agent="claude", session_id="a"))))
        assert (await said(stream))["id"] == 2
        await stream.send(raw(Ask(id=3, request=ReadSession(agent="claude", session_id="b"))))
        assert (await said(stream))["result"]["code"] == "missing"
        await stream.send(raw(Ask(id=4, request=ReadSession(agent="claude", session_id="a", cursor="bug"))))
        assert (await said(stream))["result"]["code"] == "failed"
        await stream.send(raw(Ask(id=5, request=ReadStatus())))
        assert (await said(stream))["result"]["code"] == "unknown"
        await stream.send('{"type":"ask","id":6,"request":{"kind":"ofTheFuture"}}')
        refused = await said(stream)
        assert (refused["id"], refused["result"]["code"]) == (6, "unknown")
        await stream.send('{"type":"ofTheFuture"}')
        slow.set()
        assert (await said(stream))["id"] == 1


async def test_an_answer_that_is_too_large_is_a_refusal(case: Case) -> None:
    async def answer(request: ReadSession) -> Page:
        return Page(messages=[], facts=SessionFacts(title="x" * FRAME_LIMIT), cursor="", mark="", more=False)

    case.shelf.answer = answer
    async with case.dial() as stream:
        await begun(stream)
        await said(stream)
        await stream.send(raw(Ask(id=1, request=ReadSession(agent="claude", session_id="a"))))
        assert (await said(stream))["result"]["code"] == "failed"


@pytest.mark.parametrize("frame", ["", "{}", "[]", "nonsense", b"\xff", '{"type":"ask","id":1}', "{" * 10_000])
async def test_what_is_no_frame_at_first_ends_the_conversation(case: Case, frame: str | bytes) -> None:
    async with case.dial() as stream:
        await stream.send(frame)
        assert (await closed(stream))[0] == 1008


@pytest.mark.parametrize("frame", ["", "[1]", "nonsense", b"\xff\xfe", "[" * 100_000])
async def test_what_is_no_frame_later_ends_it_too(case: Case, frame: str | bytes) -> None:
    async with case.dial() as stream:
        await begun(stream)
        await stream.send(frame)
        assert (await closed(stream))[0] == 1008


async def test_a_frame_that_is_too_large_ends_the_conversation(case: Case) -> None:
    # Not left by a block: a websockets that is shut while it sends stumbles over its own transport.
    stream = await case.dial()
    await begun(stream)
    await stream.send("x" * (FRAME_LIMIT + 1))
    assert (await closed(stream))[0] == 1009


async def test_there_is_a_bound_on_conversations(case: Case) -> None:
    streams = [await case.dial() for _ in range(8)]
    for stream in streams:
        await begun(stream)
    async with case.dial() as one_more:
        assert (await closed(one_more))[0] == 1013
    for stream in streams:
        await stream.close()
    async with case.dial() as stream:
        assert (await begun(stream))["type"] == "hello"
