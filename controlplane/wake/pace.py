"""How often a gateway is asked to show something. Pure.

clawdbot (2026.1.24) and openclaw (2026.9.6) keep twenty events for a session in memory. They show all of them when its
next turn begins, no answer tells how many there are, and one more takes the oldest away without a word. A turn may take
minutes, and openclaw begins no more than five of them in a minute: so a gateway gets a few requests at once and then
one at a time, and what waits meanwhile goes together in one of them.
"""

import math
from typing import Final

BURST: Final = 10
"""Requests at once: half of what a gateway keeps, since others put something there too."""

SHOWN_SECONDS: Final = 12 * 3600.0
"""After so long a gateway has shown what it was to show some time later. By default their heartbeats are half an hour
or an hour apart; people have them rest at night, and no night is longer than this."""


class Pace:
    """One gateway's. ``pause`` seconds bring back one request of ``BURST``; 0 is no pace at all.

    Times are seconds on the caller's clock.
    """

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._full_at = -math.inf
        self._last = -math.inf
        self._unshown = 0

    @property
    def free(self) -> bool:
        """Whether it is no pace at all."""
        return self._pause <= 0

    def room(self, now: float) -> int:
        """How many requests there may be at once."""
        return BURST - math.ceil(max(self._full_at - now, 0.0) / self._pause) if self._pause > 0 else BURST

    def wait(self, now: float) -> float:
        """Seconds until there may be a request."""
        if self._pause <= 0:
            return 0.0
        return max(self._full_at - now - (BURST - 1) * self._pause, 0.0)

    def took(self, now: float, *, at_once: bool) -> None:
        """The gateway has taken one. ``at_once``: it shows what it keeps now, and not some time later, by its mode."""
        self._unshown = 0 if at_once or self.must_show(now) else self._kept(now) + 1
        self._full_at = max(self._full_at, now) + self._pause
        self._last = now

    def must_show(self, now: float) -> bool:
        """Whether the next is to be shown at once, whatever was wished: what it keeps has become too much."""
        return self._pause > 0 and self._kept(now) >= BURST - 1

    def _kept(self, now: float) -> int:
        return self._unshown if now - self._last < SHOWN_SECONDS else 0
