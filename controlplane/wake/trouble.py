"""Why a gateway gets nothing for now, and for how long."""

import logging
import random
import time
from collections.abc import Callable
from datetime import datetime

from controlplane.wake.verdict import Verdict, pause_after

log = logging.getLogger(__name__)


class Trouble:
    """One gateway's. ``problem`` is a sentence, or None; ``since`` means nothing without one."""

    def __init__(self, name: str, now: Callable[[], datetime]) -> None:
        self.problem: str | None = None
        self.since: datetime | None = None
        self._name = name
        self._now = now
        self._failures = 0
        self._not_before = 0.0

    def wait(self, now: float) -> float:
        """Seconds until it is tried again, on the clock of ``time.monotonic``."""
        return self._not_before - now

    def failed(self, verdict: Verdict) -> float:
        """One more attempt has, for the gateway's sake. Seconds until the next."""
        self._failures += 1
        pause = max(pause_after(self._failures, random.random), verdict.pause or 0.0)
        self._not_before = time.monotonic() + pause
        self.say(verdict.answer)
        return pause

    def say(self, sentence: str) -> None:
        """This is what is wrong."""
        if self.problem is None:
            self.since = self._now()
        if self.problem != sentence:
            self.problem = sentence
            log.warning("wakes for the gateway %s wait: %s", self._name, sentence)

    def hurry(self) -> None:
        """It is tried now, whatever failed before."""
        self._failures, self._not_before = 0, 0.0

    def over(self) -> None:
        """It has answered as it should."""
        self._failures, self.problem = 0, None
