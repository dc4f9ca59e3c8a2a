"""From a wake to its gateway's answer."""

import base64
import json
import os
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest

from controlplane.auth.identity import TOKEN, Identity
from controlplane.db import Database
from controlplane.errors import InvalidInput, NotReady, TooLarge, TooMany
from controlplane.settings.hooks import HookSettings
from controlplane.wake import outbox, sender, verdict
from controlplane.wake.service import WakeService
from protocol.auth import IdentityKind
from protocol.wake import ListWakes, RetryWakes, TestWake, WakeRef
from tests.fakes.wake_gateway import Answer, Gateway, Heard, refusal
from tests.unit.wake.conftest import outgoing, running, settings, state
from tests.waiting import until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried again soon."""
    monkeypatch.setattr(verdict, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr("controlplane.wake.courier.TOKEN_SECONDS", 0.05)


@pytest.fixture
def wakes(database: Database, gateway: Gateway, tmp_path: Path) -> WakeService:
    return WakeService(database, settings(tmp_path, gateway), tmp_path, outgoing(tmp_path))


async def test_a_wake_reaches_its_gateway_marked_with_its_origin(wakes: WakeService, gateway: Gateway) -> None:
    async with running(wakes):
        id_ = await wakes.wake("Done: all tests pass.", workspace="alpha", task="t-1", id="t-1-succeeded")
        await until(lambda: state(wakes, id_) == "delivered")
    (heard,) = gateway.heard
    assert heard.method == "POST" and heard.path == "/hooks/wake"
    assert heard.json == {
        "text": "[Perry t-1-succeeded, from workspace alpha, task t-1] Done: all tests pass.",
        "mode": "now",
    }
    assert heard.key == "t-1-succeeded"
    shown = wakes.show(WakeRef(id=id_))
    assert shown.text == heard.text
    assert [attempt.status for attempt in shown.attempts] == [200]
    assert gateway.token not in repr(shown) + repr(wakes.page(ListWakes()))


@pytest.mark.parametrize(("kind", "more"), [("openclaw", {}), ("clawdbot", {"deliver": False})])
async def test_a_session_of_its_own_is_asked_for_at_the_agents_door(
    database: Database, gateway: Gateway, tmp_path: Path, kind: str, more: dict[str, object]
) -> None:
    gateway.behave = lambda _: Answer(status=202, body=b'{"ok":true,"runId":"r1"}')
    wakes = WakeService(database, settings(tmp_path, gateway, kind=kind), tmp_path, outgoing(tmp_path))
    async with running(wakes):
        id_ = await wakes.wake("Sweep.", session="isolated", mode="next-heartbeat", id="cron-1")
        await until(lambda: state(wakes, id_) == "delivered")
    (heard,) = gateway.heard
    assert heard.path == "/hooks/agent" and heard.key == "cron-1"
    asked = {"message": "[Perry cron-1] Sweep.", "name": "Perry", "wakeMode": "next-heartbeat"}
    assert heard.json == asked | more
    assert wakes.show(WakeRef(id=id_)).wake.session == "isolated"


async def test_where_the_agents_door_is_not_known_it_is_said(
    database: Database, gateway: Gateway, tmp_path: Path
) -> None:
    (known,) = settings(tmp_path, gateway).gateways
    elsewhere = msgspec.structs.replace(known, url=f"{gateway.url}/in/perry")
    wakes = WakeService(database, HookSettings(gateways=(elsewhere,)), tmp_path, outgoing(tmp_path))
    async with running(wakes):
        refused = await wakes.wake("Sweep.", session="isolated")
        # It holds up nothing.
        taken = await wakes.wake("Look.")
        await until(lambda: state(wakes, taken) == "delivered")
    assert [heard.path for heard in gateway.heard] == ["/in/perry"]
    shown = wakes.show(WakeRef(id=refused)).wake
    assert shown.state == "rejected" and "does not end in /wake" in str(shown.answer)


async def test_any_other_gateway_is_told_which_session_is_meant(
    database: Database, gateway: Gateway, tmp_path: Path
) -> None:
    made = settings(tmp_path, gateway, kind="generic")
    (tmp_path / "token-0").write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
    wakes = WakeService(database, made, tmp_path, outgoing(tmp_path))
    async with running(wakes):
        await wakes.wake("Sweep.", session="isolated")
        await until(lambda: gateway.heard)
    heard = gateway.heard[0]
    assert (heard.path, heard.json["data"]["session"]) == ("/", "isolated")


async def test_a_known_id_is_the_same_wake(wakes: WakeService, gateway: Gateway) -> None:
    async with running(wakes):
        for text in ("first", "second"):
            await wakes.wake(text, id="one")
        await wakes.wake("last", id="two")
        await until(lambda: state(wakes, "two") == "delivered")
    assert [text.rpartition("] ")[2] for text in gateway.told] == ["first", "last"]


async def test_what_is_tried_again_keeps_its_place(
    wakes: WakeService, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 is of one wake: it holds up its own workspace, and nobody else's."""
    monkeypatch.setattr(verdict, "FIRST_PAUSE", 0.4)
    failures = 2

    def behave(heard: Heard) -> Answer:
        nonlocal failures
        if "a0" in heard.text and failures > 0:
            failures -= 1
            return refusal(500, "boom")
        return Answer()

    gateway.behave = behave
    async with running(wakes):
        for number in range(3):
            await wakes.wake(f"a{number}", workspace="alpha")
            await wakes.wake(f"b{number}", workspace="beta")
        await until(lambda: len(gateway.accepted) == 6)
        first = wakes.page(ListWakes(limit=100)).items[-1]
        await until(lambda: state(wakes, first.id) == "delivered")
    told = [text.rpartition("] ")[2] for text in gateway.told]
    assert [text for text in told if text[0] == "a"] == ["a0", "a1", "a2"]
    assert [text for text in told if text[0] == "b"] == ["b0", "b1", "b2"]
    assert told[0] == "b0"
    assert [attempt.status for attempt in wakes.show(WakeRef(id=first.id)).attempts] == [500, 500, 200]
    assert first.answer is not None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refusal(500, "boom"), "It answered 500: boom."),
        (refusal(503, "starting"), "It answered 503: starting."),
        (Answer(cut_after=0), "broke off"),
        (Answer(cut_after=9), "broke off"),
        (Answer(status=500, body=b"x" * 500, cut_after=150), "It answered 500."),
        (refusal(404, "Not Found"), "switch its hooks on"),
        (Answer(status=302, headers={"Location": "http://169.254.169.254/"}), "redirects are not followed"),
        (Answer(body=b"<html>Welcome"), "no answer of a gateway"),
    ],
)
async def test_what_is_no_acceptance_is_tried_again(
    wakes: WakeService, gateway: Gateway, answer: Answer, says: str
) -> None:
    tries = 0

    def behave(heard: Heard) -> Answer:
        nonlocal tries
        tries += 1
        return answer if tries < 3 else Answer()

    gateway.behave = behave
    async with running(wakes):
        id_ = await wakes.wake("hello")
        await until(lambda: state(wakes, id_) == "delivered")
    attempts = wakes.show(WakeRef(id=id_)).attempts
    assert len(attempts) == 3
    assert says in str(attempts[0].answer)
    assert len({heard.text for heard in gateway.heard}) == 1


