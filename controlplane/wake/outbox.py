"""Wakes in state.db: taken for good with one commit for all that come at once, and kept until long after delivery."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import anyio
import msgspec

from controlplane.db import Database
from controlplane.wake.gathering import Gathering
from controlplane.wake.message import Message, bounded
from controlplane.wake.record import FIELDS, Record, maybe_time, maybe_way, number_of, record_of, time_of
from controlplane.wake.verdict import PATIENCE, Verdict
from protocol.wake import WakeAttempt, WakeState

SHOWN: Final = 2000
"""Bytes of a text that lists show."""

KEPT: Final = timedelta(days=30)
KEPT_COUNT: Final = 20_000
KEPT_OF_WORKSPACE: Final = 2_000
"""How long a settled wake is kept, how many of them, and how many that one workspace had a part in."""

ATTEMPTS_KEPT: Final = 50
"""The latest attempts of each wake."""

Ended = tuple[Record, WakeState, Verdict, datetime | None]
"""A wake after an attempt: what follows, what came of it, and when it is tried again, where it is."""

_OPEN: Final = "settled IS NULL"


class Outbox:
    """The tables ``wakes`` and ``wake_attempts``. ``arrived`` hears of each new wake, in order, when it is safe."""

    def __init__(self, database: Database, arrived: Callable[[Record], None], now: Callable[[], datetime]) -> None:
        self._db = database
        self._arrived = arrived
        self._now = now
        self._gathering = Gathering(self._commit)
        self._watched: dict[str, anyio.Event] = {}
        self._open: Counter[str] = Counter(
            {row["workspace"] or "": row["n"] for row in self._open_counts()},
        )

    # --- what comes in

    async def add(self, message: Message, gateway: str) -> None:
        """Returns when the wake is on the disk. One whose id is known already is that wake, and changes nothing.

        Those that come at once have one commit. Cancelled or not, what was given is kept.
        """
        await self._gathering.add((message, gateway))

    def _commit(self, given: list[tuple[Message, str]]) -> None:
        added: list[Record] = []
        with self._db.transaction():
            for message, gateway in given:
                added += self._insert(message, gateway)
        for record in added:
            self._open[record.workspace or ""] += 1
            self._arrived(record)

    def _insert(self, message: Message, gateway: str) -> list[Record]:
        now = number_of(self._now())
        lane = message.workspace or "" if message.lane is None else message.lane
        rows = self._db.rows(
            "INSERT INTO wakes (id, lane, workspace, task, text, mode, session, gateway, state, created, since) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued', ?, ?) ON CONFLICT (id) DO NOTHING RETURNING {FIELDS}, text",
            (
                message.id,
                lane,
                message.workspace,
                message.task,
                message.text,
                message.mode,
                message.session,
                gateway,
                now,
                now,
            ),
        )
        return [record_of(row) for row in rows]

    def open_of(self, workspace: str | None) -> int:
        """How many wakes of a workspace wait."""
        return self._open[workspace or ""]

    @property
    def open(self) -> int:
        """How many wakes wait."""
        return self._open.total()

    # --- what is asked of it

    def get(self, id_: str) -> Record | None:
        """With all of its text."""
        return self._one("id = ?", id_)

    def by_number(self, number: int) -> Record | None:
        """With all of its text."""
        return self._one("number = ?", number)

    def texts(self, numbers: Sequence[int]) -> list[Record]:
        """Those of these wakes that are not settled, in their order, with all of their texts."""
        marks = ", ".join("?" for _ in numbers)
        rows = self._db.rows(
            f"SELECT {FIELDS}, text FROM wakes WHERE {_OPEN} AND number IN ({marks}) ORDER BY number", tuple(numbers)
        )
        return [record_of(row) for row in rows]

    def taken_since(self, gateway: str, after: datetime) -> list[datetime]:
        """When the requests began that a gateway has taken after a moment."""
        rows = self._db.rows(
            "SELECT DISTINCT began FROM wake_attempts WHERE gateway = ? AND began > ? AND status BETWEEN 200 AND 299 "
            "ORDER BY began",
            (gateway, number_of(after)),
        )
        return [time_of(row["began"]) for row in rows]

    def page(self, *, workspace: str | None, state: str | None, before: int | None, limit: int) -> list[Record]:
        """The newest first, with the beginning of their texts."""
        wheres = {"workspace = ?": workspace, "state = ?": state, "number < ?": before}
        given = {where: value for where, value in wheres.items() if value is not None}
        where = " AND ".join(given) or "1"
        rows = self._db.rows(
            f"SELECT {FIELDS}, substr(text, 1, {SHOWN}) AS text FROM wakes WHERE {where} "
            f"ORDER BY number DESC LIMIT {limit:d}",
            tuple(given.values()),
        )
        return [msgspec.structs.replace(record, text=bounded(record.text, SHOWN)) for record in map(record_of, rows)]

    def attempts(self, record: Record) -> list[WakeAttempt]:
        """The latest, the oldest of them first."""
        rows = self._db.rows("SELECT * FROM wake_attempts WHERE wake = ? ORDER BY attempt", (record.number,))
        return [
            WakeAttempt(
                gateway=row["gateway"],
                began=time_of(row["began"]),
                ended=maybe_time(row["ended"]),
                status=row["status"],
                answer=row["answer"],
                way=maybe_way(row["way"]),
            )
            for row in rows
        ]

    def recover(self) -> list[Record]:
        """Everything that is not settled, in order and without text, for a forwarder that begins."""
        rows = self._db.rows(f"SELECT {FIELDS}, '' AS text FROM wakes WHERE {_OPEN} ORDER BY number")
        self._db.run("UPDATE wakes SET state = 'queued' WHERE state = 'delivering'")
        return [record_of(row) for row in rows]

    # --- what happens to wakes

    def reassign(self, names: Iterable[str], default: str) -> None:
        """Give what waits for a gateway that is not among ``names`` to another."""
        known = list(names)
        marks = ", ".join("?" for _ in known)
        self._db.run(
            f"UPDATE wakes SET gateway = ?, sent = NULL WHERE {_OPEN} AND gateway NOT IN ({marks})", (default, *known)
        )

    def begin(self, numbers: Sequence[int]) -> list[Record]:
        """Note an attempt, in one request for all of them, before it is made. In their order, with all of their texts,
        and without those that are settled."""
        now = number_of(self._now())
        records = []
        with self._db.transaction():
            for number in sorted(numbers):
                rows = self._db.rows(
                    "UPDATE wakes SET state = 'delivering', attempts = attempts + 1, next = NULL, sent = ? "
                    f"WHERE number = ? AND {_OPEN} RETURNING {FIELDS}, text",
                    (min(numbers), number),
                )
                records += [record_of(row) for row in rows]
            for record in records:
                self._db.run(
                    "INSERT INTO wake_attempts (wake, attempt, gateway, began) VALUES (?, ?, ?, ?)",
                    (record.number, record.attempts, record.gateway, now),
                )
                self._db.run(
                    "DELETE FROM wake_attempts WHERE wake = ? AND attempt <= ?",
                    (record.number, record.attempts - ATTEMPTS_KEPT),
                )
        return records

    def end(self, ended: Sequence[Ended], *, in_doubt: bool = False) -> None:
        """Note how an attempt ended for each of its wakes, and what follows. ``in_doubt``: it, or an earlier one, may
        have arrived."""
        now = number_of(self._now())
        beside = f" (with {len(ended) - 1} more at once)" if len(ended) > 1 else ""
        settled = []
        with self._db.transaction():
            for record, state, verdict, again in ended:
                open_, answer = state is WakeState.QUEUED, verdict.answer + beside
                self._db.run(
                    "UPDATE wake_attempts SET ended = ?, status = ?, answer = ?, way = ? "
                    "WHERE wake = ? AND attempt = ?",
                    (now, verdict.status, answer, verdict.way, record.number, record.attempts),
                )
                self._db.run(
                    "UPDATE wakes SET state = ?, settled = ?, next = ?, status = ?, answer = ?, way = ?, "
                    "sent = CASE WHEN ? THEN sent END WHERE number = ?",
                    (
                        state,
                        None if open_ else now,
                        again and number_of(again),
                        verdict.status,
                        answer,
                        verdict.way,
                        open_ and in_doubt,
                        record.number,
                    ),
                )
                if not open_:
                    settled.append(record)
        for record in settled:
            self._open[record.workspace or ""] -= 1
            self._tell(record.id)

    def settle(self, record: Record, state: WakeState, answer: str) -> None:
        """End a wake without an attempt."""
        changed = self._db.run(
            f"UPDATE wakes SET state = ?, settled = ?, next = NULL, answer = ? WHERE number = ? AND {_OPEN}",
            (state, number_of(self._now()), answer, record.number),
        )
        self._open[record.workspace or ""] -= changed
        self._tell(record.id)

    def settled(self, id_: str) -> anyio.Event:
        """Is set when the wake of this id is settled from now on."""
        return self._watched.setdefault(id_, anyio.Event())

    def _tell(self, id_: str) -> None:
        if (event := self._watched.pop(id_, None)) is not None:
            event.set()

    def reopen(self, where: str, values: Iterable[Any] = (), *, gateways: Iterable[str], default: str) -> list[Record]:
        """Try settled wakes again that a condition holds for; delivered ones stay so."""
        known = list(gateways)
        marks = ", ".join("?" for _ in known)
        rows = self._db.rows(
            f"UPDATE wakes SET state = 'queued', since = ?, next = NULL, settled = NULL, "
            f"gateway = CASE WHEN gateway IN ({marks}) THEN gateway ELSE ? END "
            f"WHERE state IN ('rejected', 'dead') AND lane <> id AND {where} RETURNING {FIELDS}, '' AS text",
            (number_of(self._now()), *known, default, *values),
        )
        records = sorted(map(record_of, rows), key=lambda record: record.number)
        for record in records:
            self._open[record.workspace or ""] += 1
            self._arrived(record)
        return records

    def lost(self, after: datetime) -> int:
        """How many wakes were given up, or refused for good, after a moment; tests of gateways are none of them."""
        rows = self._db.rows(
            "SELECT count(*) AS n FROM wakes WHERE settled > ? AND state IN ('rejected', 'dead') AND lane <> id",
            (number_of(after),),
        )
        return int(rows[0]["n"])

    def give_up(self, answer: str, *, patience: timedelta = PATIENCE) -> int:
        """Declare dead what has waited for too long; it is said of each."""
        now = self._now()
        changed = self._db.run(
            "UPDATE wakes SET state = 'dead', settled = ?, next = NULL, answer = coalesce(answer, ?) "
            f"WHERE {_OPEN} AND state = 'queued' AND since < ?",
            (number_of(now), answer, number_of(now - patience)),
        )
        if changed:
            self._open = Counter({row["workspace"] or "": row["n"] for row in self._open_counts()})
        return changed

    def forget_old(self) -> None:
        """Delete what was settled long ago, and what is too much."""
        self._db.run("DELETE FROM wakes WHERE settled < ?", (number_of(self._now() - KEPT),))
        self._db.run(
            "DELETE FROM wakes WHERE settled IS NOT NULL AND number <= "
            f"(SELECT number FROM wakes WHERE settled IS NOT NULL ORDER BY number DESC LIMIT 1 OFFSET {KEPT_COUNT})"
        )

        # One that wakes without end takes neither the disk nor the others' place.
        self._db.run(
            "DELETE FROM wakes WHERE number IN (SELECT number FROM (SELECT number, row_number() OVER "
            "(PARTITION BY workspace ORDER BY number DESC) AS place FROM wakes "
            f"WHERE settled IS NOT NULL AND workspace IS NOT NULL) WHERE place > {KEPT_OF_WORKSPACE})"
        )

    def _open_counts(self) -> list[sqlite3.Row]:
        return self._db.rows(f"SELECT workspace, count(*) AS n FROM wakes WHERE {_OPEN} GROUP BY workspace")

    def _one(self, where: str, value: object) -> Record | None:
        rows = self._db.rows(f"SELECT {FIELDS}, text FROM wakes WHERE {where}", (value,))
        return record_of(rows[0]) if rows else None
