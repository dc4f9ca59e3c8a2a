"""Tasks: how long `tasks.dispatch` takes to return, and fifty at once in ten workspaces."""

import concurrent.futures
import time
from typing import Any, Final

from tests.bench.measure import Figure, bounded
from tests.e2e.system import System, eventually

ONE_BY_ONE: Final = 60
WORKSPACES: Final = 10
EACH: Final = 5
SECONDS: Final = 2
"""How long one of fifty works."""


def measured(system: System) -> list[Figure]:
    names = [f"tasks{number}" for number in range(WORKSPACES)]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: system.start_workspace(name, docker=False), names))
    eventually(lambda: all(_followed(system, name) for name in names), "all workers are followed")
    try:
        returned = sorted(_dispatch(system, names[0], "true")[1] for _ in range(ONE_BY_ONE))
        _until_done(system)
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            ids = list(pool.map(lambda name: _dispatch(system, name, f"sleep {SECONDS}")[0], names * EACH))
        tasks = _until_done(system)
        took = time.monotonic() - began
        failed = [each for each in tasks if each["id"] in ids and each["state"] != "succeeded"]
        assert not failed, failed
    finally:
        for name in names:
            system.call("workspaces.delete", {"name": name, "force": True})
    ninety_fifth = returned[int(len(returned) * 0.95)]
    return [
        bounded(f"tasks.dispatch returns, p95 of {len(returned)}", "ms", [ninety_fifth * 1000], most=300),
        bounded(f"{len(ids)} tasks of {SECONDS} s in {len(names)} workspaces, all succeeded", "s", [took], most=30),
    ]


def _followed(system: System, name: str) -> bool:
    worker = system.call("workspaces.get", {"name": name}).get("worker") or {}
    return bool(worker.get("state") == "connected")


def _dispatch(system: System, workspace: str, text: str) -> tuple[str, float]:
    began = time.monotonic()
    wanted = {"workspace": workspace, "task": text, "agent": "command", "wake": "none"}
    task = system.call("tasks.dispatch", wanted)
    return str(task["id"]), time.monotonic() - began


def _until_done(system: System) -> list[dict[str, Any]]:
    over = {"succeeded", "failed", "cancelled", "lost"}

    def look() -> list[dict[str, Any]] | None:
        tasks: list[dict[str, Any]] = system.call("tasks.list", {"limit": 500})["items"]
        return tasks if all(each["state"] in over for each in tasks) else None

    found: list[dict[str, Any]] = eventually(look, "all tasks have ended", seconds=60)
    return found
