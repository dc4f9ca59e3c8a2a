"""Kills and cuts off, at random, every part that a workspace's wakes go through."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from tests.e2e.system import System, docker

SECONDS: Final = float(os.environ.get("PERRY_CHAOS_SECONDS", "12"))
"""For how long; by hand, ``PERRY_CHAOS_SECONDS=300`` has it go on for longer."""

WAKING: Final = """
import json, sys, time, urllib.request
for number in range(int(sys.argv[1])):
    body = json.dumps({"text": f"chaos {number}"}).encode()
    headers = {"Idempotency-Key": f"chaos-{number}"}
    request = urllib.request.Request("http://127.0.0.1:18789/hooks/wake", body, headers)
    while True:
        try:
            if urllib.request.urlopen(request, timeout=10).status == 200:
                break
        except OSError:
            pass
        time.sleep(0.1)
    time.sleep(0.05)
"""
"""A program for a workspace: wakes ``argv[1]`` times, each until the door has taken it."""


def kill(system: System, workspace: str) -> tuple[dict[str, int], int]:
    """For so long. How often what was killed, and the seed of chance."""
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    container, sidecar = system.container(workspace), system.container(workspace, ".tailnet")
    coordinator = f"{system.instance}-coordinator"

    def cut_off(part: str) -> None:
        docker("pause", part, check=False)
        time.sleep(chance.uniform(0.5, 3))
        docker("unpause", part, check=False)

    def kill_control_plane() -> None:
        system.stop(signal.SIGKILL)
        system.start()

    deaths: dict[str, Callable[[], object]] = {
        "worker": lambda: docker("exec", container, "pkill", "-9", "-f", "worker serve", check=False),
        "control plane": kill_control_plane,
        "sidecar": lambda: docker("kill", "-s", "KILL", sidecar, check=False),
        "sidecar, cut off": lambda: cut_off(sidecar),
        "coordinator": lambda: docker("kill", "-s", "KILL", coordinator, check=False),
        "coordinator, cut off": lambda: cut_off(coordinator),
    }
    died: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        # Each once, if there is time, and then as it comes.
        which = chance.choice([each for each in deaths if each not in died] or list(deaths))
        died[which] += 1
        deaths[which]()
        time.sleep(chance.uniform(0.2, 1))
    return dict(died), seed
