"""A wake as state.db has it. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec

from controlplane.wake.message import delivered_text
from protocol.wake import TEXT_LIMIT, SessionTarget, Wake, WakeMode, WakeState, WakeWay

FIELDS: Final = (
    "number, id, lane, workspace, task, mode, session, gateway, state, created, since, next, settled, attempts, "
    "status, answer, way, sent"
)
"""What is selected of a wake, and ``text`` besides."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A wake as state.db has it; ``text`` may be its beginning only."""

    number: int
    id: str
    lane: str
    text: str
    mode: str
    gateway: str
    state: WakeState
    created: datetime
    since: datetime
    attempts: int
    workspace: str | None = None
    task: str | None = None
    next: datetime | None = None
    settled: datetime | None = None
    status: int | None = None
    answer: str | None = None
    way: WakeWay | None = None
    session: SessionTarget = SessionTarget.MAIN
    sent: int | None = None
    """The first number of the request that it was sent in, while that may have arrived and nobody knows. The same wakes
    go again then, in the same words."""

    @property
    def isolated(self) -> bool:
        """Whether the assistant is to take it up in a session of its own."""
        return self.session is SessionTarget.ISOLATED

    @property
    def only_once(self) -> bool:
        """A test: it stands in no lane with others, and is not tried again by itself."""
        return self.lane == self.id

    @property
    def whole_text(self) -> str:
        """What an assistant reads, of a record with all of its text."""
        return delivered_text(self.id, self.text, self.workspace, self.task)

    def shown(self) -> Wake:
        return Wake(
            id=self.id,
            state=self.state,
            text=self.text,
            mode=self.mode,
            created=self.created,
            gateway=self.gateway,
            attempts=self.attempts,
            workspace=self.workspace,
            task=self.task,
            next=self.next,
            settled=self.settled,
            answer=self.answer,
            way=self.way,
            session=self.session if self.isolated else None,
        )


def in_one_request(records: Sequence[Record], most: int) -> list[Record]:
    """Those that may go in one request with the first: into the assistant's main session, and with no more text than
    one wake may have. One that may not waits, and what follows it in its lane; the other lanes go on."""
    chosen, size = [records[0]], len(records[0].whole_text.encode())
    held: set[str] = set()
    for record in records[1:]:
        if records[0].isolated or len(chosen) >= most:
            break
        more = len(record.whole_text.encode()) + 1
        if record.lane in held or record.isolated or size + more > TEXT_LIMIT:
            held.add(record.lane)
        else:
            chosen.append(record)
            size += more
    return chosen


class Row(Protocol):
    """What a query gives, by the names of columns."""

    def __getitem__(self, column: str, /) -> Any: ...


def record_of(row: Row) -> Record:
    return Record(
        number=row["number"],
        id=row["id"],
        lane=row["lane"],
        text=row["text"],
        mode=WakeMode(row["mode"]),
        gateway=row["gateway"],
        state=WakeState(row["state"]),
        created=time_of(row["created"]),
        since=time_of(row["since"]),
        attempts=row["attempts"],
        workspace=row["workspace"],
        task=row["task"],
        next=maybe_time(row["next"]),
        settled=maybe_time(row["settled"]),
        status=row["status"],
        answer=row["answer"],
        way=maybe_way(row["way"]),
        session=SessionTarget(row["session"]),
        sent=row["sent"],
    )


def maybe_way(text: str | None) -> WakeWay | None:
    return None if text is None else WakeWay(text)


def number_of(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def time_of(number: int) -> datetime:
    return datetime.fromtimestamp(number / 1000, UTC)


def maybe_time(number: int | None) -> datetime | None:
    return None if number is None else time_of(number)
