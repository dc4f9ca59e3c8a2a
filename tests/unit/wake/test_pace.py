"""A backlog: how many requests a gateway gets, what goes together in them, and that nothing is lost, or told twice."""

import base64
import json
import re
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from controlplane.db import Database
from controlplane.wake import courier, verdict
from controlplane.wake.lanes import Lanes
from controlplane.wake.message import mode_of_all, together
from controlplane.wake.outbox import Ended, Outbox
from controlplane.wake.pace import BURST, Pace
from controlplane.wake.record import Record, in_one_request
from controlplane.wake.service import WakeService
from protocol.wake import TEXT_LIMIT, ListWakes, RetryWakes, SessionTarget, TestWake, WakeRef, WakeState
from tests.fakes.wake_gateway import Answer, Gateway, Heard, refusal
from tests.unit.wake.conftest import outgoing, running, settings, state
from tests.waiting import until

BACKLOG = 60
LONG = 3600.0
"""A pause that no test waits for."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "FIRST_PAUSE", 0.02)


def make(
    database: Database, folder: Path, *gateways: Gateway, kind: str = "openclaw", pause: float = LONG
) -> WakeService:
    return WakeService(database, settings(folder, *gateways, kind=kind, pause=pause), folder, outgoing(folder))


def told(heard: Heard) -> list[str]:
    """The ids of the wakes in a request, in order."""
    return re.findall(r"^\[Perry ([\w.-]+)[,\]]", heard.text, re.MULTILINE)


async def backlog(wakes: WakeService, count: int = BACKLOG) -> list[str]:
    async def add(number: int) -> None:
        await wakes.wake(f"number {number}", id=f"w-{number}", workspace=("alpha", "beta")[number % 2])

    async with anyio.create_task_group() as tasks:
        for number in range(count):
            tasks.start_soon(add, number)
    return [f"w-{number}" for number in range(count)]


# --- values


@pytest.mark.parametrize(
    ("took", "now", "room", "wait"),
    [
        ([], 0.0, 10, 0.0),
        ([0.0], 0.0, 9, 0.0),
        ([0.0], 19.9, 9, 0.0),
        ([0.0], 20.0, 10, 0.0),
        ([0.0] * 9, 0.0, 1, 0.0),
        ([0.0] * 10, 0.0, 0, 20.0),
        ([0.0] * 10, 15.0, 0, 5.0),
        ([0.0] * 10, 20.0, 1, 0.0),
        ([0.0] * 10, 200.0, 10, 0.0),
        # What was not to be held back, as a test of a person's, counts all the same.
        ([0.0] * 12, 0.0, -2, 60.0),
        ([0.0] * 10 + [20.0], 25.0, 0, 15.0),
    ],
)
def test_some_at_once_and_then_one_at_a_time(took: list[float], now: float, room: int, wait: float) -> None:
    pace = Pace(20.0)
    for at in took:
        pace.took(at, at_once=True)
    assert (pace.room(now), pace.wait(now)) == (room, wait)


def test_a_gateway_that_keeps_twenty_never_gets_more_in_a_turn_of_three_minutes() -> None:
    pace, sent, now = Pace(20.0), [], 0.0
    while now < 900.0:
        now += pace.wait(now)
        pace.took(now, at_once=True)
        sent.append(now)
    assert max(sum(at <= each < at + 180 for each in sent) for at in sent) < 20


def test_no_pace() -> None:
    pace = Pace(0.0)
    for _ in range(100):
        pace.took(0.0, at_once=False)
    assert (pace.room(0.0), pace.wait(0.0), pace.must_show(0.0), pace.free) == (BURST, 0.0, False, True)


def test_what_is_for_later_is_shown_before_it_is_too_much() -> None:
    pace = Pace(20.0)
    shown = []
    for _ in range(25):
        shown.append(pace.must_show(0.0))
        pace.took(0.0, at_once=shown[-1])
    assert [place for place, each in enumerate(shown) if each] == [9, 19]


@pytest.mark.parametrize(("hours", "places"), [(1, [9, 19]), (11, [9, 19]), (13, []), (24, [])])
def test_what_came_a_night_ago_is_shown_already(hours: int, places: list[int]) -> None:
    pace = Pace(20.0)
    shown = []
    for number in range(25):
        now = number * hours * 3600.0
        shown.append(pace.must_show(now))
        pace.took(now, at_once=shown[-1])
    assert [place for place, each in enumerate(shown) if each] == places


def test_many_a_night_ago_are_shown_already() -> None:
    pace = Pace(20.0)
    for _ in range(BURST - 1):
        pace.took(0.0, at_once=False)
    assert pace.must_show(3600.0) and not pace.must_show(13 * 3600.0)


def test_lanes_give_several_in_turn() -> None:
    lanes = Lanes()
    for number, name in enumerate("aaabbc"):
        lanes.put(name, number)
    assert lanes.several(0.0, 9) == [("a", 0), ("b", 3), ("c", 5), ("a", 1), ("b", 4), ("a", 2)]
    assert lanes.several(0.0, 2) == [("a", 0), ("b", 3)]
    lanes.failed("b")
    lanes.later("b", 5.0)
    # What has failed goes alone, and holds up nobody.
    assert lanes.several(0.0, 9) == [("a", 0), ("c", 5), ("a", 1), ("a", 2)]
    lanes.done("a", 0)
    lanes.done("c", 5)
    lanes.later("a", 9.0)
    assert lanes.several(6.0, 9) == [("b", 3)]
    assert Lanes().several(0.0, 9) == []


def record(number: int, text: str = "x", session: SessionTarget = SessionTarget.MAIN, lane: str = "") -> Record:
    at = datetime(2026, 11, 21, tzinfo=UTC)
    return Record(
        number=number, id=f"w-{number}", lane=lane, text=text, mode="now", gateway="g", state=WakeState.QUEUED,
        created=at, since=at, attempts=0, session=session,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("records", "most", "chosen"),
    [
        ([record(1), record(2), record(3)], 9, [1, 2, 3]),
        ([record(1), record(2), record(3)], 2, [1, 2]),
        ([record(1, session=SessionTarget.ISOLATED), record(2)], 9, [1]),
        ([record(1), record(2, session=SessionTarget.ISOLATED), record(3)], 9, [1]),
        ([record(1, "x" * TEXT_LIMIT), record(2)], 9, [1]),
        ([record(1), record(2, "é" * (TEXT_LIMIT // 2)), record(3)], 9, [1]),
        # One that cannot go with them holds up its own lane alone.
        (
            [
                record(1, lane="a"),
                record(2, "x" * TEXT_LIMIT, lane="b"),
                record(3, lane="c"),
                record(4, lane="a"),
                record(5, lane="b"),
                record(6, lane="c"),
                record(7, lane="b"),
            ],
            9,
            [1, 3, 4, 6],
        ),
        (
            [record(1, lane="a"), record(2, "x" * TEXT_LIMIT, lane="b"), record(3, lane="c"), record(4, lane="a")],
            2,
            [1, 3],
        ),
        ([record(1, lane="a"), record(2, session=SessionTarget.ISOLATED, lane="b"), record(3, lane="c")], 9, [1, 3]),
        ([record(1, session=SessionTarget.ISOLATED, lane="a"), record(2, lane="b")], 9, [1]),
        ([record(1, "x" * TEXT_LIMIT, lane="a"), record(2, lane="b"), record(3, lane="c")], 9, [1]),
    ],
)
def test_what_may_go_in_one_request(records: list[Record], most: int, chosen: list[int]) -> None:
    assert [each.number for each in in_one_request(records, most)] == chosen


def test_several_at_once_are_each_what_they_are() -> None:
    assert together(["[Perry a] x"]) == "[Perry a] x"
    assert together(["[Perry a] x", "[Perry b] y\nz"]) == "[Perry, 2 wakes that waited]\n[Perry a] x\n[Perry b] y\nz"
    assert mode_of_all(["next-heartbeat", "next-heartbeat"]) == "next-heartbeat"
    assert mode_of_all(["next-heartbeat", "now"]) == "now"


# --- a gateway that keeps few


async def test_after_an_outage_all_arrive_in_few_requests(database: Database, tmp_path: Path, gateway: Gateway) -> None:
    gateway.behave = lambda _: refusal(503, "starting", **{"Retry-After": "600"})
    wakes = make(database, tmp_path, gateway)
    async with running(wakes):
        first = await wakes.wake("the first", id="first", workspace="alpha")
        await until(lambda: wakes.show(WakeRef(id=first)).wake.answer)
        ids = await backlog(wakes)
        gateway.behave = lambda _: Answer()
        wakes.retry(RetryWakes())
        await until(lambda: all(state(wakes, each) == "delivered" for each in (first, *ids)))
    assert [told(heard) for heard in gateway.accepted] == [["first", *ids]]
    assert gateway.accepted[0].key == "first+60"
    listed = wakes.page(ListWakes(limit=100)).items
    assert [wake.id for wake in reversed(listed)] == ["first", *ids]
    shown = wakes.show(WakeRef(id="w-7"))
    assert shown.text == "[Perry w-7, from workspace beta] number 7"
    assert [(attempt.status, attempt.answer) for attempt in shown.attempts] == [(200, "200 (with 60 more at once)")]


async def test_one_is_never_held_up(database: Database, tmp_path: Path, gateway: Gateway) -> None:
    wakes = make(database, tmp_path, gateway)
    async with running(wakes):
        for number in range(BURST):
            id_ = await wakes.wake(f"{number}")
            await until(lambda id_=id_: state(wakes, id_) == "delivered")  # type: ignore[misc]
    assert [len(told(heard)) for heard in gateway.accepted] == [1] * BURST


async def test_what_comes_after_many_goes_together(database: Database, tmp_path: Path, gateway: Gateway) -> None:
    wakes = make(database, tmp_path, gateway, pause=0.3)
    async with running(wakes):
        for number in range(BURST):
            id_ = await wakes.wake(f"{number}")
            await until(lambda id_=id_: state(wakes, id_) == "delivered")  # type: ignore[misc]
        ids = await backlog(wakes, BURST + 2)
        await until(lambda: wakes.gateways()[0].waiting == 0)
    assert [told(heard) for heard in gateway.accepted[BURST:]] == [ids]


async def test_those_who_keep_all_are_told_each_by_itself(database: Database, tmp_path: Path, gateway: Gateway) -> None:
    wakes = make(database, tmp_path, gateway, pause=0)
    async with running(wakes):
        ids = await backlog(wakes)
        await until(lambda: len(gateway.accepted) == BACKLOG)
    assert sorted(heard.key for heard in gateway.accepted) == sorted(ids)


async def test_a_generic_gateway_has_no_pace(tmp_path: Path, gateway: Gateway) -> None:
    assert settings(tmp_path, gateway, kind="generic", pause=LONG).gateways[0].pace == 0
    assert settings(tmp_path, gateway, kind="clawdbot", pause=LONG).gateways[0].pace == LONG


async def test_a_new_process_sends_the_same_again_and_keeps_the_pace(
    database: Database, tmp_path: Path, gateway: Gateway
) -> None:
    """The gateway took it and nobody heard of that: the same bytes are told apart, and dropped."""
    gateway.behave = lambda _: Answer(cut_after=0)
    wakes = make(database, tmp_path, gateway)
    ids = await backlog(wakes)
    async with running(wakes):
        await until(lambda: len(gateway.heard) >= 2)
    again = make(database, tmp_path, gateway)
    # These are not among them.
    late = await again.wake("late", id="w-late", workspace="alpha")
    gateway.behave = lambda _: Answer()
    async with running(again):
        await until(lambda: state(again, late) == "delivered")
    assert len({heard.body for heard in gateway.heard[:-1]}) == 1
    assert [told(heard) for heard in gateway.accepted] == [ids, [late]]
    third = make(database, tmp_path, gateway)
    async with running(third):
        # Two of ten were taken before: there is room for eight.
        more = [await third.wake(f"more {number}") for number in range(BURST - 2)]
        await until(lambda: all(state(third, each) == "delivered" for each in more))
        one_more = await third.wake("one more")
        await anyio.sleep(0.1)
        assert state(third, one_more) == "queued"


@pytest.mark.parametrize("waiting", [1, BACKLOG])
async def test_what_may_have_arrived_goes_again_as_it_was(
    database: Database, tmp_path: Path, gateway: Gateway, waiting: int
) -> None:
    """Also where the gateway fails in between, for the sake of one of them maybe, and where more come meanwhile."""
    answers = [Answer(cut_after=0), refusal(500, "boom"), refusal(503, "later"), refusal(500, "boom")]
    gateway.behave = lambda _: answers.pop(0) if answers else Answer()
    wakes = make(database, tmp_path, gateway)
    ids = await backlog(wakes, waiting)
    async with running(wakes):
        await until(lambda: len(gateway.heard) >= 2)
        late = await wakes.wake("late", id="w-late", workspace="alpha")
        await until(lambda: all(state(wakes, each) == "delivered" for each in (*ids, late)))
    assert [told(heard) for heard in gateway.accepted] == [ids, [late]]
    assert len({heard.body for heard in gateway.heard}) == 2


async def test_what_was_taken_and_could_not_be_noted_goes_again_as_it_was(
    database: Database, tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: more come meanwhile, and are in no request with those."""
    end, failures = Outbox.end, 0

    def full(self: Outbox, ended: Sequence[Ended], *, in_doubt: bool = False) -> None:
        nonlocal failures
        if not failures:
            failures += 1
            raise sqlite3.OperationalError("database or disk is full")
        end(self, ended, in_doubt=in_doubt)

    monkeypatch.setattr(Outbox, "end", full)
    wakes = make(database, tmp_path, gateway)
    ids = await backlog(wakes)
    async with running(wakes):
        await until(lambda: failures)
        # It is tried anew as soon as another comes.
        late = await wakes.wake("late", id="w-late", workspace="alpha")
        await until(lambda: all(state(wakes, each) == "delivered" for each in (*ids, late)))
    assert [told(heard) for heard in gateway.heard] == [ids, ids, [late]]
    assert gateway.heard[0].body == gateway.heard[1].body


