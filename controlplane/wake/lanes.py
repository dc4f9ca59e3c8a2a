"""Which wake of a gateway is next. Pure.

Wakes of one lane go in their order, one after the other; one that has to wait holds up its own lane alone. Lanes take
turns, so that one with a thousand wakes does not keep the others waiting.
"""

import bisect
import math
from collections import OrderedDict
from itertools import islice

import msgspec


class _Lane(msgspec.Struct):
    waiting: list[int]
    failures: int = 0
    due: float = 0.0


class Lanes:
    """Numbers of wakes. Times are seconds on the caller's clock."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, _Lane] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(lane.waiting) for lane in self._lanes.values())

    def put(self, name: str, number: int, *, first: bool = False) -> None:
        """Add a wake at its place; one that is there already is there once. ``first``: its lane is next."""
        lane = self._lanes.setdefault(name, _Lane(waiting=[]))
        if number > (lane.waiting or [-1])[-1]:
            lane.waiting.append(number)
        elif number not in lane.waiting:
            bisect.insort(lane.waiting, number)
        if first:
            self._lanes.move_to_end(name, last=False)

    def next(self, now: float) -> tuple[str, int] | None:
        """The lane whose turn it is, and its first wake; None where none is due."""
        for name, lane in self._lanes.items():
            if lane.due <= now:
                return name, lane.waiting[0]
        return None

    def several(self, now: float, most: int) -> list[tuple[str, int]]:
        """What :meth:`next` gives, and no more than ``most`` that may follow it, lanes taking turns. What has failed by
        itself has none beside it."""
        first = self.next(now)
        if first is None or self._lanes[first[0]].failures:
            return [] if first is None else [first]
        due = [(name, lane.waiting) for name, lane in self._lanes.items() if lane.due <= now and not lane.failures]
        rounds = min(most, max(len(waiting) for _, waiting in due))
        turns = ((name, waiting[turn]) for turn in range(rounds) for name, waiting in due if turn < len(waiting))
        return list(islice(turns, most))

    def due(self) -> float:
        """When the first of them is due; infinity where there is none."""
        return min((lane.due for lane in self._lanes.values()), default=math.inf)

    def done(self, name: str, number: int) -> None:
        """This wake is settled; the other lanes are next."""
        lane = self._lanes.get(name)
        if lane is None:
            return
        if number in lane.waiting:
            lane.waiting.remove(number)
        lane.failures, lane.due = 0, 0.0
        if lane.waiting:
            self._lanes.move_to_end(name)
        else:
            del self._lanes[name]

    def failed(self, name: str) -> int:
        """One more try of the lane's first wake has failed; how many in a row now."""
        lane = self._lanes[name]
        lane.failures += 1
        return lane.failures

    def later(self, name: str, due: float) -> None:
        """Not before then; meanwhile the other lanes."""
        lane = self._lanes[name]
        lane.due = due
        self._lanes.move_to_end(name)

    def now(self) -> None:
        """Nobody waits any more for the sake of an earlier failure."""
        for lane in self._lanes.values():
            lane.failures, lane.due = 0, 0.0
