"""Wakes to real gateways, from npm, that are killed, ended and stopped at random, as are workers and control plane.

None is lost before a gateway's 200, none is shown twice but where that 200 was lost, and what is shown is shown in
order. What a gateway took and lost in its own memory is counted apart.

A short run with clawdbot, which is up in seconds. `PERRY_CHAOS_SECONDS=300` has both run for so long.
"""

import os
import random
import re
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path

import anyio
import msgspec
import pytest
from anyio import to_thread

from tests.gateways.running import CLAWDBOT, OPENCLAW, Kind, RealGateway, installed, running
from tests.integration.wake.killable import free_port, plane, wake, worker
from tests.waiting import until

SECONDS = float(os.environ.get("PERRY_CHAOS_SECONDS", "8"))
KINDS = (CLAWDBOT, OPENCLAW) if "PERRY_CHAOS_SECONDS" in os.environ else (CLAWDBOT,)
PAUSE = 0.4
"""Between the wakes of a workspace, in seconds."""

GATEWAYS_PAUSE = 20.0 if "PERRY_CHAOS_SECONDS" in os.environ else 2.0
"""The gateway's pace, in seconds: by itself, or ten times as quick, as so few wakes are no danger."""

NAMES = ("alpha", "beta")

Wake = tuple[str, int]
"""Whose it is, and which."""


@pytest.mark.anyio
@pytest.mark.timeout(SECONDS * 3 + 400)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_none_is_lost_before_a_real_gateways_200(kind: Kind, tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    count = int(SECONDS / PAUSE)
    await to_thread.run_sync(installed, kind)
    ports = {name: (free_port(), free_port()) for name in NAMES}
    with running(kind, tmp_path / "gateway") as gateway:
        (tmp_path / "token").write_text(gateway.token)
        (tmp_path / "token").chmod(0o600)
        places = [f"{name}=127.0.0.1:{port}" for name, (port, _) in ports.items()]
        forwarding = plane(tmp_path, gateway.url, places, pause=GATEWAYS_PAUSE)
        workers = [worker(tmp_path, name, port, door) for name, (port, door) in ports.items()]
        deaths: list[str] = []
        died = 0.0

        async def kill_gateways(kills: int) -> None:
            nonlocal died
            for kill in range(kills):
                await anyio.sleep(chance.uniform(0.3, 0.8) * SECONDS / kills)
                how = "killed" if kill == 0 else chance.choice(["killed", "ended", "stopped"])
                deaths.append(f"gateway {how}")
                if how == "stopped":
                    _signal(gateway, signal.SIGSTOP)
                    await anyio.sleep(chance.uniform(0.5, 3))
                    _signal(gateway, signal.SIGCONT)
                    continue
                await to_thread.run_sync(gateway.kill if how == "killed" else gateway.stop)
                died = time.time()
                await anyio.sleep(chance.uniform(0, 2))
                await to_thread.run_sync(gateway.start)

        async def kill_ours() -> None:
            while True:
                await anyio.sleep(chance.uniform(1, 4))
                victim = chance.choice([forwarding, forwarding, *workers])
                deaths.append("control plane" if victim is forwarding else "worker")
                await to_thread.run_sync(victim.kill, chance.choice([signal.SIGKILL, signal.SIGTERM]))
                await anyio.sleep(chance.uniform(0, 0.3))
                victim.start()

        with forwarding, workers[0], workers[1]:
            async with anyio.create_task_group() as ours:
                ours.start_soon(kill_ours)
                async with anyio.create_task_group() as chaos:
                    chaos.start_soon(kill_gateways, max(2, int(SECONDS / 30)))
                    for name in NAMES:
                        chaos.start_soon(partial(wake, ports[name][1], name, count, pause=PAUSE))
                ours.cancel_scope.cancel()
            for process in (forwarding, *workers):
                process.start_again()
            everything = {(name, number) for name in NAMES for number in range(count)}
            await until(lambda: taken(tmp_path).keys() == everything, seconds=120)
            # One more for each, which comes after all of them: then the gateway has shown what it still has.
            for name in NAMES:
                await wake(ports[name][1], f"{name}-last", 1)
            last = {(f"{name}-last", 0) for name in NAMES}
            await until(lambda: last <= {each for prompt in prompts(gateway) for each in prompt}, seconds=120)
            made = taken(tmp_path)
            told = [[each for each in prompt if each in everything] for prompt in prompts(gateway)]
    shown = [each for prompt in told for each in prompt]
    twice = {each for each in shown if shown.count(each) > 1}
    lost = everything - set(shown)
    assert all(made[each].attempts > 1 for each in twice), f"seed {seed}: shown twice, and sent once: {twice}"
    for name in NAMES:
        numbers = list(dict.fromkeys(number for which, number in shown if which == name))
        assert numbers == sorted(numbers), f"seed {seed}: not in order: {numbers}"
    # A gateway that lives loses nothing: what was lost waited in the memory of one that was killed.
    for each in lost:
        assert made[each].at <= died, f"seed {seed}: {each} was taken by a gateway that lived, and not shown"
    again = sum(each.attempts - 1 for each in made.values())
    print(  # noqa: T201
        f"{kind.name}: {len(everything)} wakes, killed {dict(Counter(deaths))}, {again} attempts again, "
        f"{len(twice)} shown twice, {len(lost)} lost in the gateway's own memory (seed {seed})"
    )


def _signal(gateway: RealGateway, number: int) -> None:
    assert gateway._process is not None
    os.killpg(gateway._process.pid, number)


class Taken(msgspec.Struct):
    """A wake that a gateway has answered 200 to. ``at`` is when, in seconds since 1970."""

    attempts: int
    at: float


def taken(folder: Path) -> dict[Wake, Taken]:
    """As Perry's own record has it."""
    with closing(sqlite3.connect(f"file:{folder}/state.db?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT text, attempts, settled FROM wakes WHERE state = 'delivered'").fetchall()
    said = [(re.findall(r"“([a-z-]+) (\d+)”", text)[0], Taken(tried, at / 1000)) for text, tried, at in rows]
    return {(name, int(number)): what for (name, number), what in said if name in NAMES}


def prompts(gateway: RealGateway) -> list[list[Wake]]:
    """What its model was told, each time that it was told something new, in order."""
    told: list[list[Wake]] = []
    before: list[str] = []
    for asked in gateway.model.requests():
        messages = asked["body"]["messages"]
        answered = max((place for place, each in enumerate(messages) if each["role"] != "user"), default=-1)
        unanswered = [str(each["content"]) for each in messages[answered + 1 :]]
        # What was asked and not answered is asked again in the same words, and maybe more.
        new = "\n".join(each for each in unanswered if each not in before)
        before = unanswered
        if found := re.findall(r"from workspace [a-z]+\].*?([a-z-]+) (\d+)\b", new):
            told.append([(name, int(number)) for name, number in found])
    return told
