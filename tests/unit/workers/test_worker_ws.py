"""The control plane's end of the stream, against whatever may be at the other."""

import json

import anyio
import pytest
from websockets.asyncio.server import ServerConnection

from controlplane.adapters import worker_ws
from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.errors import WorkerBroke, WorkerError, WorkerRefusesSecret, WorkerUnavailable
from protocol.worker import FRAME_LIMIT, ReadSession, ReadStatus
from tests.unit.workers.hostile import HELLO, hostile, saying

pytestmark = pytest.mark.anyio

WORKERS = WebSocketWorkers("1")
READ = ReadSession(agent="claude", session_id="a")


def session(seq: int, **fields: object) -> str:
    told = {"type": "session", "seq": seq, "agent": "claude", "sessionId": "a", "mark": "1", "status": "idle"}
    return json.dumps({**told, **fields})


END = '{"type":"snapshotEnd","seq":1}'


async def ended(address: str) -> WorkerError:
    """Listen until the stream ends, and how."""
    with anyio.fail_after(20), pytest.raises(WorkerError) as caught:
        async with WORKERS.dial(address, "s") as link:
            async for _ in link.events():
                pass
    return caught.value


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff\xff",
        "",
        "[]",
        "null",
        "{}",
        "{" * 100_000,
        "[" * 100_000,
        '{"type":5}',
        '{"type":"session"}',
        session(1, agent="x" * 33),
        session(1, sessionId="x" * 257),
        session(1, mark=5),
        session(1 << 60),
        session(-1),
        session(1, lastActivity="yesterday"),
        session(1, lastActivity="2026-01-01T00:00:00"),
        '{"type":"task","seq":1}',
        '{"type":"wake","seq":1,"id":"a","text":"' + "x" * 70_000 + '","mode":"now","at":"2026-01-01T00:00:00Z"}',
        HELLO,
        '{"type":"sessionGone","seq":0,"agent":"claude","sessionId":7}',
    ],
)
async def test_what_is_out_of_bounds_ends_the_stream(frame: str | bytes) -> None:
    async with hostile(saying(HELLO, frame)) as address:
        assert isinstance(await ended(address), WorkerBroke)


@pytest.mark.parametrize(
    "first",
    [
        "{}",
        b"\x00",
        END,
        HELLO.replace('"e"', '""'),
        HELLO.replace('"e"', '"' + "e" * 65 + '"'),
        HELLO.replace("false", "true"),
        "x" * (FRAME_LIMIT + 1),
    ],
)
async def test_what_is_no_hello_is_not_listened_to(first: str | bytes) -> None:
    async with hostile(saying(first)) as address:
        assert isinstance(await ended(address), WorkerBroke | WorkerUnavailable)


async def test_a_worker_of_another_protocol_is_named_and_not_followed() -> None:
    async with hostile(saying(HELLO.replace('"protocol":1', '"protocol":2'))) as address:
        error = await ended(address)
    assert not isinstance(error, WorkerBroke) and "version 2 of the protocol" in error.message


async def test_a_frame_that_is_too_large_ends_the_stream() -> None:
    async with hostile(saying(HELLO, "x" * (FRAME_LIMIT + 1))) as address:
        assert isinstance(await ended(address), WorkerBroke)


async def test_numbers_that_go_back_end_the_stream() -> None:
    async with hostile(saying(HELLO, session(5), session(4))) as address:
        assert isinstance(await ended(address), WorkerBroke)


async def test_a_second_end_of_the_snapshot_ends_the_stream() -> None:
    async with hostile(saying(HELLO, END, END)) as address:
        assert isinstance(await ended(address), WorkerBroke)


async def test_sessions_without_number_end_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_ws, "SNAPSHOT_LIMIT", 100)
    frames = [session(0, sessionId=str(number)) for number in range(102)]
    async with hostile(saying(HELLO, *frames)) as address:
        assert isinstance(await ended(address), WorkerBroke)


