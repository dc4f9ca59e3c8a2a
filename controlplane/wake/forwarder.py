"""Brings wakes to their gateways: for each gateway one courier, so that a slow one delays no other."""

import hashlib
import logging
import random
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import anyio

from controlplane.errors import NotReady
from controlplane.secret_files import read_secret
from controlplane.wake.lanes import Lanes
from controlplane.wake.outbox import Outbox
from controlplane.wake.record import Record
from controlplane.wake.sender import Sender
from controlplane.wake.target import Target
from controlplane.wake.verdict import Fate, Verdict, is_over, pause_after
from protocol.wake import WakeState

log = logging.getLogger(__name__)

TOKEN_SECONDS: Final = 5.0
"""How often a token's file is looked at while a gateway gets nothing for its sake."""

CRASH_SECONDS: Final = 5.0

GRACE_SECONDS: Final = 5.0
"""An attempt under way has so long when the control plane stops: one that is cut off is made again."""


class Courier:
    """Brings wakes to one gateway, one at a time: what is told twice is told twice in a row, and dropped there."""

    def __init__(
        self,
        target: Callable[[], Target],
        kind: str,
        token_file: Path,
        sender: Callable[[Target], Sender],
        outbox: Outbox,
        now: Callable[[], datetime],
    ) -> None:
        self.kind = kind
        self.problem: str | None = None
        """Why the gateway gets nothing for now, in a sentence."""
        self.troubled_since: datetime | None = None
        """Since when there is a problem, whichever; of no meaning where there is none."""
        self._target = target
        self._token_file = token_file
        self._sender = sender
        self._outbox = outbox
        self._now = now
        self._lanes = Lanes()
        self._wanted = anyio.Event()
        self._failures = 0
        self._not_before = 0.0
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
        self._wanted.set()

    def reopen_refused(self) -> None:
        """Try again what was refused for the sake of a token: there may be another."""
        name = self.target.name
        self._outbox.reopen("status IN (401, 403) AND gateway = ?", (name,), gateways=[name], default=name)

    def hurry(self) -> None:
        """Try now, whatever failed before."""
        self._failures, self._not_before, self._refused = 0, 0.0, None
        self._lanes.now()
        self._wanted.set()

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
            return self._lanes.due() - now
        if now < self._not_before:
            return self._not_before - now
        lane, number = following
        try:
            secret = read_secret(self._token_file)
            if _print(secret) == self._refused:
                return TOKEN_SECONDS
        except NotReady as exc:
            return self._without_token(lane, number, exc.message)
        if self._refused is not None:
            self._refused = None
            # What was refused for the sake of the old token stands before what came after it.
            self.reopen_refused()
            return 0.0
        await self._deliver(lane, number, secret)
        return 0.0

    def _without_token(self, lane: str, number: int, sentence: str) -> float:
        self._say(sentence)
        if (record := self._outbox.by_number(number)) is None or record.settled is not None:
            self._lanes.done(lane, number)
            return 0.0
        if record.only_once:
            self._outbox.settle(record, WakeState.REJECTED, sentence)
            self._lanes.done(lane, number)
            return 0.0
        return TOKEN_SECONDS

    async def _deliver(self, lane: str, number: int, secret: str) -> None:
        record = self._outbox.begin(number)
        if record is None:
            self._lanes.done(lane, number)
            return
        cut = Verdict(fate=Fate.RETRY, answer="It was cut off, as Perry ended.")
        # Shielded, so that the end of the control plane leaves it a moment (see `close`).
        with anyio.CancelScope(shield=True) as self._attempt:
            if self._closing:
                self._attempt.deadline = anyio.current_time() + GRACE_SECONDS
            try:
                verdict = await self._sender(self.target).send(record, secret)
            except NotReady as exc:
                verdict = Verdict(fate=Fate.RETRY, answer=exc.message, everybody=True)
            self._note(lane, record, verdict, secret)
        if self._attempt.cancelled_caught:
            self._outbox.end(record, WakeState.QUEUED, cut, self._now())

    def _note(self, lane: str, record: Record, verdict: Verdict, secret: str) -> None:
        """What follows from the verdict, for this wake and for the gateway."""
        over = record.only_once or is_over(record.since, self._now())
        match verdict.fate:
            case Fate.DELIVERED:
                self._settle(lane, record, WakeState.DELIVERED, verdict)
                self._failures, self.problem = 0, None
            case Fate.REJECTED:
                self._settle(lane, record, WakeState.REJECTED, verdict)
                self._failures, self.problem = 0, None
                log.warning("wake %s was rejected: %s", record.id, verdict.answer)
            case Fate.NO_ENTRY:
                self._settle(lane, record, WakeState.REJECTED, verdict)
                self._refused = _print(secret)
                self._say(verdict.answer)
            case _ if over:
                self._settle(lane, record, WakeState.REJECTED if record.only_once else WakeState.DEAD, verdict)
                if verdict.everybody:
                    self._wait_for_gateway(verdict)
            case _ if verdict.everybody:
                pause = self._wait_for_gateway(verdict)
                self._outbox.end(record, WakeState.QUEUED, verdict, self._now() + timedelta(seconds=pause))
            case _:
                pause = pause_after(self._lanes.failed(lane), random.random)
                self._lanes.later(lane, time.monotonic() + pause)
                self._outbox.end(record, WakeState.QUEUED, verdict, self._now() + timedelta(seconds=pause))

    def _settle(self, lane: str, record: Record, state: WakeState, verdict: Verdict) -> None:
        self._outbox.end(record, state, verdict, None)
        self._lanes.done(lane, record.number)

    def _wait_for_gateway(self, verdict: Verdict) -> float:
        self._failures += 1
        pause = max(pause_after(self._failures, random.random), verdict.pause or 0.0)
        self._not_before = time.monotonic() + pause
        self._say(verdict.answer)
        return pause

    def _say(self, sentence: str) -> None:
        if self.problem is None:
            self.troubled_since = self._now()
        if self.problem != sentence:
            self.problem = sentence
            log.warning("wakes for the gateway %s wait: %s", self.target.name, sentence)


class Forwarder:
    """All couriers, by the names of their gateways."""

    def __init__(self, couriers: dict[str, Courier], default: str) -> None:
        self.couriers = couriers
        self.default = default

    def arrived(self, record: Record) -> None:
        """A wake is in the outbox."""
        if (courier := self.couriers.get(record.gateway)) is not None:
            courier.put(record)

    def hurry(self) -> None:
        for courier in self.couriers.values():
            courier.hurry()

    def close(self) -> None:
        for courier in self.couriers.values():
            courier.close()

    async def run(self) -> None:
        """Until closed or cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._close_when_cancelled)
            async with anyio.create_task_group() as at_work:
                for courier in self.couriers.values():
                    at_work.start_soon(courier.run)
            tasks.cancel_scope.cancel()

    async def _close_when_cancelled(self) -> None:
        """Attempts are shielded: without this, whoever cancels would wait for a gateway that does not answer."""
        try:
            await anyio.sleep_forever()
        finally:
            self.close()


def _print(secret: str) -> str:
    """Tells secrets apart, and tells nothing of them."""
    return hashlib.sha256(secret.encode()).hexdigest()
