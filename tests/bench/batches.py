"""A batch of ten at once: from its start until every item has succeeded and its workspace is gone."""

import time
from typing import Any, Final

from tests.bench.measure import Figure, bounded
from tests.e2e.system import System

ITEMS: Final = 10


def measured(system: System) -> list[Figure]:
    began = time.monotonic()
    wanted = {
        "items": [{"item": str(number)} for number in range(ITEMS)],
        "name": "batch{}",
        "task": "echo {}",
        "agent": "command",
        "parallel": ITEMS,
        "removeWhen": "done",
        "wake": "none",
    }
    batch = system.call("batches.start", wanted)
    succeeded: float | None = None
    mark = None
    while True:
        asked: dict[str, Any] = {"id": batch["summary"]["id"], "timeout": 60} | ({"mark": mark} if mark else {})
        watched = system.call("batches.wait", asked)
        mark = watched["mark"]
        items = watched["batch"]["items"]
        if succeeded is None and all(item["state"] == "succeeded" for item in items):
            succeeded = time.monotonic() - began
        if watched["done"]:
            break
    took = time.monotonic() - began
    assert succeeded is not None and all(item["removal"] == "deleted" for item in items), items
    return [
        bounded(f"{ITEMS} items at once, until all have succeeded (none fails)", "s", [succeeded], most=60),
        bounded(f"{ITEMS} items at once, until their workspaces are gone too", "s", [took], most=90),
    ]
