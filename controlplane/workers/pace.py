"""How fast events are taken, and how long to wait before dialling again. Pure: times in, times out."""

FIRST_PAUSE = 0.05
LAST_PAUSE = 10.0
BROKEN_PAUSE = 60.0
"""After a worker has sent what is out of bounds."""

EVENTS_A_SECOND = 1000.0
BURST = 20_000.0


class Allowance:
    """Events that may be taken at once: a burst, which fills up again with time."""

    def __init__(self, now: float, *, rate: float = EVENTS_A_SECOND, burst: float = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> float:
        """Take one event; the seconds to wait before the next."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
        self._at = now
        return 0.0 if self._left >= 0 else -self._left / self._rate


def pause(failures: int) -> float:
    """Seconds until the next try, after so many that failed in a row. A worker comes up within a second or so."""
    return float(min(LAST_PAUSE, FIRST_PAUSE * 1.5 ** min(failures, 30)))
