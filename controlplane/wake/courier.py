"""Brings wakes to one gateway."""

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from itertools import takewhile
from pathlib import Path
from typing import Final

import anyio

from controlplane.errors import NotReady
from controlplane.secret_files import fingerprint, read_secret
from controlplane.settings.hooks import GatewaySettings
from controlplane.wake.lanes import Lanes
from controlplane.wake.outbox import Ended, Outbox
from controlplane.wake.pace import BURST, Pace
from controlplane.wake.record import Record, in_one_request
from controlplane.wake.sender import Sender
from controlplane.wake.target import Target
from controlplane.wake.trouble import Trouble
from controlplane.wake.verdict import Fate, Verdict, is_over, pause_after
from protocol.wake import WakeMode, WakeState

log = logging.getLogger(__name__)

TOKEN_SECONDS: Final = 5.0
"""How often a token's file is looked at while a gateway gets nothing for its sake."""

CRASH_SECONDS: Final = 5.0

GRACE_SECONDS: Final = 5.0
"""An attempt under way has so long when the control plane stops: one that is cut off is made again."""

DOUBTS: Final = 6
"""Failures in a row after which several that may have arrived are tried in other company all the same."""

TOGETHER: Final = 200
"""Wakes in one request, at most."""


class Courier:
    """Brings wakes to one gateway, one request at a time: each by itself, or all that wait where its pace has no room.

    What may have arrived goes again before anything else, and a gateway that keeps it still drops it. Where it fails
    then for its own sake, others go in between, and it may be shown twice.
    """

    def __init__(
        self,
        gateway: GatewaySettings,
        target: Callable[[], Target],
        token_file: Path,
        sender: Callable[[Target], Sender],
        outbox: Outbox,
        now: Callable[[], datetime],
    ) -> None:
        self.kind = gateway.kind
        self.trouble = Trouble(gateway.name, now)
        self._target = target
        self._token_file = token_file
        self._sender = sender
        self._outbox = outbox
        self._now = now
        self._lanes = Lanes()
        self._lane_of: dict[int, str] = {}
        self._tests: set[int] = set()
        self._unsure: list[int] = []
        """What was sent last and may have arrived: the same goes again, before anything else."""
        self._alone: set[int] = set()
        """Those that may have arrived, each by itself, and fail now for their own sake: they go with no others."""
        self._doubts = 0
        """How often that failed since, for its own sake."""
        self._most = TOGETHER
        """How many go together: fewer, after a request with several failed for the sake of one of them."""
        self._pause = gateway.pace
        self._pace = Pace(gateway.pace)
        self._wanted = anyio.Event()
        self._refused: str | None = None
        self._closing = False
        self._attempt = anyio.CancelScope()

    @property
    def target(self) -> Target:
        return self._target()

    @property
    def waiting(self) -> int:
        """Wakes that wait for this gateway."""
        return len(self._lanes)

    @property
    def refused(self) -> bool:
        """Whether the gateway does not take the token that there is."""
        return self._refused is not None

    def put(self, record: Record) -> None:
        """One more wake."""
        self._lanes.put(record.lane, record.number, first=record.only_once)
        self._lane_of[record.number] = record.lane
        if record.only_once:
            self._tests.add(record.number)
        self._wanted.set()

    def resume(self, unsure: Sequence[Record]) -> None:
        """Go on where an earlier process stopped; ``unsure`` are those of which it did not know whether they arrived.
        They are put already."""
        if self.target.generic:
            return  # It knows ids, and each of its requests is one wake, also of those that another gateway had.
        requests: dict[int, list[int]] = {}
        for record in unsure:
            if not record.only_once:
                requests.setdefault(record.sent or 0, []).append(record.number)
        *alone, self._unsure = sorted(requests.values(), key=len) or [[]]
        self._alone.update(number for numbers in alone for number in numbers)
        now = self._now()
        for at in self._outbox.taken_since(self.target.name, now - timedelta(seconds=2 * BURST * self._pause)):
            self._pace.took(time.monotonic() - max((now - at).total_seconds(), 0.0), at_once=True)

    def reopen_refused(self) -> None:
        """Try again what was refused for the sake of a token: there may be another."""
        name = self.target.name
        self._outbox.reopen("status IN (401, 403) AND gateway = ?", (name,), gateways=[name], default=name)
        self._refused = None

    def hurry(self) -> None:
        """Try now, whatever failed before; with what was refused for the sake of a token, be it another now or not."""
        self.trouble.hurry()
        self._lanes.now()
        self._wanted.set()
        if self._refused is not None:
            self.reopen_refused()

    def close(self) -> None:
        """Begin nothing more; what is under way has a moment."""
        self._closing = True
        self._attempt.deadline = min(self._attempt.deadline, anyio.current_time() + GRACE_SECONDS)
        self._wanted.set()

    async def run(self) -> None:
        """Until closed or cancelled. Reports trouble and goes on."""
        while not self._closing:
            self._wanted = anyio.Event()
            try:
                pause = await self._turn()
            except Exception:
                log.exception("a wake could not be dealt with")
                pause = CRASH_SECONDS
            if pause > 0 and not self._closing:
                with anyio.move_on_after(pause):
                    await self._wanted.wait()

    async def _turn(self) -> float:
        """One attempt, if one is due. Seconds until there may be another; 0 for at once."""
        now = time.monotonic()
        following = self._lanes.next(now)
        if following is None:
            return self._lanes.due() - now if self._refused is None else self._look_at_token()
        number = following[1]
        wait = 0.0 if number in self._tests else self._pace.wait(now)
        if (wait := max(wait, self.trouble.wait(now))) > 0:
            return wait
        if self._refused is not None:
            return self._look_at_token()
        try:
            secret = read_secret(self._token_file)
        except NotReady as exc:
            return self._without_token(number, exc.message)
        await self._deliver(self._chosen(number, now), secret)
        return 0.0

    def _look_at_token(self) -> float:
        """Whether there is another than the one that was refused. What was refused for its sake stands before what
        came after it."""
        with contextlib.suppress(NotReady):
            if fingerprint(read_secret(self._token_file)) != self._refused:
                self.reopen_refused()
                return 0.0
        return TOKEN_SECONDS

    def _chosen(self, number: int, now: float) -> list[int]:
        """What goes in the next request; ``number`` is the first whose turn it is."""
        if number in self._tests:
            return [number]
        if self._unsure:
            return self._unsure
        if self._pace.free or number in self._alone:
            return [number]
        several = self._lanes.several(now, max(self._most, BURST + 1))
        candidates = list(takewhile(lambda each: each[1] not in self._alone, several))
        if len(candidates) <= self._pace.room(now):
            return [number]
        waiting = {record.number: record for record in self._outbox.texts([each for _, each in candidates])}
        in_turn = [waiting[each] for _, each in candidates if each in waiting]
        return [record.number for record in in_one_request(in_turn, self._most)] if in_turn else [number]

    def _without_token(self, number: int, sentence: str) -> float:
        self.trouble.say(sentence)
        record = self._outbox.by_number(number)
        if record is not None and record.settled is None:
            if not record.only_once:
                return TOKEN_SECONDS
            self._outbox.settle(record, WakeState.REJECTED, sentence)
        self._done([number])
        return 0.0

    async def _deliver(self, numbers: Sequence[int], secret: str) -> None:
        records = self._outbox.begin(numbers)
        self._done(set(numbers) - {record.number for record in records})
        if not records:
            return
        cut = Verdict(fate=Fate.RETRY, answer="It was cut off, as Perry ended.")
        numbers = [record.number for record in records]
        in_doubt = bool(self._unsure) or numbers[0] in self._alone
        if not records[0].only_once:
            self._unsure = numbers
        # Shielded, so that the end of the control plane leaves it a moment (see `close`).
        with anyio.CancelScope(shield=True) as self._attempt:
            if self._closing:
                self._attempt.deadline = anyio.current_time() + GRACE_SECONDS
            try:
                at_once = self._pace.must_show(time.monotonic())
                verdict = await self._sender(self.target).send(records, secret, at_once=at_once)
            except NotReady as exc:
                verdict = Verdict(fate=Fate.RETRY, answer=exc.message, everybody=True)
            self._note(records, verdict, secret, in_doubt=in_doubt or verdict.in_doubt)
        if self._attempt.cancelled_caught:
            self._outbox.end([(record, WakeState.QUEUED, cut, self._now()) for record in records], in_doubt=True)

    def _note(self, records: Sequence[Record], verdict: Verdict, secret: str, *, in_doubt: bool) -> None:
        """What follows from the verdict, for these wakes and for the gateway."""
        if not in_doubt and not records[0].only_once and verdict.fate is not Fate.DELIVERED:
            self._unsure = []  # What was delivered stays so until that is noted.
        several = len(records) > 1
        match verdict.fate:
            case Fate.DELIVERED:
                self._settle(records, WakeState.DELIVERED, verdict)
                self._answered()
                self._pace.took(time.monotonic(), at_once=any(record.mode == WakeMode.NOW for record in records))
            case Fate.NO_ENTRY:
                self._settle(records, WakeState.REJECTED, verdict)
                self._refused = fingerprint(secret)
                self.trouble.say(verdict.answer)
            case _ if verdict.everybody:
                self._try_again(records, verdict, self.trouble.failed(verdict), in_doubt=in_doubt)
            case Fate.RETRY if several and in_doubt and self._doubts < DOUBTS:
                # Others than those that may have arrived would be told twice.
                self._doubts += 1
                self._try_again(records, verdict, self.trouble.failed(verdict), in_doubt=True)
            case _ if several:
                # For the sake of one of them, and who knows of which.
                self._most, self._unsure, self._doubts = len(records) // 2, [], 0
                self._outbox.end([(record, WakeState.QUEUED, verdict, self._now()) for record in records])
            case Fate.REJECTED:
                self._settle(records, WakeState.REJECTED, verdict)
                self._answered()
                log.warning("wake %s was rejected: %s", records[0].id, verdict.answer)
            case _:
                number = records[0].number
                lane = self._lane_of[number]
                if in_doubt and not records[0].only_once:
                    self._unsure = []
                    self._alone.add(number)
                pause = pause_after(self._lanes.failed(lane), random.random)
                self._lanes.later(lane, time.monotonic() + pause)
                self._try_again(records, verdict, pause, in_doubt=in_doubt)

    def _try_again(self, records: Sequence[Record], verdict: Verdict, pause: float, *, in_doubt: bool) -> None:
        """Later, unless they were tried for long enough."""
        now, over = self._now(), WakeState.REJECTED if records[0].only_once else WakeState.DEAD
        ended: list[Ended] = [
            (record, over, verdict, None)
            if record.only_once or is_over(record.since, now)
            else (record, WakeState.QUEUED, verdict, now + timedelta(seconds=pause))
            for record in records
        ]
        self._outbox.end(ended, in_doubt=in_doubt)
        self._done([record.number for record, state, *_ in ended if state is not WakeState.QUEUED])

    def _answered(self) -> None:
        """The gateway has, as it should."""
        self.trouble.over()
        self._most, self._doubts = TOGETHER, 0

    def _settle(self, records: Sequence[Record], state: WakeState, verdict: Verdict) -> None:
        self._outbox.end([(record, state, verdict, None) for record in records])
        self._done([record.number for record in records])

    def _done(self, numbers: Iterable[int]) -> None:
        """They are settled; what was unsure of them is sure."""
        for number in numbers:
            if (lane := self._lane_of.pop(number, None)) is not None:
                self._lanes.done(lane, number)
            self._tests.discard(number)
            self._alone.discard(number)
        self._unsure = [number for number in self._unsure if number in self._lane_of]