async def test_a_new_process_tells_apart_what_may_have_arrived(
    database: Database, tmp_path: Path, gateway: Gateway
) -> None:
    """One by itself, which fails since, and several at once."""
    cut: set[str] = set()

    def behave(heard: Heard) -> Answer:
        if heard.key not in cut:
            cut.add(heard.key)
            return Answer(cut_after=0)
        return refusal(500, "boom")

    gateway.behave = behave
    wakes = make(database, tmp_path, gateway)
    async with running(wakes):
        first = await wakes.wake("first", id="first", workspace="gamma")
        await until(lambda: wakes.show(WakeRef(id=first)).wake.attempts > 1)
        ids = await backlog(wakes)
        await until(lambda: len(cut) == 2)
    gateway.behave = lambda _: Answer()
    again = make(database, tmp_path, gateway)
    async with running(again):
        await until(lambda: all(state(again, each) == "delivered" for each in (first, *ids)))
    assert [told(heard) for heard in gateway.accepted] == [["first"], ids]


async def test_a_gateway_that_becomes_a_generic_one_is_told_each(
    database: Database, tmp_path: Path, gateway: Gateway
) -> None:
    gateway.behave = lambda _: Answer(cut_after=0)
    wakes = make(database, tmp_path, gateway)
    ids = await backlog(wakes)
    async with running(wakes):
        await until(lambda: gateway.heard)
    gateway.behave = lambda _: Answer()
    again = make(database, tmp_path, gateway, kind="generic")
    (tmp_path / "token-0").write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
    async with running(again):
        await until(lambda: state(again, ids[0]) == "rejected")
    # It refused the first, as this one knows no signatures; no other was in that request.
    assert (gateway.heard[-1].key, gateway.heard[-1].json["data"]["id"]) == (ids[0], ids[0])
    assert state(again, ids[1]) == "queued"


