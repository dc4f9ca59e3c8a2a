"""The port :class:`~controlplane.ports.Workers` over WebSockets. What comes in is bounded, checked, and else dropped.

A worker may be whatever runs in a workspace under its port: it can send what it likes, and never more than it is read.
"""

import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import get_args

import anyio
import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from controlplane.adapters.reading_pace import ReadingPace
from controlplane.errors import WorkerBroke, WorkerError, WorkerRefusesSecret, WorkerUnavailable
from protocol.worker import (
    FRAME_LIMIT,
    PROTOCOL,
    SESSIONS_LIMIT,
    STREAM_PATH,
    WORKER_PORT,
    Answer,
    Ask,
    Done,
    Event,
    Follow,
    FromWorker,
    Hello,
    LookAtTask,
    Page,
    Pages,
    ReadOutcome,
    ReadSession,
    ReadSessions,
    ReadStatus,
    ReadTaskLog,
    Refused,
    Request,
    Result,
    SnapshotEnd,
    TaskLog,
    TaskLook,
    TaskOutcome,
    WorkerStatus,
)

DIAL_SECONDS = 5.0
ANSWER_SECONDS = 150.0
"""More than a worker gives itself."""

LIVELINESS_SECONDS = 20.0
ASKED_AT_ONCE = 64
EVENTS_AHEAD = 64
"""Events that are read before somebody takes them."""

SNAPSHOT_LIMIT = SESSIONS_LIMIT + 10_000
"""Events before the end of a snapshot: sessions, tasks and wakes."""

ANSWERS: dict[type[Request], type[Result]] = {
    ReadSession: Page,
    ReadSessions: Pages,
    ReadStatus: WorkerStatus,
    ReadTaskLog: TaskLog,
    ReadOutcome: TaskOutcome,
    LookAtTask: TaskLook,
}
"""What other requests are answered with is Done."""

KNOWN = frozenset(struct.__struct_config__.tag for struct in get_args(FromWorker))


class _Unread(msgspec.Struct):
    """A frame that does not decode, as far as it tells what it would be."""

    type: str
    id: int | None = None


class WebSocketWorkers:
    """``version`` is what workers are told of us."""

    def __init__(self, version: str) -> None:
        self._version = version

    @asynccontextmanager
    async def dial(
        self, address: str, secret: str, *, epoch: str | None = None, after: int | None = None
    ) -> AsyncIterator["WebSocketLink"]:
        """``address`` is a host, or ``host:port``."""
        where = address if ":" in address else f"{address}:{WORKER_PORT}"
        try:
            connection = await connect(
                f"ws://{where}{STREAM_PATH}",
                additional_headers={"Authorization": f"Bearer {secret}"},
                proxy=None,
                compression=None,
                max_size=FRAME_LIMIT,
                max_queue=4,
                open_timeout=DIAL_SECONDS,
                ping_interval=LIVELINESS_SECONDS,
                ping_timeout=LIVELINESS_SECONDS,
                close_timeout=1,
                user_agent_header=None,
                logger=logging.getLogger("controlplane.websockets"),
            )
        except InvalidStatus as exc:
            if exc.response.status_code == 401:
                raise WorkerRefusesSecret("The worker does not take this control plane's secret.") from None
            raise WorkerError(f"The worker let nobody in ({exc.response.status_code}).") from None
        except (OSError, TimeoutError, WebSocketException, ValueError, EOFError) as exc:
            raise WorkerUnavailable(f"No worker answers ({_why(exc)}).") from None
        link = WebSocketLink(connection)
        try:
            await link.begin(Follow(version=self._version, protocol=PROTOCOL, epoch=epoch, after=after))
            failed: Exception | None = None
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(link.read)
                try:
                    yield link
                except Exception as exc:
                    failed = exc  # Raised below: from here it would come out in a group.
                finally:
                    tasks.cancel_scope.cancel()
            if failed is not None:
                raise failed
        finally:
            link.drop()
            # Whatever closing stumbles over (in websockets 17.4 also its own transport), it is closed then.
            with anyio.CancelScope(shield=True), suppress(Exception):
                await connection.close()


