"""When a job runs: the arithmetic of times, intervals and cron lines. Pure: what the time is, is told.

- What was missed (the machine was off, the clock was set forward) runs once, however often it would have run.
- A cron line means the clock of its zone, as Debian's cron does: a time of day that is left out when clocks are set
  forward runs right after the gap, one that comes twice runs the first time; lines that run at every minute or hour
  (``*``, ``*/5``) go by elapsed time instead.
- Intervals and ``--at 20m`` mean elapsed time: they do not notice that somebody sets the clock.
- A clock that is set back by less than three hours makes no cron line run again; one that is set back farther was
  wrong before, and its lines begin anew.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cronsim import CronSim, CronSimError

from controlplane.cron import spelling
from controlplane.cron.spelling import FARTHEST, known_zone, shown
from controlplane.errors import InvalidInput

SHORTEST: Final = timedelta(seconds=10)
"""The shortest interval."""

FORGIVEN: Final = timedelta(hours=3)
"""A clock that is set back by no more than this makes nothing run again."""

LINE_LIMIT: Final = 200
"""Characters of a cron line."""

FIELDS: Final = {
    "minute": "0–59",
    "hour": "0–23",
    "day-of-month": "1–31 or L",
    "month": "1–12 or JAN–DEC",
    "day-of-week": "0–7 or SUN–SAT",
}
MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_EXAMPLE: Final = "'0 9 * * MON-FRI' is 9:00 on weekdays"


class At(msgspec.Struct, frozen=True, tag="at"):
    """Once. ``delay`` is in seconds, where it was asked for as so long from then."""

    time: datetime
    delay: float | None = None


class Every(msgspec.Struct, frozen=True, tag="every"):
    """At intervals."""

    seconds: float


class Line(msgspec.Struct, frozen=True, tag="cron"):
    """By a cron line of five fields, in a zone."""

    expression: str
    tz: str


Schedule = At | Every | Line


def read(*, at: str | None, every: str | None, cron: str | None, tz: str | None, now: datetime) -> Schedule:
    """The schedule that these flags mean, of which exactly one of the first three may be there. InvalidInput."""
    given = [name for name, value in (("--at", at), ("--every", every), ("--cron", cron)) if value is not None]
    if len(given) != 1:
        which = f"{' and '.join(given)} exclude each other" if given else "It is not said when to run"
        raise InvalidInput(f"{which}; give one of --at 20m, --every 1h and --cron '0 9 * * *'.")
    if at is not None:
        time, delay = spelling.moment(at, tz, now)
        if delay is not None and tz is not None:
            raise InvalidInput(f"--tz means nothing with --at {at.strip()}; leave it away.")
        return At(time=time, delay=None if delay is None else delay.total_seconds())
    if every is not None:
        if tz is not None:
            raise InvalidInput("--tz means nothing with --every; leave it away, or use --cron for a time of day.")
        return _interval(every)
    assert cron is not None
    return _line(cron, tz or "UTC", now)


def first(schedule: Schedule, now: datetime) -> datetime:
    """When a job of this schedule runs first."""
    if isinstance(schedule, At):
        return schedule.time
    if isinstance(schedule, Every):
        return now + timedelta(seconds=schedule.seconds)
    due = _after(schedule, now)
    assert due is not None, "read() refuses those that never come"
    return due


def following(schedule: Schedule, due: datetime, now: datetime) -> datetime | None:
    """When a job runs next that was due at ``due`` and runs ``now``; None: never again."""
    if isinstance(schedule, At):
        return None
    if isinstance(schedule, Every):
        interval = timedelta(seconds=schedule.seconds)
        # Never before now, and in the same rhythm as before.
        return due + max(1, (now - due) // interval + 1) * interval
    return _after(schedule, max(due, now))


def clock_was_set(schedule: Schedule, due: datetime, by: timedelta, now: datetime) -> datetime | None:
    """When a job that was due at ``due`` is due now that the clock has been set ``by`` so much, to ``now``."""
    if isinstance(schedule, At):
        return due if schedule.delay is None else due + by
    if isinstance(schedule, Every):
        return due + by
    return _after(schedule, now) if by < -FORGIVEN else due


def at_start(schedule: Schedule, due: datetime, last: datetime, now: datetime) -> datetime | None:
    """When a job is due, seen after a time in which nobody watched the clock.

    ``last`` is when it was due last, or was made. What is overdue stays so, and runs once.
    """
    if isinstance(schedule, At):
        return due if schedule.delay is None else min(due, now + timedelta(seconds=schedule.delay))
    if isinstance(schedule, Every):
        return min(due, now + timedelta(seconds=schedule.seconds))
    return _after(schedule, now) if last - now > FORGIVEN else due


def _after(line: Line, after: datetime) -> datetime | None:
    """The first time after ``after`` that a line means, in UTC; None where there is none in fifty years."""
    here = after.astimezone(known_zone(line.tz))
    # Where clocks are set back, the first of two equal times of day is meant, which may have been before.
    return next((found for time in CronSim(line.expression, here) if (found := time.astimezone(UTC)) > after), None)


def _interval(text: str) -> Every:
    interval = spelling.duration(text)
    if interval < SHORTEST:
        raise InvalidInput(f"Every {text.strip()} is too often; 10s is the least.")
    if interval > FARTHEST:
        raise InvalidInput(f"Every {text.strip()} is too rare; ten years are the most.")
    return Every(seconds=interval.total_seconds())


def _line(text: str, tz: str, now: datetime) -> Line:
    written = " ".join(text.split())
    if len(written) > LINE_LIMIT:
        raise InvalidInput(f"The cron line has {len(written)} characters; {LINE_LIMIT} are the most.")
    if written.startswith("@") and written.lower() not in MACROS:
        raise InvalidInput(f"There is no {shown(written)}; write {', '.join(list(MACROS)[:2])} … or five fields.")
    expression = MACROS.get(written.lower(), written)
    fields = expression.split()
    if len(fields) != len(FIELDS):
        seconds = "; it has no seconds, for which --every is there" if len(fields) == len(FIELDS) + 1 else ""
        raise InvalidInput(
            f"The cron line {shown(written)} has {len(fields)} field{'' if len(fields) == 1 else 's'} and needs five: "
            f"{' '.join(FIELDS)}{seconds}. {_EXAMPLE}."
        )
    known_zone(tz)
    try:
        line = Line(expression=expression, tz=tz)
        due = _after(line, now)
    except CronSimError as exc:
        raise InvalidInput(_wrong_field(fields, str(exc))) from exc
    if due is None or due - now > FARTHEST:
        raise InvalidInput(f"The cron line {shown(written)} does not come in the next ten years; mend its days.")
    return line


def _wrong_field(fields: list[str], complaint: str) -> str:
    """The sentence for ``Bad day-of-month`` and its kind."""
    name = complaint.removeprefix("Bad ")
    number = list(FIELDS).index(name)
    line = " ".join(fields)
    if name == "day-of-month" and _bears(fields[number]):
        return f"The cron line {shown(line)} never comes: month {fields[3]} has no day {fields[2]}."
    return (
        f"The cron line {shown(line)} is wrong in field {number + 1}, {name}: {shown(fields[number])}; it takes "
        f"{FIELDS[name]}, and *, lists (1,2), ranges (1-5, the lower first) and steps (*/10)."
    )


def _bears(day: str) -> bool:
    try:
        CronSim(f"0 0 {day} * *", datetime(2000, 1, 1, tzinfo=UTC))
    except CronSimError:
        return False
    return True