async def test_what_fails_on_and_on_goes_in_other_company(
    database: Database, tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "DOUBTS", 2)
    cut = [Answer(cut_after=0)]
    gateway.behave = lambda heard: cut.pop() if cut else refusal(500, "boom") if len(told(heard)) > 20 else Answer()
    wakes = make(database, tmp_path, gateway, pause=0.02)
    ids = await backlog(wakes)
    async with running(wakes):
        await until(lambda: all(state(wakes, each) == "delivered" for each in ids))
    assert [len(told(heard)) for heard in gateway.heard[:4]] == [BACKLOG] * 4
    assert [id_ for heard in gateway.accepted[1:] for id_ in told(heard)] == ids


async def test_one_that_is_refused_is_found_among_many(database: Database, tmp_path: Path, gateway: Gateway) -> None:
    def behave(heard: Heard) -> Answer:
        return refusal(400, "no") if "number 17" in heard.text else Answer()

    gateway.behave = behave
    wakes = make(database, tmp_path, gateway, pause=0.02)
    ids = await backlog(wakes)
    async with running(wakes):
        await until(lambda: wakes.gateways()[0].waiting == 0)
    assert [each for each in ids if state(wakes, each) != "delivered"] == ["w-17"]
    assert state(wakes, "w-17") == "rejected"
    shown = [id_ for heard in gateway.accepted for id_ in told(heard)]
    assert len(shown) == len(set(shown)) == BACKLOG - 1
    for parity in (0, 1):
        mine = [int(id_[2:]) for id_ in shown if int(id_[2:]) % 2 == parity]
        assert mine == sorted(mine)