async def test_an_answer_that_breaks_off_after_its_status_was_an_acceptance(
    wakes: WakeService, gateway: Gateway
) -> None:
    gateway.behave = lambda _: Answer(cut_after=len(Answer().raw()) - 10)
    async with running(wakes):
        id_ = await wakes.wake("hello")
        await until(lambda: state(wakes, id_) == "delivered")
    assert len(gateway.heard) == 1
    assert wakes.show(WakeRef(id=id_)).wake.answer == "200, and then it broke off"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (refusal(413, "payload too large"), "too long for the gateway (413: payload too large)"),
        (refusal(400, "text required"), "refused it (400: text required)"),
        (refusal(422, "no\x1b[31m"), "refused it (422: no [31m)"),
    ],
)
async def test_what_a_gateway_will_never_take_is_rejected(
    wakes: WakeService, gateway: Gateway, answer: Answer, says: str
) -> None:
    gateway.behave = lambda heard: answer if "first" in heard.text else Answer()
    async with running(wakes):
        first, second = await wakes.wake("first"), await wakes.wake("second")
        await until(lambda: state(wakes, second) == "delivered")
        wake = wakes.show(WakeRef(id=first)).wake
        assert (wake.state, wake.attempts) == ("rejected", 1)
        assert says in str(wake.answer)
        gateway.behave = lambda _: Answer()
        assert wakes.retry(RetryWakes(id=first)).count == 1
        await until(lambda: state(wakes, first) == "delivered")