async def test_what_a_newer_worker_adds_is_passed_over() -> None:
    frames = ['{"type":"weather","seq":1,"sun":true}', session(1, status="dreaming", colour="red"), END]
    async with hostile(saying(HELLO, *frames)) as address, WORKERS.dial(address, "s") as link:
        events = link.events()
        told = await anext(events)
        assert getattr(told, "status", None) == "dreaming"


async def test_while_nobody_reads_the_worker_waits() -> None:
    sent = 0

    async def talk(connection: ServerConnection) -> None:
        nonlocal sent
        await connection.send(HELLO)
        await connection.send(END)
        while True:
            await connection.send(session(1 + sent, mark="m" * 200))
            sent += 1

    async with hostile(talk) as address, WORKERS.dial(address, "s") as link:
        before = -1
        with anyio.fail_after(20):
            while sent != before or sent == 0:
                before = sent
                await anyio.sleep(0.3)
        assert 0 < sent < 100_000
        events = link.events()
        for _ in range(1000):
            await anext(events)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ('{"type":"answer","id":1,"result":{"kind":"done"}}', WorkerBroke),
        ('{"type":"answer","id":1,"result":{"kind":"poem"}}', WorkerBroke),
        ('{"type":"answer","id":1,"result":{"kind":"page"}}', WorkerBroke),
        ('{"type":"answer","id":1,"result":{"kind":"refused","code":"missing","message":"No."}}', WorkerError),
    ],
)
async def test_an_answer_that_is_none_fails_its_question_alone(answer: str, kind: type[WorkerError]) -> None:
    async def behave(connection: ServerConnection) -> None:
        await connection.send(HELLO)
        async for frame in connection:
            id_ = json.loads(frame)["id"]
            await connection.send('{"type":"answer","id":99,"result":{"kind":"done"}}')
            if id_ == 1:
                await connection.send(answer)
            else:
                status = {"kind": "status", "version": "1", "uptime": 1, "memory": 1, "watching": True, "agents": []}
                await connection.send(json.dumps({"type": "answer", "id": id_, "result": status}))

    async with hostile(behave) as address, WORKERS.dial(address, "s") as link:
        with anyio.fail_after(20):
            with pytest.raises(kind):
                await link.ask(READ)
            assert (await link.ask(ReadStatus())).version == "1"  # type: ignore[union-attr]


async def test_who_waits_for_an_answer_hears_that_the_stream_broke() -> None:
    async def behave(connection: ServerConnection) -> None:
        await connection.send(HELLO)
        await connection.recv()
        connection.transport.abort()

    async with hostile(behave) as address, WORKERS.dial(address, "s") as link:
        with anyio.fail_after(20):
            for _ in range(2):
                with pytest.raises(WorkerUnavailable):
                    await link.ask(READ)


async def test_a_worker_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_ws, "DIAL_SECONDS", 0.2)
    monkeypatch.setattr(worker_ws, "ANSWER_SECONDS", 0.2)
    async with hostile(saying()) as address:
        assert isinstance(await ended(address), WorkerUnavailable)
    async with hostile(saying(HELLO)) as address, WORKERS.dial(address, "s") as link:
        with anyio.fail_after(20), pytest.raises(WorkerError, match="in time"):
            await link.ask(READ)


async def test_nobody_there_and_no_worker_there() -> None:
    async with hostile(saying(HELLO)) as address:
        pass
    assert isinstance(await ended(address), WorkerUnavailable)

    async def web(reader: anyio.abc.ByteStream) -> None:
        async with reader:
            await reader.receive()
            await reader.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, web)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        error = await ended(f"127.0.0.1:{port}")
        tasks.cancel_scope.cancel()
    assert not isinstance(error, WorkerRefusesSecret | WorkerBroke)


async def test_what_fails_in_the_block_comes_out_as_itself() -> None:
    async with hostile(saying(HELLO)) as address:
        with pytest.raises(KeyError):
            async with WORKERS.dial(address, "s"):
                raise KeyError
