"""Wakes at real gateways: their text is asserted where the model receives it."""

from functools import partial
from pathlib import Path

import anyio
import pytest

from controlplane.db import Database
from controlplane.settings.hooks import GatewaySettings, HookSettings
from controlplane.wake.service import WakeService
from protocol.wake import RetryWakes, TestWake, WakeRef
from tests.fakes.surface import outgoing
from tests.gateways.running import CLAWDBOT, OPENCLAW, Kind, RealGateway, installed, running
from tests.unit.wake.conftest import running as forwarding
from tests.unit.wake.conftest import state
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(400)]

KINDS = (OPENCLAW, CLAWDBOT)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_a_wake_reaches_the_model_once(kind: Kind, tmp_path: Path) -> None:
    installed(kind)
    with running(kind, tmp_path / "gateway") as gateway:
        token = tmp_path / "token"
        wakes = service(gateway, token)
        async with forwarding(wakes):
            # With words that both take for their own chatter, and throw away.
            text = "Done: the heartbeat wake test is green ✅, for no reason periodic.\nNothing is left."
            told = await wakes.wake(text, workspace="alpha", task="t-1", id="t-1-succeeded")
            await until(lambda: gateway.told_with(told), seconds=90)
            (prompt,) = gateway.told_with(told)
            assert "[Perry t-1-succeeded, from workspace alpha, task t-1] Done: the heart-beat wake test" in prompt
            assert "Nothing is left." in prompt
            assert state(wakes, told) == "delivered"
            # In a session of its own, of which the main one hears the end.
            apart = await wakes.wake("Sweep the attic.", session="isolated", id="cron-1")
            await until(lambda: gateway.told_with(f"[Perry {apart}] Sweep the attic."), seconds=90)
            await until(lambda: state(wakes, apart) == "delivered")
            (attempt,) = wakes.show(WakeRef(id=told)).attempts
            assert (attempt.status, attempt.answer) == (200, "200")
            # Not with a token of somebody else's.
            token.write_text("not-the-gateways-token")
            refused = await wakes.test(TestWake())
            assert refused.state == "rejected" and "does not take the token" in str(refused.answer)
            assert len(gateway.told_with(told)) == 1
            # After an outage, three times as many as a gateway keeps.
            ids = await backlog(wakes)
            token.write_text(gateway.token)
            await arrives(ids, wakes, gateway)


BACKLOG = 60


async def backlog(wakes: WakeService) -> list[str]:
    async with anyio.create_task_group() as tasks:
        for number in range(BACKLOG):
            tasks.start_soon(partial(wakes.wake, f"number {number}", workspace="alpha", id=f"b-{number}"))
    return [f"b-{number}" for number in range(BACKLOG)]


async def arrives(ids: list[str], wakes: WakeService, gateway: RealGateway) -> None:
    """All of it is told to the model, in order, at the pace that is shipped."""
    wakes.retry(RetryWakes())
    await until(lambda: all(state(wakes, each) == "delivered" for each in ids))
    frames = [f"[Perry {each}, from workspace alpha]" for each in ids]
    await until(lambda: all(gateway.told_with(frame) for frame in frames), seconds=90)
    told = "".join(gateway.told)
    assert sorted(frames, key=told.index) == frames


def service(gateway: RealGateway, token: Path) -> WakeService:
    token.write_text(gateway.token)
    token.chmod(0o600)
    known = GatewaySettings(name="real", url=gateway.url, token_file=str(token), kind=gateway.kind.name)  # type: ignore[arg-type]
    folder = token.parent
    return WakeService(Database.open(folder / "state.db"), HookSettings(gateways=(known,)), folder, outgoing(folder))