async def test_a_wrong_token_is_told_once_and_a_new_one_counts_by_itself(
    wakes: WakeService, gateway: Gateway, tmp_path: Path
) -> None:
    (tmp_path / "token-0").write_text("wrong-" * 8)
    async with running(wakes):
        ids = [await wakes.wake(f"wake {number}", workspace="alpha") for number in range(5)]
        await until(lambda: state(wakes, ids[0]) == "rejected")
        await anyio.sleep(0.3)
        assert len(gateway.heard) == 1
        assert "does not take the token (401: Unauthorized)" in str(wakes.show(WakeRef(id=ids[0])).wake.answer)
        assert "does not take the token" in str(wakes.gateways()[0].problem)
        assert [state(wakes, id_) for id_ in ids[1:]] == ["queued"] * 4
        (tmp_path / "token-0").write_text(gateway.token)
        await until(lambda: state(wakes, ids[-1]) == "delivered")
    assert [text.rpartition("] ")[2] for text in gateway.told] == [f"wake {number}" for number in range(5)]
    assert wakes.gateways()[0].problem is None


@pytest.mark.parametrize("mended", ["token", "gateway"])
async def test_a_test_that_is_taken_brings_what_was_refused_before(
    wakes: WakeService, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mended: str
) -> None:
    """Whether another token is there, or the gateway takes the old one now; before the token's file is looked at."""
    monkeypatch.setattr("controlplane.wake.courier.TOKEN_SECONDS", 600.0)
    wrong, right = "wrong-" * 8, gateway.token
    (tmp_path / "token-0").write_text(wrong)
    async with running(wakes):
        ids = [await wakes.wake(f"wake {number}", workspace="alpha") for number in range(3)]
        await until(lambda: state(wakes, ids[0]) == "rejected")
        # One that is refused brings no others.
        assert (await wakes.test(TestWake())).state == "rejected"
        await anyio.sleep(0.3)
        assert len(gateway.heard) == 2
        if mended == "token":
            (tmp_path / "token-0").write_text(right)
        else:
            gateway.token = wrong
        assert (await wakes.test(TestWake())).state == "delivered"
        await until(lambda: all(state(wakes, id_) == "delivered" for id_ in ids))
    shown = [text.rpartition("] ")[2] for text in gateway.told if "a test of" not in text]
    assert shown == ["wake 0", "wake 1", "wake 2"]


async def test_a_token_that_others_can_read_is_not_used(wakes: WakeService, gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "token-0").chmod(0o644)
    async with running(wakes):
        id_ = await wakes.wake("hello")
        await until(lambda: wakes.gateways()[0].problem)
        assert "chmod 600" in str(wakes.gateways()[0].problem)
        assert (await wakes.test(TestWake())).state == "rejected"
        assert not gateway.heard
        (tmp_path / "token-0").chmod(0o600)
        await until(lambda: state(wakes, id_) == "delivered")


async def test_retry_after_is_heeded(wakes: WakeService, gateway: Gateway) -> None:
    times: list[float] = []

    def behave(heard: Heard) -> Answer:
        times.append(anyio.current_time())
        return refusal(429, "slow down", **{"Retry-After": "1"}) if len(times) == 1 else Answer()

    gateway.behave = behave
    async with running(wakes):
        await wakes.wake("one", workspace="alpha")
        last = await wakes.wake("two", workspace="beta")
        await until(lambda: state(wakes, last) == "delivered")
    assert times[1] - times[0] >= 1.0


async def test_a_slow_gateway_is_waited_for_and_delays_no_other(
    database: Database, gateway: Gateway, tmp_path: Path
) -> None:
    other = Gateway()
    async with other.open():
        gateway.behave = lambda _: Answer(after=1.0)
        wakes = WakeService(database, settings(tmp_path, gateway, other), tmp_path, outgoing(tmp_path))
        async with running(wakes):
            slow = await wakes.wake("slow")
            quick = await wakes.test(TestWake(gateway="g1"))
            assert quick.state == "delivered"
            assert state(wakes, slow) in ("queued", "delivering")
            await until(lambda: state(wakes, slow) == "delivered")
    assert len(gateway.heard) == 1


