"""A thousand wakes out of two workspaces, while workers and control plane are killed and the gateway is cut off, at
random: none is lost, none is shown twice, and each workspace's come in their order."""

import random
import re
import signal
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from tests.fakes.wake_gateway import Answer, Gateway, Heard, refusal
from tests.integration.wake.killable import free_port, plane, wake, worker
from tests.waiting import until

WAKES = 500
"""Of each workspace."""

KILLS = 8

PAUSE = 0.05
"""The gateway's pace, in seconds: mostly several wakes wait for it, and go together."""


def unruly(chance: random.Random) -> Callable[[Heard], Answer]:
    """Mostly as it should be; else it fails, or breaks off before, in or after its answer."""
    kinds = [Answer()] * 30 + [
        refusal(500, "boom"),
        refusal(503, "starting"),
        refusal(429, "slow down", **{"Retry-After": "0"}),
        Answer(cut_after=0),
        Answer(cut_after=12),
        Answer(cut_after=len(Answer().raw()) - 4),
        Answer(after=0.3),
    ]
    return lambda _: chance.choice(kinds)


@pytest.mark.anyio
@pytest.mark.timeout(300)
async def test_none_is_lost_none_is_shown_twice_and_their_order_is_kept(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    gateway = Gateway()
    (tmp_path / "token").write_text(gateway.token)
    (tmp_path / "token").chmod(0o600)
    gateway.behave = unruly(chance)
    async with gateway.open():
        pass  # It knows its port now.
    ports = {name: (free_port(), free_port()) for name in ("alpha", "beta")}
    places = [f"{name}=127.0.0.1:{port}" for name, (port, _) in ports.items()]
    forwarding = plane(tmp_path, gateway.url, places, pause=PAUSE)
    workers = [worker(tmp_path, name, port, door) for name, (port, door) in ports.items()]
    kills = 0
    wakes: dict[str, list[str]] = {}

    async def gateway_comes_and_goes() -> None:
        while True:
            async with gateway.open():
                await anyio.sleep(chance.uniform(0.5, 3))
            await anyio.sleep(chance.uniform(0, 0.5))

    async def kill_at_random() -> None:
        nonlocal kills
        while kills < KILLS:
            await anyio.sleep(chance.uniform(0.3, 2))
            victim = chance.choice([forwarding, forwarding, *workers])
            await anyio.to_thread.run_sync(victim.kill, chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            await anyio.sleep(chance.uniform(0, 0.3))
            victim.start()
            kills += 1

    async def keep_waking(name: str) -> None:
        wakes[name] = await wake(ports[name][1], name, WAKES)

    with forwarding, workers[0], workers[1]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(gateway_comes_and_goes)
            async with anyio.create_task_group() as chaos:
                chaos.start_soon(kill_at_random)
                for name in ports:
                    chaos.start_soon(keep_waking, name)
            # All are safe now, and those who were killed are there again.
            await until(lambda: len(shown(gateway)) >= 2 * WAKES, seconds=120)
            await anyio.sleep(0.5)
            tasks.cancel_scope.cancel()
    said = shown(gateway)
    for name in ports:
        mine = [each for each in said if each[1].startswith(name)]
        assert [text for _, text in mine] == [f"{name} {number}" for number in range(WAKES)], f"seed {seed}"
        assert [id_ for id_, _ in mine] == wakes[name]
    assert kills == KILLS
    keys = [heard.key for heard in gateway.heard]
    print(  # noqa: T201
        f"{kills} kills, {len(keys)} requests, {len(keys) - len(set(keys))} again, {len(gateway.accepted)} taken"
    )


def shown(gateway: Gateway) -> list[tuple[str, str]]:
    """Ids and texts of the wakes that it took, in order; requests that it knew already are dropped."""
    texts = "\n".join(gateway.told)
    return re.findall(r"^\[Perry ([\w.-]+), from workspace [a-z]+\].*?([a-z]+ \d+)", texts, re.MULTILINE)
