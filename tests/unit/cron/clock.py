"""A clock that goes on by itself, and that a test sets."""

import time
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


class FakeClock:
    """Stands where a test puts it; with ``running`` it goes on from there in real time."""

    def __init__(self, at: datetime = START, *, running: bool = False) -> None:
        self._wall = at
        self._steady = 0.0
        self._began = time.monotonic() if running else None

    def _gone(self) -> float:
        return 0.0 if self._began is None else time.monotonic() - self._began

    def now(self) -> datetime:
        return self._wall + timedelta(seconds=self._gone())

    def elapsed(self) -> float:
        return self._steady + self._gone()

    def passes(self, **span: float) -> None:
        """Time goes by, for both."""
        self._wall += timedelta(**span)
        self._steady += timedelta(**span).total_seconds()

    def is_set(self, **by: float) -> None:
        """Somebody sets the clock on the wall."""
        self._wall += timedelta(**by)
