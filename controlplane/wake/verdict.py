"""What the answer of a gateway means, and when to try again. Pure."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, Final

import msgspec

from controlplane.quoting import clean
from protocol.wake import WakeWay

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 600.0
"""Seconds between tries: the first, and the most that doubling makes of it."""

LONGEST_WISH: Final = 3600.0
"""The longest Retry-After that is heeded, in seconds."""

PATIENCE: Final = timedelta(days=7)
"""So long a wake is tried, then it is dead."""

SHOWN: Final = 300
"""Characters of a gateway's own words that are kept."""


class Fate(StrEnum):
    """What becomes of a wake after an attempt."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    """The gateway will not take it, whatever comes."""
    NO_ENTRY = "no entry"
    """The gateway does not take our token: it is asked again when there is another."""
    RETRY = "retry"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. ``body`` is its beginning; ``whole`` says whether it came to its end."""

    status: int
    body: bytes = b""
    whole: bool = True
    retry_after: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``answer`` is for people. ``pause`` is how long the gateway wishes to be left alone, in seconds. ``way`` is how
    it was connected to, where it was.

    ``everybody``: what happened is about the gateway, and not about this wake.
    """

    fate: Fate
    answer: str
    status: int | None = None
    pause: float | None = None
    everybody: bool = False
    way: WakeWay | None = None

    @property
    def in_doubt(self) -> bool:
        """Whether it may have arrived although nobody said so."""
        return self.status is None and self.way is not None


def of_reply(reply: Reply, *, generic: bool, now: datetime) -> Verdict:
    """What an answer means. ``generic``: any status of success will do, whatever the body says."""
    status = reply.status
    words = _words(reply.body)
    said = f"{status}{f': {words}' if words else ''}"

    def verdict(fate: Fate, answer: str, *, everybody: bool = False, pause: float | None = None) -> Verdict:
        return Verdict(fate=fate, answer=answer, status=status, pause=pause, everybody=everybody)

    if 200 <= status < 300:
        if not reply.whole:
            # It had taken the wake when it began to answer.
            return verdict(Fate.DELIVERED, f"{status}, and then it broke off")
        if generic or _says_ok(reply.body):
            return verdict(Fate.DELIVERED, str(status))
        return verdict(
            Fate.RETRY, f"It answered {said}, which is no answer of a gateway; mend its url.", everybody=True
        )
    if status in (401, 403):
        return verdict(
            Fate.NO_ENTRY,
            f"The gateway does not take the token ({said}); put the one of its `hooks.token` into the tokenFile.",
            everybody=True,
        )
    if 300 <= status < 400:
        return verdict(
            Fate.RETRY, f"It sends elsewhere ({said}), and redirects are not followed; mend its url.", everybody=True
        )
    if status in (404, 405):
        return verdict(
            Fate.RETRY, f"It has no wake door there ({said}); switch its hooks on, or mend its url.", everybody=True
        )
    if status in (408, 425, 429) or status >= 500:
        pause = wished_pause(reply.retry_after, now)
        everybody = status in (429, 502, 503, 504) or pause is not None
        return verdict(Fate.RETRY, f"It answered {said}.", everybody=everybody, pause=pause)
    if status == 413:
        return verdict(Fate.REJECTED, f"The text is too long for the gateway ({said}); `perry wakes show` has it.")
    return verdict(Fate.REJECTED, f"The gateway refused it ({said}).")


def unwell(gateway: str, problem: str, *, waiting: int, refused: bool) -> str:
    """What is wrong with a gateway that gets nothing, and what to do. ``refused``: ``problem`` says that itself."""
    wakes = "one wake waits" if waiting == 1 else f"{waiting} wakes wait"
    look = "" if refused else "See that it runs, and that hooks.gateways has its url; "
    advice = f"{look}`perry wakes test --gateway {gateway}` tries it."
    return f"The gateway {gateway!r} is not woken, and {wakes}: {problem} {advice}"


def wished_pause(header: str | None, now: datetime) -> float | None:
    """Retry-After in seconds, from either of its forms; None where it says nothing that can be read."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), LONGEST_WISH)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    seconds = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)) - now
    return min(max(seconds.total_seconds(), 0.0), LONGEST_WISH)


def pause_after(failures: int, chance: Callable[[], float]) -> float:
    """Seconds until the next try after so many that failed in a row (1 or more). ``chance`` gives 0 to 1.

    Doubled each time, and then anything between a half and all of it: those that failed together do not come together.
    """
    most: float = min(FIRST_PAUSE * 2 ** min(failures - 1, 32), LONGEST_PAUSE)
    return most * (0.5 + chance() / 2)


def is_over(since: datetime, now: datetime) -> bool:
    """Whether it was tried for long enough."""
    return now - since >= PATIENCE


def _says_ok(body: bytes) -> bool:
    try:
        said: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("ok") is True


def _words(body: bytes) -> str:
    """A gateway's own words, on one line: its ``error`` where it names one."""
    text = body.decode(errors="replace")
    try:
        said: Any = msgspec.json.decode(body)
        if isinstance(said, dict) and isinstance(error := said.get("error"), str):
            text = error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    shown = clean(text)
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + "…"