class WebSocketLink:
    """The port :class:`~controlplane.ports.WorkerLink`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._hello: Hello | None = None
        self._decoder = msgspec.json.Decoder(FromWorker)
        self._unread = msgspec.json.Decoder(_Unread)
        self._put, self._take = anyio.create_memory_object_stream[Event](EVENTS_AHEAD)
        self._ids = itertools.count(1)
        self._asked: dict[int, Callable[[Result | WorkerError], None]] = {}
        self._turns = anyio.Semaphore(ASKED_AT_ONCE)
        self._end: WorkerError | None = None
        self._pace = ReadingPace(time.monotonic())
        self._seq = 0
        self._told = 0
        self._whole = False

    @property
    def hello(self) -> Hello:
        assert self._hello is not None
        return self._hello

    async def begin(self, follow: Follow) -> None:
        """Say what is followed, and hear Hello."""
        try:
            with anyio.fail_after(DIAL_SECONDS):
                await self._connection.send(msgspec.json.encode(follow), text=True)
                hello = self._decoder.decode(await self._connection.recv())
        except (TimeoutError, ConnectionClosed, OSError) as exc:
            raise WorkerUnavailable(f"The worker does not say hello ({_why(exc)}).") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise WorkerBroke(f"The worker's first frame is none ({exc}).") from None
        if not isinstance(hello, Hello) or not 0 < len(hello.epoch) <= 64 or not 0 < len(hello.version) <= 64:
            raise WorkerBroke("The worker's first frame is no hello.")
        if hello.protocol != PROTOCOL:
            raise WorkerError(
                f"The worker speaks version {hello.protocol} of the protocol, this control plane {PROTOCOL}."
            )
        if hello.resumed and (follow.epoch != hello.epoch or follow.after is None or hello.seq < follow.after):
            raise WorkerBroke("The worker goes on from where nobody was.")
        self._hello, self._whole = hello, hello.resumed
        self._seq = follow.after or 0 if hello.resumed else 0

    async def events(self) -> AsyncIterator[Event]:
        async for event in self._take:
            yield event
        raise self._end or WorkerUnavailable("The stream to the worker ended.")

    async def ask(self, request: Request) -> Result:
        async with self._turns:
            if self._end is not None:
                raise _again(self._end)
            answered = anyio.Event()
            answers: list[Result | WorkerError] = []
            id_ = next(self._ids)

            def take(answer: Result | WorkerError) -> None:
                answers.append(answer)
                answered.set()

            self._asked[id_] = take
            try:
                with anyio.fail_after(ANSWER_SECONDS):
                    await self._connection.send(msgspec.json.encode(Ask(id=id_, request=request)), text=True)
                    await answered.wait()
            except TimeoutError:
                raise WorkerError("The worker did not answer in time; ask again later.") from None
            except (ConnectionClosed, OSError) as exc:
                raise WorkerUnavailable(f"The stream to the worker broke ({_why(exc)}).") from None
            finally:
                self._asked.pop(id_, None)
        return _checked(request, answers[0])

    def drop(self) -> None:
        """Nobody reads or asks any more."""
        self._put.close()
        self._take.close()

    async def read(self) -> None:
        """Take in what comes, until the stream ends or what comes is out of bounds."""
        try:
            async for frame in self._connection:
                if not await self._receive(frame) and (wait := self._pace.take(time.monotonic(), len(frame))) > 0:
                    # The worker waits too: nobody reads what it sends.
                    await anyio.sleep(wait)
            self._finish(WorkerUnavailable("The worker ended the stream."))
        except (ConnectionClosed, OSError) as exc:
            too_big = isinstance(exc, ConnectionClosed) and exc.sent is not None and exc.sent.code in (1007, 1009)
            kind = WorkerBroke if too_big else WorkerUnavailable
            self._finish(kind(f"The stream to the worker broke ({_why(exc)})."))
        except WorkerError as exc:
            self._finish(exc)
        finally:
            # Also when it is cancelled: whoever waits for an answer must not wait for ever.
            self._finish(WorkerUnavailable("The stream to the worker was let go."))

    def _finish(self, end: WorkerError) -> None:
        if self._end is None:
            self._end = end
            self._put.close()
            for take in list(self._asked.values()):
                take(_again(end))

    async def _receive(self, frame: str | bytes) -> bool:
        """Whether it is what was asked for."""
        try:
            said = self._decoder.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return self._pass_over(frame, exc)
        if isinstance(said, Answer):
            take = self._asked.pop(said.id, None)
            if take is not None:
                take(said.result)
            return take is not None
        if isinstance(said, Hello):
            raise WorkerBroke("The worker said hello twice.")
        if not self._seq <= said.seq < 1 << 53:
            raise WorkerBroke("The worker's events are out of order.")
        self._seq = said.seq
        if not self._whole:
            self._told += 1
            self._whole = isinstance(said, SnapshotEnd)
            if self._told > SNAPSHOT_LIMIT:
                raise WorkerBroke(f"The worker tells of more than {SESSIONS_LIMIT} sessions.")
        elif isinstance(said, SnapshotEnd):
            raise WorkerBroke("The worker ended a snapshot that there was not.")
        await self._put.send(said)
        return False

    def _pass_over(self, frame: str | bytes, why: Exception) -> bool:
        """What a newer worker adds is passed over. An answer that is none fails its question, all else the stream."""
        try:
            unread = self._unread.decode(frame)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise WorkerBroke(f"The worker sent what is no frame ({why}).") from None
        if unread.type != "answer" or unread.id is None:
            if unread.type in KNOWN:
                raise WorkerBroke(f"The worker sent what is no {unread.type} ({why}).")
            return False
        take = self._asked.pop(unread.id, None)
        if take is not None:
            take(WorkerBroke(f"The worker's answer cannot be read ({why})."))
        return take is not None


def _checked(request: Request, answer: Result | WorkerError) -> Result:
    if isinstance(answer, WorkerError):
        raise answer
    if isinstance(answer, Refused):
        raise WorkerError(answer.message[:500] or "The worker refused.", data={"code": answer.code[:32]})
    if not isinstance(answer, ANSWERS.get(type(request), Done)):
        raise WorkerBroke("The worker answered something else than what was asked.")
    return answer


def _again(end: WorkerError) -> WorkerError:
    """The same for another who waits: an exception that is raised twice mixes up its tracebacks."""
    return type(end)(end.message)


def _why(exc: BaseException) -> str:
    if isinstance(exc, ConnectionClosed):
        closed = exc.rcvd or exc.sent
        return f"code {closed.code} {closed.reason[:100]}".strip() if closed else "it is gone"
    return getattr(exc, "strerror", None) or str(exc)[:200] or type(exc).__name__
