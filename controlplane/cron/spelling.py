"""Times as people write them: ``20m``, ``+1h30m``, ``2026-12-01T09:00+01:00``, ``Europe/Berlin``. Pure.

What cannot be read is InvalidInput, whose sentence says what to write instead.
"""

import difflib
import functools
import re
import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from controlplane.errors import InvalidInput

FARTHEST: Final = timedelta(days=3653)
"""Ten years. What is farther away is taken for a slip."""

_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_AMOUNT: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*(ms|s|m|h|d|w)", re.ASCII)
_DURATION: Final = re.compile(rf"(?:{_AMOUNT.pattern}\s*)+", re.ASCII)
_NO_ZONES: Final = frozenset({"localtime", "Factory", "posixrules"})
_SHOWN: Final = 60
_DIGITS: Final = 6
"""More of them are a date that lacks something, not an amount that lacks its unit."""


def shown(text: str) -> str:
    """What somebody wrote, as a sentence quotes it."""
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")


def duration(text: str) -> timedelta:
    """``20m``, ``90s``, ``1.5h``, ``1h30m``, ``2d``; a ``+`` before it changes nothing."""
    written = text.strip().removeprefix("+").lower()
    if written.isascii() and written.isdigit():
        raise InvalidInput(f"{shown(text)} has no unit; write {written}m for minutes, {written}s for seconds.")
    if len(written) > _SHOWN or not _DURATION.fullmatch(written):
        raise InvalidInput(f"{shown(text)} is no duration; write 90s, 20m, 1h30m or 2d.")
    try:
        return sum((float(amount) * _UNITS[unit] for amount, unit in _AMOUNT.findall(written)), timedelta())
    except OverflowError:
        raise InvalidInput(f"{shown(text)} is longer than any calendar; ten years are the most.") from None


def moment(text: str, zone: str | None, now: datetime) -> tuple[datetime, timedelta | None]:
    """When ``--at`` means, in UTC, and for a duration how long that is from ``now``.

    A time of day without an offset is in ``zone``; without one it is refused, as this machine's may not be the one
    that was meant. Of two equal times of day, where clocks are set back, the first is meant.
    """
    written = text.strip()
    if not written:
        raise InvalidInput("--at is empty; write 20m, or a time such as 2026-12-01T09:00+01:00.")
    if _DURATION.fullmatch(written.lstrip("+-").lower()) or (written.isdigit() and len(written) <= _DIGITS):
        if written.startswith("-"):
            raise InvalidInput(f"{shown(text)} is in the past; write {written[1:]} for so long from now.")
        delay = duration(written)
        _refuse_far(delay, text)
        return now + delay, delay
    try:
        read = datetime.fromisoformat(written)
    except ValueError:
        read = None
    if read is None or len(written) <= len("2026-12-01"):
        raise InvalidInput(
            f"{shown(text)} is no time; write 20m for so long from now, or a time such as 2026-12-01T09:00+01:00."
        )
    try:
        time = _placed(read, text, zone).astimezone(UTC)
    except OverflowError:
        raise InvalidInput(f"{shown(text)} is outside of the calendar; write a time of the next ten years.") from None
    if time <= now:
        ago = _roughly(now - time)
        raise InvalidInput(f"{shown(text)} is {ago} in the past; write a time to come, or 20m for so long from now.")
    _refuse_far(time - now, text)
    return time, None


def _placed(read: datetime, text: str, zone: str | None) -> datetime:
    if read.tzinfo is not None:
        return read
    if zone is None:
        raise InvalidInput(
            f"{shown(text)} does not say in which zone; write {text.strip()}+01:00, {text.strip()}Z for UTC, or add "
            "--tz Europe/Berlin."
        )
    placed = read.replace(tzinfo=known_zone(zone))
    there = placed.astimezone(UTC).astimezone(placed.tzinfo)
    if there.replace(tzinfo=None) != read:
        raise InvalidInput(
            f"There is no {shown(text)} in {zone}, where clocks are set forward over it; write "
            f"{there.replace(tzinfo=None).isoformat(timespec='minutes')}."
        )
    return placed


def _refuse_far(delay: timedelta, text: str) -> None:
    if delay > FARTHEST:
        raise InvalidInput(f"{shown(text)} is more than ten years away; write a nearer time.")


def _roughly(span: timedelta) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if (count := int(span.total_seconds() // size)) >= 2:
            return f"{count} {unit}"
    return f"{max(int(span.total_seconds()), 1)} s"


def known_zone(name: str) -> tzinfo:
    """A zone of the IANA database. InvalidInput names the nearest."""
    if name == "UTC":
        return UTC
    if name not in _zones():
        near = _nearest(name)
        hint = f"did you mean {near}?" if near else "zones are written like Europe/Berlin, or UTC."
        raise InvalidInput(f"There is no time zone {shown(name)}; {hint}")
    return zoneinfo.ZoneInfo(name)


@functools.cache
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones() - _NO_ZONES)


def _nearest(name: str) -> str | None:
    """``europe/berlin``, ``Berlin``, ``New York`` and ``Europe/Berln`` find theirs."""
    wanted = name.strip().replace(" ", "_").casefold()[:_SHOWN]
    by_name = {zone.casefold(): zone for zone in sorted(_zones())}
    # The last one stays: `America/New_York` rather than an older spelling of it.
    by_city = {zone.rpartition("/")[2].casefold(): zone for zone in sorted(_zones(), reverse=True)}
    for known in (by_name, by_city):
        if wanted in known:
            return known[wanted]
    # Of what is short, as CEST, anything is near.
    for known in (by_name, by_city) if len(wanted) > 4 else ():
        if close := difflib.get_close_matches(wanted, known, n=1, cutoff=0.75):
            return known[close[0]]
    return None
