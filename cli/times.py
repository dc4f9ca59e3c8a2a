"""Times as a person reads them: on the clock of this device, and how far away."""

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = (("d", 86400, 36 * 3600), ("h", 3600, 90 * 60), ("min", 60, 90))
"""Each with its seconds, and from how many seconds on it is used."""


def span(seconds: float) -> str:
    """``45 s``, ``19 min``, ``22 h``, ``3 d``: rounded to the nearest."""
    for unit, size, least in _UNITS:
        if seconds >= least:
            return f"{round(seconds / size)} {unit}"
    return f"{max(round(seconds), 0)} s"


def on_the_clock(time: datetime, now: datetime) -> str:
    """``11:20`` today, ``Sun 09:00`` this week, else ``2026-12-01 09:00``."""
    here, today = time.astimezone(), now.astimezone()
    days = (here.date() - today.date()).days
    if days == 0:
        return f"{here:%H:%M}"
    return f"{here:%a %H:%M}" if 0 < days < 7 else f"{here:%Y-%m-%d %H:%M}"


def coming(time: datetime, now: datetime | None = None) -> str:
    """``in 19 min (11:20)``."""
    now = now or datetime.now(UTC)
    if time <= now:
        return "now"
    return f"in {span((time - now).total_seconds())} ({on_the_clock(time, now)})"


def ago(time: datetime, now: datetime | None = None) -> str:
    """``19 min ago``."""
    return f"{span(((now or datetime.now(UTC)) - time).total_seconds())} ago"


def interval(seconds: float) -> str:
    """``1h30m``, as it is written for ``--every``."""
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{int(count)}{unit}")
    if seconds or not parts:
        parts.append(f"{seconds:g}s")
    return "".join(parts)