async def test_a_gateway_that_never_answers_is_asked_again(
    wakes: WakeService, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "ANSWER_SECONDS", 0.3)
    gateway.behave = lambda _: Answer(after=60 if len(gateway.heard) == 1 else 0)
    async with running(wakes):
        id_ = await wakes.wake("hello")
        await until(lambda: state(wakes, id_) == "delivered")
    assert "did not answer within" in str(wakes.show(WakeRef(id=id_)).attempts[0].answer)


async def test_a_gateway_that_is_away_gets_everything_when_it_is_back(database: Database, tmp_path: Path) -> None:
    gateway = Gateway()
    async with gateway.open():
        pass
    wakes = WakeService(database, settings(tmp_path, gateway), tmp_path, outgoing(tmp_path))
    async with running(wakes):
        ids = [await wakes.wake(f"{number}") for number in range(5)]
        await until(lambda: wakes.gateways()[0].problem)
        assert "cannot be reached" in str(wakes.gateways()[0].problem)
        async with gateway.open():
            await until(lambda: state(wakes, ids[-1]) == "delivered")
    assert [text.rpartition("] ")[2] for text in gateway.told] == [f"{number}" for number in range(5)]


async def test_a_control_plane_that_comes_back_goes_on(database: Database, gateway: Gateway, tmp_path: Path) -> None:
    first = WakeService(database, settings(tmp_path, gateway), tmp_path, outgoing(tmp_path))
    ids = [await first.wake(f"{number}") for number in range(3)]
    second = WakeService(database, settings(tmp_path, gateway), tmp_path, outgoing(tmp_path))
    async with running(second):
        await until(lambda: state(second, ids[-1]) == "delivered")
    assert [text.rpartition("] ")[2] for text in gateway.told] == ["0", "1", "2"]


async def test_the_end_of_the_control_plane_lets_an_attempt_end(wakes: WakeService, gateway: Gateway) -> None:
    gateway.behave = lambda _: Answer(after=0.5)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wakes.run)
        id_ = await wakes.wake("hello")
        await until(lambda: gateway.heard)
        wakes.close()
        tasks.cancel_scope.cancel()
    assert state(wakes, id_) == "delivered"


