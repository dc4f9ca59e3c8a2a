"""How often somebody may wake: a bucket that fills by itself. Pure."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

BURST: Final = 100
A_SECOND: Final = 5.0
CALLERS: Final = 4096


class Rate:
    """Buckets by caller. ``now`` gives seconds."""

    def __init__(self, now: Callable[[], float], *, burst: int = BURST, a_second: float = A_SECOND) -> None:
        self._now = now
        self._burst = float(burst)
        self._a_second = a_second
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def wait(self, caller: str) -> float:
        """0 where the caller may, which is counted; else the seconds until it may."""
        now = self._now()
        # When its bucket will be full again says how full it is.
        full_at = max(self._full_at.get(caller, now), now) + 1 / self._a_second
        over = (full_at - now) * self._a_second - self._burst
        if over > 0:
            return over / self._a_second
        self._full_at[caller] = full_at
        self._full_at.move_to_end(caller)
        while len(self._full_at) > CALLERS:
            self._full_at.popitem(last=False)
        return 0.0
