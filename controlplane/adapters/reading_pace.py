"""How fast is read what nobody asked for. Pure: times in, times out."""

RATE = 1 << 20
"""Bytes a second."""

BURST = 48 << 20
"""More than the sessions of any sane workspace told at once."""

LEAST = 1 << 10
"""What each frame counts for, however short: a thousand a second, and their work, is what one workspace may cause."""


class ReadingPace:
    """Bytes that may be read at once: a burst, which fills up again with time."""

    def __init__(self, now: float, *, rate: float = RATE, burst: float = BURST) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float, size: int) -> float:
        """A frame was read; the seconds to wait before the next."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - max(size, LEAST)
        self._at = now
        return 0.0 if self._left >= 0 else -self._left / self._rate
