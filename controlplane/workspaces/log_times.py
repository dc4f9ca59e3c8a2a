"""The moments of log lines, as Docker writes them: their order is their text's. Pure."""

import re
from datetime import UTC, datetime

from controlplane.errors import InvalidInput

_EXACT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")


def exact(since: str | None) -> str | None:
    """A person's RFC 3339 time with nanoseconds, in UTC. InvalidInput where it is none."""
    if since is None or _EXACT.fullmatch(since):
        return since
    try:
        moment = datetime.fromisoformat(since)
    except ValueError as exc:
        raise InvalidInput(f"{since!r} is no time; write it like 2026-01-31T12:00:00Z.") from exc
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
