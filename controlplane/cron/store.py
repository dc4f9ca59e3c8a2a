"""Jobs and their runs, in state.db."""

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from controlplane.cron.actions import Action, Begun
from controlplane.cron.schedule import Schedule, following
from controlplane.db import Database
from controlplane.errors import PerryError

KEPT_RUNS: Final = 50
"""Runs that are kept of each job."""

KEPT_IN_ALL: Final = 50_000
"""Runs that are kept, those of jobs that are gone included."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

_schedules: msgspec.json.Decoder[Schedule] = msgspec.json.Decoder(Schedule)
_actions: msgspec.json.Decoder[Action] = msgspec.json.Decoder(Action)


class JobRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A job. ``runs`` counts those that were begun. Without ``due`` it will not run again."""

    id: str
    name: str
    key: str | None
    created: datetime
    schedule: Schedule
    action: Action
    delete_after_run: bool
    due: datetime | None
    runs: int = 0


class RunRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A run. ``failed`` means something once it has ended."""

    number: int
    id: str
    job: str
    name: str
    due: datetime
    started: datetime
    by_hand: bool
    ended: datetime | None
    failed: bool
    detail: str | None


class Ended(msgspec.Struct, frozen=True):
    """How a run ended."""

    run: str
    at: datetime
    failed: bool
    detail: str | None


class Store:
    """The tables ``cron_jobs`` and ``cron_runs``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    # --- jobs

    def add(self, job: JobRecord) -> None:
        """Add it, in place of one of its name that will not run again."""
        with self._db.transaction():
            self._db.run("DELETE FROM cron_jobs WHERE name = ? AND due IS NULL", (job.name,))
            self._db.run(
                "INSERT INTO cron_jobs (id, name, key, created, schedule, action, delete_after_run, due) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    job.id,
                    job.name,
                    job.key,
                    _number(job.created),
                    msgspec.json.encode(job.schedule).decode(),
                    msgspec.json.encode(job.action).decode(),
                    job.delete_after_run,
                    None if job.due is None else _number(job.due),
                ),
            )

    def remove(self, id_: str) -> None:
        """Its history stays for a while."""
        self._db.run("DELETE FROM cron_jobs WHERE id = ?", (id_,))

    def find(self, name_or_id: str) -> JobRecord | None:
        return self._one("SELECT * FROM cron_jobs WHERE name = ?1 OR id = ?1 ORDER BY id = ?1 DESC", (name_or_id,))

    def with_key(self, key: str) -> JobRecord | None:
        return self._one("SELECT * FROM cron_jobs WHERE key = ?", (key,))

    def count(self) -> int:
        counted: int = self._db.rows("SELECT count(*) FROM cron_jobs")[0][0]
        return counted

    def page(self, offset: int, limit: int) -> list[JobRecord]:
        """Those that run next first, those that will not run again last."""
        rows = self._db.rows(
            "SELECT * FROM cron_jobs ORDER BY due IS NULL, due, created, id LIMIT ? OFFSET ?", (limit, offset)
        )
        return [_job(row) for row in rows]

    def waiting(self) -> list[JobRecord]:
        """All that will run again."""
        return [_job(row) for row in self._db.rows("SELECT * FROM cron_jobs WHERE due IS NOT NULL")]

    def set_due(self, dues: Iterable[tuple[str, datetime | None]]) -> None:
        """When jobs, by their ids, are due from now on."""
        with self._db.transaction():
            for id_, due in dues:
                self._db.run("UPDATE cron_jobs SET due = ? WHERE id = ?", (due and _number(due), id_))

    def next_due(self) -> datetime | None:
        """When the next job is due."""
        due = self._db.rows("SELECT min(due) FROM cron_jobs WHERE due IS NOT NULL")[0][0]
        return None if due is None else _time(due)

    # --- runs

    def begin_due(self, now: datetime, limit: int) -> list[Begun]:
        """Note the runs of jobs that are due as begun, and when they are due next, in one step. Do them then.

        One of which that cannot be told any more has failed, and will not run again.
        """
        if limit <= 0:
            return []
        query = "SELECT * FROM cron_jobs WHERE due <= ? ORDER BY due LIMIT ?"
        with self._db.transaction():
            jobs = [_job(row) for row in self._db.rows(query, (_number(now), limit))]
            begun = []
            for job in jobs:
                assert job.due is not None
                run = self._begin(job, job.due, now, by_hand=False)
                try:
                    after = following(job.schedule, job.due, now)
                except PerryError as exc:
                    # As when a zone is gone from the database of zones. It must not hold up the others.
                    self._end(Ended(run.id, now, True, f"When it is due next cannot be told: {exc.message}"))
                    after = None
                else:
                    begun.append(run)
                self._db.run("UPDATE cron_jobs SET due = ? WHERE id = ?", (after and _number(after), job.id))
        return begun

    def begin(self, job: JobRecord, now: datetime) -> Begun:
        """Note a run that a person asked for; when the job is due stays."""
        with self._db.transaction():
            return self._begin(job, now, now, by_hand=True)

    def _begin(self, job: JobRecord, due: datetime, now: datetime, *, by_hand: bool) -> Begun:
        count = job.runs + 1
        run = Begun(f"{job.id}-{count}", job.name, job.action, due, now, by_hand)
        self._db.run("UPDATE cron_jobs SET runs = ? WHERE id = ?", (count, job.id))
        self._db.run(
            "INSERT INTO cron_runs (id, job, name, action, due, started, by_hand) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                run.id,
                job.id,
                job.name,
                msgspec.json.encode(job.action).decode(),
                _number(due),
                _number(now),
                by_hand,
            ),
        )
        return run

    def open(self) -> list[Begun]:
        """Runs that were begun and whose end was never noted."""
        return [
            Begun(
                row["id"],
                row["name"],
                _actions.decode(row["action"]),
                _time(row["due"]),
                _time(row["started"]),
                bool(row["by_hand"]),
            )
            for row in self._db.rows("SELECT * FROM cron_runs WHERE ended IS NULL ORDER BY number")
        ]

    def end(self, runs: Iterable[Ended]) -> None:
        """Note how runs ended. What asked to be deleted after it goes, unless it failed or was run by hand."""
        with self._db.transaction():
            for each in runs:
                self._end(each)

    def _end(self, ended: Ended) -> None:
        row = self._db.rows(
            "UPDATE cron_runs SET ended = ?, failed = ?, detail = ?, action = NULL WHERE id = ? "
            "RETURNING number, job, by_hand",
            (_number(ended.at), ended.failed, ended.detail, ended.run),
        )[0]
        if not ended.failed and not row["by_hand"]:
            self._db.run("DELETE FROM cron_jobs WHERE id = ? AND delete_after_run AND due IS NULL", (row["job"],))
        self._prune(row["job"], row["number"])

    def _prune(self, job: str, newest: int) -> None:
        self._db.run(
            "DELETE FROM cron_runs WHERE ended IS NOT NULL AND job = ?1 AND number <= "
            "(SELECT number FROM cron_runs WHERE job = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
            (job, KEPT_RUNS),
        )
        self._db.run("DELETE FROM cron_runs WHERE ended IS NOT NULL AND number <= ?", (newest - KEPT_IN_ALL,))

    def last_run(self, job: str) -> RunRecord | None:
        """The newest run of a job, by its id."""
        rows = self._db.rows("SELECT * FROM cron_runs WHERE job = ? ORDER BY number DESC LIMIT 1", (job,))
        return _run(rows[0]) if rows else None

    def last_dues(self) -> dict[str, datetime]:
        """When jobs, by their ids, were due last, as far as they ever were."""
        return {row[0]: _time(row[1]) for row in self._db.rows("SELECT job, max(due) FROM cron_runs GROUP BY job")}

    def get_run(self, id_: str) -> RunRecord | None:
        rows = self._db.rows("SELECT * FROM cron_runs WHERE id = ?", (id_,))
        return _run(rows[0]) if rows else None

    def history(self, job: str | None, before: int | None, limit: int) -> list[RunRecord]:
        """The newest first; of a job by its name or id, which may be gone."""
        bound = before if before is not None else 1 << 62
        if job is None:
            rows = self._db.rows(
                "SELECT * FROM cron_runs WHERE number < ? ORDER BY number DESC LIMIT ?", (bound, limit)
            )
        else:
            rows = self._db.rows(
                "SELECT * FROM cron_runs WHERE (job = ?1 OR name = ?1) AND number < ?2 ORDER BY number DESC LIMIT ?3",
                (job, bound, limit),
            )
        return [_run(row) for row in rows]

    def _one(self, sql: str, values: tuple[Any, ...]) -> JobRecord | None:
        rows = self._db.rows(sql, values)
        return _job(rows[0]) if rows else None


def _job(row: sqlite3.Row) -> JobRecord:
    return JobRecord(
        id=row["id"],
        name=row["name"],
        key=row["key"],
        created=_time(row["created"]),
        schedule=_schedules.decode(row["schedule"]),
        action=_actions.decode(row["action"]),
        delete_after_run=bool(row["delete_after_run"]),
        due=None if row["due"] is None else _time(row["due"]),
        runs=row["runs"],
    )


def _run(row: sqlite3.Row) -> RunRecord:
    return RunRecord(
        number=row["number"],
        id=row["id"],
        job=row["job"],
        name=row["name"],
        due=_time(row["due"]),
        started=_time(row["started"]),
        by_hand=bool(row["by_hand"]),
        ended=None if row["ended"] is None else _time(row["ended"]),
        failed=bool(row["failed"]),
        detail=row["detail"],
    )


def _number(time: datetime) -> int:
    """Milliseconds since 1970. Rounded up, so that nothing is due before its time."""
    return -((EPOCH - time) // _MILLISECOND)


def _time(number: int) -> datetime:
    return EPOCH + number * _MILLISECOND
