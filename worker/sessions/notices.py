"""What is told of sessions and stores; without a number, which the journal gives."""

from datetime import UTC, datetime

from protocol.worker import SessionSeen, StoreSeen
from worker.ports import UNNUMBERED
from worker.sessions.agent import Found


def seen(agent: str, found: Found) -> SessionSeen:
    """A session is there, or has changed."""
    return SessionSeen(
        seq=UNNUMBERED,
        agent=agent,
        session_id=found.session_id,
        mark=found.mark,
        status=found.status,
        last_activity=_moment(found.last_activity),
    )


def store(agent: str, *, whole: bool) -> StoreSeen:
    """Whether all of an agent's store could be looked at."""
    return StoreSeen(seq=UNNUMBERED, agent=agent, whole=whole)


def _moment(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