async def test_whoever_cancels_does_not_wait_for_a_gateway_that_does_not_answer(
    wakes: WakeService, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.wake.courier.GRACE_SECONDS", 0.2)
    gateway.behave = lambda _: Answer(after=60)
    with anyio.fail_after(20):
        async with running(wakes):
            id_ = await wakes.wake("hello")
            await until(lambda: gateway.heard)
    shown = wakes.show(WakeRef(id=id_))
    assert shown.wake.state == "queued" and "cut off, as Perry ended" in str(shown.attempts[0].answer)


async def test_days_later_it_is_dead_and_can_be_raised(database: Database, tmp_path: Path, gateway: Gateway) -> None:
    ahead = timedelta()
    wakes = WakeService(
        database, settings(tmp_path, gateway), tmp_path, outgoing(tmp_path), now=lambda: datetime.now(UTC) + ahead
    )
    gateway.behave = lambda _: refusal(500, "boom")
    async with running(wakes):
        id_ = await wakes.wake("hello")
        await until(lambda: wakes.show(WakeRef(id=id_)).wake.attempts > 1)
        ahead = timedelta(days=7)
        await until(lambda: state(wakes, id_) == "dead")
        gateway.behave = lambda _: Answer()
        assert wakes.retry(RetryWakes()).count == 1
        await until(lambda: state(wakes, id_) == "delivered")


async def test_one_workspace_takes_no_others_place(
    database: Database, wakes: WakeService, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "KEPT_OF_WORKSPACE", 3)
    async with running(wakes):
        first = await wakes.wake("of nobody")
        for number in range(5):
            await wakes.wake(f"{number}", workspace="alpha", id=f"a-{number}")
        await wakes.wake("of beta", workspace="beta", id="b-0")
        await until(lambda: wakes.gateways()[0].waiting == 0)
    # It sweeps when it begins.
    async with running(wakes):
        await until(lambda: len(wakes.page(ListWakes()).items) == 5)
    assert [wake.id for wake in wakes.page(ListWakes()).items] == ["b-0", "a-4", "a-3", "a-2", first]


async def test_a_gateway_that_repeats_what_it_was_asked_does_not_tell_the_token(
    wakes: WakeService, gateway: Gateway, caplog: pytest.LogCaptureFixture
) -> None:
    echoed = f"no door here, you sent authorization: Bearer {gateway.token} and more"
    async with running(wakes):
        for answer in (Answer(status=404, body=echoed.encode()), refusal(500, echoed), Answer(body=echoed.encode())):
            gateway.behave = lambda _, answer=answer: answer  # type: ignore[misc]
            id_ = await wakes.wake("hello")
            await until(lambda id_=id_: wakes.show(WakeRef(id=id_)).wake.answer)  # type: ignore[misc]
            shown = repr(wakes.show(WakeRef(id=id_)))
            assert "(the token)" in shown and gateway.token not in shown
            gateway.behave = lambda _: Answer()
            wakes.retry(RetryWakes())
            await until(lambda id_=id_: state(wakes, id_) == "delivered")  # type: ignore[misc]
    assert gateway.token not in repr(wakes.page(ListWakes())) + repr(wakes.problems()) + caplog.text


# --- the door


async def test_the_door_takes_what_prompts_have_had_until_now(wakes: WakeService, gateway: Gateway) -> None:
    async with running(wakes):
        id_, mode = await wakes.knock(b'{"text":"Done: \\u001b[31mall\\u202e","mode":"next-heartbeat"}', TOKEN, None)
        await until(lambda: state(wakes, id_) == "delivered")
    assert mode == "next-heartbeat"
    assert gateway.heard[0].json == {"text": f"[Perry {id_}] Done: [31mall", "mode": "next-heartbeat"}


@pytest.mark.parametrize("body", [b"{}", b'{"text":""}', b'{"text":" \\u0000 "}', b'{"text":1}', b"[]", b'"x"'])
async def test_the_door_wants_a_text(wakes: WakeService, body: bytes) -> None:
    with pytest.raises(InvalidInput, match="text required"):
        await wakes.knock(body, TOKEN, None)


async def test_the_door_has_bounds(wakes: WakeService) -> None:
    with pytest.raises(TooLarge):
        await wakes.knock(json.dumps({"text": "é" * 40_000}).encode(), TOKEN, None)
    with pytest.raises(InvalidInput, match="no JSON"):
        await wakes.knock(b"[" * 100_000, TOKEN, None)
    workspace = Identity(kind=IdentityKind.WORKSPACE, workspace="alpha")
    with pytest.raises(TooMany) as refused:
        for _ in range(500):
            await wakes.knock(b'{"text":"again"}', workspace, None)
    assert refused.value.data["retryAfter"] >= 1


async def test_a_clients_key_makes_it_one_wake_and_is_its_own(wakes: WakeService) -> None:
    alpha = Identity(kind=IdentityKind.WORKSPACE, workspace="alpha")
    beta = Identity(kind=IdentityKind.WORKSPACE, workspace="beta")
    ids = [(await wakes.knock(b'{"text":"x"}', who, "key"))[0] for who in (alpha, alpha, beta, TOKEN)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert len(wakes.page(ListWakes()).items) == 3


async def test_without_a_gateway_nothing_is_pretended(database: Database, tmp_path: Path, gateway: Gateway) -> None:
    without = WakeService(database, HookSettings(), tmp_path, outgoing(tmp_path))
    with pytest.raises(NotReady, match=r"hooks\.gateways"):
        await without.knock(b'{"text":"x"}', TOKEN, None)
    # What Perry itself has to say waits for one.
    async with running(without):
        id_ = await without.wake("kept", id="t-1")
        assert "hooks.gateways" in str(without.show(WakeRef(id=id_)).wake.answer)
    wakes = WakeService(database, settings(tmp_path, gateway), tmp_path, outgoing(tmp_path))
    async with running(wakes):
        await until(lambda: state(wakes, id_) == "delivered")


async def test_many_at_once_are_few_commits(wakes: WakeService, database: Database) -> None:
    commits = 0
    transaction = database.transaction

    def counted():  # type: ignore[no-untyped-def]
        nonlocal commits
        commits += 1
        return transaction()

    database.transaction = counted  # type: ignore[method-assign]
    async with anyio.create_task_group() as tasks:
        for number in range(200):
            tasks.start_soon(partial(wakes.wake, f"{number}", id=f"w-{number}"))
    assert commits <= 5
    shown = [wake.id for wake in wakes.page(ListWakes(limit=500)).items]
    assert shown == [f"w-{number}" for number in reversed(range(200))]


async def test_nothing_of_the_environment_is_heeded(
    wakes: WakeService, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:1")
    async with running(wakes):
        assert (await wakes.test(TestWake())).state == "delivered"
    assert "test" in gateway.told[0]