async def test_one_that_fails_for_a_while_holds_up_its_workspace_alone(
    database: Database, tmp_path: Path, gateway: Gateway
) -> None:
    failures = 12

    def behave(heard: Heard) -> Answer:
        nonlocal failures
        if "number 0" in heard.text and failures > 0:
            failures -= 1
            return refusal(500, "boom")
        return Answer()

    gateway.behave = behave
    wakes = make(database, tmp_path, gateway, pause=0.02)
    await backlog(wakes)
    async with running(wakes):
        await until(lambda: wakes.gateways()[0].waiting == 0)
    shown = [int(id_[2:]) for heard in gateway.accepted for id_ in told(heard)]
    assert sorted(shown) == list(range(BACKLOG))
    assert [each for each in shown if each % 2 == 0] == list(range(0, BACKLOG, 2))
    assert [each for each in shown if each % 2] == list(range(1, BACKLOG, 2))


async def test_a_refused_token_refuses_all_of_them_and_the_next_brings_all(
    database: Database, tmp_path: Path, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier, "TOKEN_SECONDS", 0.05)
    wakes = make(database, tmp_path, gateway)
    ids = await backlog(wakes)
    (tmp_path / "token-0").write_text("wrong-" * 8)
    async with running(wakes):
        await until(lambda: state(wakes, ids[-1]) == "rejected")
        assert len(gateway.heard) == 1
        (tmp_path / "token-0").write_text(gateway.token)
        await until(lambda: all(state(wakes, each) == "delivered" for each in ids))
    assert [told(heard) for heard in gateway.accepted] == [ids]


