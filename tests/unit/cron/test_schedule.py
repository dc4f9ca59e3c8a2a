"""When jobs run: what is refused, clocks that are set forward and back, leap days, and what always holds."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from controlplane.cron import schedule
from controlplane.cron.schedule import At, Every, Line, Schedule
from controlplane.cron.spelling import duration, known_zone
from controlplane.errors import InvalidInput

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def seen_at(
    now: datetime, *, at: str | None = None, every: str | None = None, cron: str | None = None, tz: str | None = None
) -> Schedule:
    return schedule.read(at=at, every=every, cron=cron, tz=tz, now=now)


def read(at: str | None = None, every: str | None = None, cron: str | None = None, tz: str | None = None) -> Schedule:
    return seen_at(NOW, at=at, every=every, cron=cron, tz=tz)


def time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def runs(line: str, tz: str, since: str, count: int) -> list[str]:
    """The next times of a cron line, on the clock of its zone, each with its offset."""
    due = time(since)
    job = seen_at(due, cron=line, tz=tz)
    found = []
    for _ in range(count):
        following = schedule.following(job, due, due)
        assert following is not None
        due = following
        found.append(due.astimezone(known_zone(tz)).isoformat(timespec="minutes"))
    return found


# --- how times are written


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20m", 1200), ("+20m", 1200), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("2D", 172800), (" 1 h 5 m ", 3900)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)
    assert read(at=text) == At(time=NOW + timedelta(seconds=seconds), delay=seconds)


@pytest.mark.parametrize(
    ("text", "tz", "utc"),
    [
        ("2026-12-01T09:00+01:00", None, "2026-12-01T08:00Z"),
        ("2026-12-01T09:00:30Z", None, "2026-12-01T09:00:30Z"),
        ("2026-12-01 09:00", "Europe/Berlin", "2026-12-01T08:00Z"),
        ("2027-07-01T09:00", "Europe/Berlin", "2027-07-01T07:00Z"),
        # Comes twice: the first time.
        ("2027-10-31T02:30", "Europe/Berlin", "2027-10-31T00:30Z"),
        # What says its own offset means it, whatever the zone.
        ("2026-12-01T09:00Z", "Europe/Berlin", "2026-12-01T09:00Z"),
    ],
)
def test_moments(text: str, tz: str | None, utc: str) -> None:
    assert read(at=text, tz=tz) == At(time=time(utc))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({}, "not said when to run"),
        ({"at": "1m", "every": "1m"}, "--at and --every exclude each other"),
        ({"at": ""}, "--at is empty; write 20m"),
        ({"at": "20"}, "has no unit; write 20m"),
        ({"at": "-5m"}, "in the past; write 5m"),
        ({"at": "2026-11-21T09:59Z"}, "is 60 s in the past; write a time to come"),
        ({"at": "2026-01-01T00:00Z"}, "324 days in the past"),
        ({"at": "2036-12-01T00:00Z"}, "more than ten years away"),
        ({"at": "600w"}, "more than ten years away"),
        ({"at": "999999999w"}, "longer than any calendar"),
        ({"at": "9999-12-31T23:59-14:00"}, "outside of the calendar"),
        ({"at": "tomorrow"}, "is no time; write 20m"),
        ({"at": "2026-12-01"}, "is no time"),
        ({"at": "20261201"}, "is no time"),
        ({"at": "2026-12-01T09:00"}, "in which zone; write 2026-12-01T09:00\\+01:00, 2026-12-01T09:00Z"),
        ({"at": "2027-03-28T02:30", "tz": "Europe/Berlin"}, "set forward over it; write 2027-03-28T03:30"),
        ({"at": "20m", "tz": "UTC"}, "--tz means nothing with --at 20m"),
        ({"every": "5s"}, "too often; 10s is the least"),
        ({"every": "600w"}, "too rare; ten years are the most"),
        ({"every": "often"}, "is no duration; write 90s"),
        ({"every": "1m" * 100_000}, "is no duration"),
        ({"every": "1h", "tz": "UTC"}, "--tz means nothing with --every"),
        ({"cron": "61 * * * *"}, "wrong in field 1, minute: '61'; it takes 0–59"),
        ({"cron": "* 24 * * *"}, "field 2, hour: '24'"),
        ({"cron": "* * 0 * *"}, "field 3, day-of-month: '0'"),
        ({"cron": "* * * JANUARY *"}, "field 4, month: 'JANUARY'; it takes 1–12 or JAN–DEC"),
        ({"cron": "0 9 * * FRI-MON"}, "field 5, day-of-week: 'FRI-MON'.*the lower first"),
        ({"cron": "* * * *"}, "has 4 fields and needs five: minute hour day-of-month month day-of-week"),
        ({"cron": "*"}, "has 1 field and"),
        ({"cron": "* * * * * *"}, "has 6 fields .* no seconds, for which --every"),
        ({"cron": ""}, "has 0 fields"),
        ({"cron": "0 0 30 2 *"}, "never comes: month 2 has no day 30"),
        ({"cron": "@fortnightly"}, "There is no '@fortnightly'; write @hourly, @daily"),
        ({"cron": "0," * 200 + "0 * * * *"}, "has 409 characters; 200 are the most"),
        ({"cron": "0 9 * * *", "tz": "europe/berlin"}, "did you mean Europe/Berlin?"),
        ({"cron": "0 9 * * *", "tz": "Berlin"}, "did you mean Europe/Berlin?"),
        ({"cron": "0 9 * * *", "tz": "new york"}, "did you mean America/New_York?"),
        ({"cron": "0 9 * * *", "tz": "Europe/Berln"}, "did you mean Europe/Berlin?"),
        ({"cron": "0 9 * * *", "tz": "CEST"}, "'CEST'; zones are written like Europe/Berlin"),
        ({"cron": "0 9 * * *", "tz": "../../etc/passwd"}, "There is no time zone"),
        ({"cron": "0 9 * * *", "tz": "x" * 1_000_000}, "There is no time zone"),
    ],
)
def test_what_cannot_be_meant_is_a_sentence(flags: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        read(**flags)
    assert len(caught.value.message) < 400
    assert caught.value.message.endswith((".", "?"))


def test_a_line_without_a_zone_is_utc_and_names_stand_for_lines() -> None:
    assert read(cron=" 0  9 * * * ") == Line(expression="0 9 * * *", tz="UTC")
    assert read(cron="@Daily", tz="Europe/Berlin") == Line(expression="0 0 * * *", tz="Europe/Berlin")


# --- clocks that are set for summer and winter, and leap days


@pytest.mark.parametrize(
    ("line", "tz", "since", "expected"),
    [
        # A time of day keeps to the clock on the wall.
        (
            "0 9 * * *",
            "Europe/Berlin",
            "2027-03-27T00:00Z",
            ["2027-03-27T09:00+01:00", "2027-03-28T09:00+02:00", "2027-03-29T09:00+02:00"],
        ),
        # 02:30 is left out: right after the gap, once.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2027-03-27T12:00Z",
            ["2027-03-28T03:00+02:00", "2027-03-29T02:30+02:00"],
        ),
        ("0,30 2 * * *", "Europe/Berlin", "2027-03-27T12:00Z", ["2027-03-28T03:00+02:00", "2027-03-29T02:00+02:00"]),
        # 02:30 comes twice: the first time.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2027-10-30T12:00Z",
            ["2027-10-31T02:30+02:00", "2027-11-01T02:30+01:00"],
        ),
        # Seen between the two: not again.
        ("30 2 * * *", "Europe/Berlin", "2027-10-31T02:15+01:00", ["2027-11-01T02:30+01:00"]),
        # What runs at every hour goes by elapsed time.
        (
            "30 * * * *",
            "Europe/Berlin",
            "2027-10-31T00:00Z",
            ["2027-10-31T02:30+02:00", "2027-10-31T02:30+01:00", "2027-10-31T03:30+01:00"],
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2027-03-28T00:00Z",
            ["2027-03-28T01:30+01:00", "2027-03-28T03:30+02:00"],
        ),
        # Midnight is left out.
        ("0 0 * * *", "America/Santiago", "2026-09-05T12:00Z", ["2026-09-06T01:00-03:00", "2026-09-07T00:00-03:00"]),
        # Half an hour of summer.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00Z",
            ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"],
        ),
        ("0 12 29 2 *", "UTC", "2026-01-01T00:00Z", ["2028-02-29T12:00+00:00", "2032-02-29T12:00+00:00"]),
        ("0 12 L * *", "UTC", "2028-02-01T00:00Z", ["2028-02-29T12:00+00:00", "2028-03-31T12:00+00:00"]),
        ("0 12 31 * *", "UTC", "2026-01-31T12:00Z", ["2026-03-31T12:00+00:00", "2026-05-31T12:00+00:00"]),
        # Day of month or day of week, as cron has it, where both are given.
        ("0 12 13 * FRI", "UTC", "2026-02-10T00:00Z", ["2026-02-13T12:00+00:00", "2026-02-20T12:00+00:00"]),
        ("0 12 * * 7", "UTC", "2026-11-21T00:00Z", ["2026-11-22T12:00+00:00"]),
    ],
)
def test_cron_lines(line: str, tz: str, since: str, expected: list[str]) -> None:
    assert runs(line, tz, since, len(expected)) == expected


# --- missed runs, and clocks that are set


def test_what_was_missed_runs_once() -> None:
    """Ten days away: the job is due once, and next when it would be anyway."""
    due, now = NOW, NOW + 10 * DAY + 90 * MINUTE
    assert schedule.following(Every(3600), due, now) == due + 10 * DAY + 2 * HOUR
    assert schedule.following(read(cron="0 9 * * *"), due, now) == time("2026-12-02T09:00Z")
    assert schedule.following(At(due), due, now) is None


@pytest.mark.parametrize("by", [-3 * DAY, -HOUR, 5 * MINUTE, 30 * DAY])
def test_elapsed_time_does_not_notice_that_the_clock_is_set(by: timedelta) -> None:
    due = NOW + 20 * MINUTE
    for job in (At(due, delay=1200.0), Every(1200.0)):
        assert schedule.clock_was_set(job, due, by, NOW + by) == due + by


@pytest.mark.parametrize("by", [-3 * DAY, -HOUR, 5 * MINUTE, 30 * DAY])
def test_a_time_that_was_named_stays(by: timedelta) -> None:
    due = NOW + 20 * MINUTE
    assert schedule.clock_was_set(At(due), due, by, NOW + by) == due


@pytest.mark.parametrize(
    ("by", "now", "due"),
    [
        (-1 * HOUR, "2026-11-21T08:30Z", "2026-11-22T09:00Z"),  # It ran at 9:00, and does not again.
        (-30 * DAY, "2026-10-22T09:30Z", "2026-10-23T09:00Z"),  # The clock was wrong before.
        (2 * DAY, "2026-11-23T09:30Z", "2026-11-22T09:00Z"),  # Missed: overdue, so it runs once.
    ],
)
def test_a_cron_line_when_the_clock_is_set(by: timedelta, now: str, due: str) -> None:
    assert schedule.clock_was_set(read(cron="0 9 * * *"), time("2026-11-22T09:00Z"), by, time(now)) == time(due)


def test_after_a_start_on_a_clock_that_had_been_years_ahead_nothing_waits_for_years() -> None:
    then = NOW + 3000 * DAY
    assert schedule.at_start(Every(3600), then + HOUR, then, NOW) == NOW + HOUR
    assert schedule.at_start(At(then, delay=1200), then, then, NOW) == NOW + 20 * MINUTE
    assert schedule.at_start(read(cron="0 9 * * *"), then, then - DAY, NOW) == time("2026-11-22T09:00Z")


def test_after_a_usual_start_everything_is_due_when_it_was() -> None:
    for job in (Every(3600), At(NOW + HOUR), At(NOW + HOUR, delay=7200), read(cron="0 11 * * *")):
        assert schedule.at_start(job, NOW + HOUR, NOW - DAY, NOW) == NOW + HOUR
        assert schedule.at_start(job, NOW - HOUR, NOW - DAY, NOW) == NOW - HOUR


# --- what always holds

zones = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kathmandu",
     "Africa/Cairo", "Pacific/Apia", "Asia/Beirut", "Antarctica/Troll"]
)  # fmt: skip


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    one = st.one_of(
        number.map(str),
        st.tuples(number, number).map(lambda both: f"{min(both)}-{max(both)}"),
        st.integers(1, high).map(lambda step: f"*/{step}"),
    )
    return st.one_of(st.just("*"), one, st.lists(one, min_size=2, max_size=3).map(",".join))


lines = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)).map(" ".join)
# Half of them where clocks are set, as that is where it is hard.
around = st.one_of(
    st.datetimes(datetime(2026, 1, 1), datetime(2034, 1, 1)),
    st.datetimes(datetime(2027, 3, 27, 20), datetime(2027, 3, 28, 6)),
    st.datetimes(datetime(2027, 10, 30, 20), datetime(2027, 10, 31, 6)),
    st.datetimes(datetime(2026, 10, 3, 10), datetime(2026, 10, 4, 10)),
    st.datetimes(datetime(2026, 4, 4, 10), datetime(2026, 4, 5, 10)),
).map(lambda naive: naive.replace(tzinfo=UTC))


@settings(max_examples=200, deadline=None)
@given(lines, zones, around, st.floats(0, 1))
def test_a_line_comes_after_now_and_nothing_between_is_passed_over(
    line: str, zone: str, now: datetime, part: float
) -> None:
    try:
        job = seen_at(now, cron=line, tz=zone)
    except InvalidInput:
        assume(False)
    due = schedule.first(job, now)
    assert due > now
    assert due.microsecond == due.second == 0
    # Asked at any moment before then, it is the same time.
    between = now + (due - now) * part
    assert schedule.first(job, between) == due or between >= due


@settings(max_examples=200, deadline=None)
@given(lines, zones, around, st.timedeltas(timedelta(0), 400 * DAY))
def test_later_is_never_sooner(line: str, zone: str, now: datetime, later: timedelta) -> None:
    try:
        job = seen_at(now, cron=line, tz=zone)
    except InvalidInput:
        assume(False)
    assert schedule.first(job, now) <= schedule.first(job, now + later)


@settings(deadline=None)
@given(st.integers(10, 10**8), around, st.timedeltas(timedelta(0), 4000 * DAY))
def test_an_interval_keeps_its_rhythm_and_never_comes_before_now(seconds: int, due: datetime, late: timedelta) -> None:
    now = due + late
    following = schedule.following(Every(seconds), due, now)
    assert following is not None
    assert now < following <= now + timedelta(seconds=seconds)
    assert (following - due) % timedelta(seconds=seconds) == timedelta(0)


@settings(deadline=None)
@given(around, around, st.timedeltas(timedelta(days=-4000), timedelta(days=4000)))
def test_an_interval_that_is_due_soon_stays_due_soon_however_the_clock_is_set(
    due: datetime, now: datetime, by: timedelta
) -> None:
    assume(due - now <= HOUR)
    moved = schedule.clock_was_set(Every(3600), due, by, now + by)
    assert moved is not None
    assert moved - (now + by) <= HOUR


@settings(deadline=None)
@given(st.text(max_size=40), st.sampled_from(["at", "every", "cron", "tz"]))
def test_whatever_is_written_is_read_or_refused_with_a_sentence(text: str, flag: str) -> None:
    flags = {"cron": "0 9 * * *", "tz": text} if flag == "tz" else {flag: text}
    try:
        read(**flags)
    except InvalidInput as exc:
        assert exc.message.endswith((".", "?"))


@settings(deadline=None)
@given(st.from_regex(r"[0-9*,/LW#a-z-]{1,8}( [0-9*,/LW#a-z-]{1,5}){4}", fullmatch=True))
def test_what_looks_like_a_cron_line_is_read_or_refused(text: str) -> None:
    try:
        job = read(cron=text)
    except InvalidInput as exc:
        assert "cron line" in exc.message
    else:
        assert schedule.first(job, NOW) > NOW
