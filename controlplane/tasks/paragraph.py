"""What a look has seen, in words for a person or an assistant. Pure.

Texts that come from a workspace are somebody's own words: they are bounded, on one line, and quoted.
"""

from datetime import timedelta

from controlplane.quoting import hexadecimal, quoted
from controlplane.tasks.seen import Checkout, Seen


def facts(seen: Seen) -> list[str]:
    """Sentences of what there is to be seen: the last words, the commits, the end of the log."""
    said, checkout, log = seen.session and seen.session.said, seen.checkout, seen.log
    found = [f"It said last{_ago(seen)}: {quoted(said)}."] if said else []
    if checkout is not None:
        found.append(_left(checkout, by_hand=seen.task is None))
    if log is not None and log.tail.strip() and not said:
        found.append(f"Its log ends with {quoted(log.tail, from_end=True)}.")
    return found


def _left(checkout: Checkout, *, by_hand: bool) -> str:
    last = checkout.last
    named = "" if last is None else f"{hexadecimal(last.id)[:12]} {quoted(last.subject)}"
    loose = f", and {count(checkout.changed, 'file')} not committed" if checkout.changed else ""
    if by_hand:
        # When it began is not known.
        return f"{f'The last commit is {named}' if named else 'There is no commit'}{loose}."
    made = f"{count(checkout.commits, 'commit')} since it began" if checkout.commits else "No commit since it began"
    return f"{made}{f'; the last is {named}' if named else ''}{loose}."


def _ago(seen: Seen) -> str:
    at = seen.session.said_at if seen.session is not None else None
    return "" if at is None or at > seen.at else f", {span(seen.at - at)} ago"


def subject(seen: Seen) -> str:
    """What is spoken of."""
    what = f"Task {seen.task}" if seen.task is not None else "The work"
    return f"{what} ({seen.agent} in {seen.workspace})"


def span(time: timedelta) -> str:
    """``40 s``, ``14 min``, ``3 h``."""
    seconds = int(time.total_seconds())
    if seconds < 90:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 5400 else f"{seconds // 3600} h"


def count(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