async def test_those_for_later_are_shown_at_once_when_they_are_too_many(
    database: Database, tmp_path: Path, gateway: Gateway
) -> None:
    wakes = make(database, tmp_path, gateway, pause=0.01)
    async with running(wakes):
        for number in range(12):
            id_ = await wakes.wake(f"{number}", mode="next-heartbeat")
            await until(lambda id_=id_: state(wakes, id_) == "delivered")  # type: ignore[misc]
    modes = [json.loads(heard.body)["mode"] for heard in gateway.accepted]
    assert [place for place, mode in enumerate(modes) if mode == "now"] == [9]
    assert wakes.page(ListWakes()).items[2].mode == "next-heartbeat"


async def test_a_test_by_hand_does_not_wait(database: Database, tmp_path: Path, gateway: Gateway) -> None:
    wakes = make(database, tmp_path, gateway)
    async with running(wakes):
        for number in range(BURST):
            id_ = await wakes.wake(f"{number}")
            await until(lambda id_=id_: state(wakes, id_) == "delivered")  # type: ignore[misc]
        waits = await wakes.wake("waits")
        assert (await wakes.test(TestWake())).state == "delivered"
        assert state(wakes, waits) == "queued"
        # Asking to try it now is no way around what the gateway would lose.
        assert wakes.retry(RetryWakes(id=waits)).count == 1
        await anyio.sleep(0.05)
        assert state(wakes, waits) == "queued"
