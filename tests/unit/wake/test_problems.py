"""What a person is told to mend so that wakes arrive."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from controlplane.db import Database
from controlplane.wake import verdict
from controlplane.wake.service import WakeService
from protocol.wake import RetryWakes, TestWake
from tests.fakes.wake_gateway import Answer, Gateway, refusal
from tests.unit.wake.conftest import outgoing, running, settings, state
from tests.waiting import until


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wakes(
    database: Database, gateway: Gateway, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> WakeService:
    monkeypatch.setattr(verdict, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr("controlplane.wake.courier.TOKEN_SECONDS", 0.05)
    return WakeService(database, settings(tmp_path, gateway), tmp_path, outgoing(tmp_path), now=clock)


async def test_a_token_that_is_refused_is_said_at_once(wakes: WakeService, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "token-0").write_text("wrong-" * 8)
    async with running(wakes):
        assert wakes.problems() == []
        first = await wakes.wake("one")
        await wakes.wake("two")
        await until(lambda: state(wakes, first) == "rejected")
        gateways, lost = wakes.problems()
        assert gateways.startswith(
            "The gateway 'g0' is not woken, and one wake waits: The gateway does not take the token"
        )
        assert "into the tokenFile." in gateways and gateways.endswith("`perry wakes test --gateway g0` tries it.")
        assert lost.startswith("In the last 7 days, 1 of the wakes were refused or given up; `perry wakes list`")
        (tmp_path / "token-0").write_text(gateway.token)
        await until(lambda: wakes.problems() == [])


async def test_a_gateway_that_is_away_is_said_when_it_is_away_for_long(
    wakes: WakeService, gateway: Gateway, clock: Clock
) -> None:
    gateway.behave = lambda _: refusal(503, "starting")
    async with running(wakes):
        id_ = await wakes.wake("one")
        await until(lambda: wakes.gateways()[0].problem)
        assert wakes.problems() == []
        clock.now += timedelta(minutes=6)
        (said,) = wakes.problems()
        assert (
            "one wake waits: It answered 503: starting. See that it runs, and that hooks.gateways has its url" in said
        )
        gateway.behave = lambda _: Answer()
        await until(lambda: state(wakes, id_) == "delivered")
        assert wakes.problems() == []


async def test_wakes_that_were_given_up_are_said_for_a_week(wakes: WakeService, gateway: Gateway, clock: Clock) -> None:
    gateway.behave = lambda _: refusal(413, "too large")
    async with running(wakes):
        await wakes.test(TestWake())
        assert wakes.problems() == [], "a test is no wake that somebody waits for"
        id_ = await wakes.wake("one")
        await until(lambda: state(wakes, id_) == "rejected")
        (said,) = wakes.problems()
        assert "`perry wakes retry --all` sends them again" in said
        clock.now += timedelta(days=8)
        assert wakes.problems() == []
        clock.now -= timedelta(days=8)
        gateway.behave = lambda _: Answer()
        wakes.retry(RetryWakes())
        await until(lambda: state(wakes, id_) == "delivered")
        assert wakes.problems() == []
