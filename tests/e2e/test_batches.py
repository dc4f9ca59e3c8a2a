"""A batch of ten on real containers: one cannot be cloned, and the control plane is killed while it runs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.system import System, docker, eventually, running
from tests.e2e.woken import Gateway

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

ITEMS = 10
PARALLEL = 5
FAILS = "7"

FILE = f"""
name = "item-{{}}"
task = '''echo "I am item {{}}"; [ {{}} != 2 ] || git -c user.name=a -c user.email=a@b commit -q --allow-empty -m two'''
agent = "command"
clone = "repository"
parallel = {PARALLEL}
remove-when = "success"
each = "1-6,8-{ITEMS}"
[[items]]
item = {FAILS}
clone = "http://127.0.0.1:9/nowhere.git"
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, gateway: Gateway) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("agent")
    settings = {"PERRY_HOOKS_GATEWAYS": gateway.settings(folder), "PERRY_WORKSPACES_DOCKER": "false"}
    yield from running(folder, tailnet="none", environment=settings)


def test_ten_of_which_one_fails(system: System, gateway: Gateway, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    subprocess.run(["git", "init", "-q", "-b", "main", str(repository)], check=True)
    git = ["git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "before"], check=True)
    (tmp_path / "batch.toml").write_text(FILE)

    perry = [str(Path(sys.executable).with_name("perry")), "dispatch", "--file", "batch.toml"]
    process = subprocess.Popen(
        [*perry, "--collect", "results", "--json"],
        cwd=tmp_path,
        env={**os.environ, **system.environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: done_of(system) >= 2, "two items are done", seconds=60)
        before = done_of(system)
        system.stop(signal.SIGKILL)
        system.start()
        assert before < ITEMS, "it was killed too late"
        shown, told = process.communicate(timeout=200)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1 and shown, told

    batch = json.loads(shown)
    states = {entry["item"]: entry["state"] for entry in batch["items"]}
    assert states == {str(number): "failed" if str(number) == FAILS else "succeeded" for number in range(1, ITEMS + 1)}
    failed = next(entry for entry in batch["items"] if entry["item"] == FAILS)
    assert "git could not clone http://127.0.0.1:9/nowhere.git" in failed["reason"]
    tasks = system.call("tasks.list", {"limit": 100})["items"]
    assert sorted(task["id"] for task in tasks) == sorted(entry["task"] for entry in batch["items"])

    (woken,) = eventually(lambda: gateway.of(batch["summary"]["id"]), "the wake")
    assert gateway.taken == [woken]
    assert "9 succeeded, 1 failed" in woken and f"- {FAILS}: failed: “git could not clone" in woken

    # The one that failed stays to be looked at, and the one whose commit is nowhere else.
    assert sorted(each["name"] for each in system.call("workspaces.list")) == ["item-2", f"item-{FAILS}"]
    containers = {name.split(".")[0] for name in docker("ps", "-a", "--format", "{{.Names}}").split()}
    assert {name for name in containers if name.startswith(f"{system.instance}-item-")} == {
        system.container("item-2"),
        system.container(f"item-{FAILS}"),
    }
    assert len(list((system.folder / "uploads").iterdir())) <= 1, "the repository is sent once"
    results = tmp_path / "results"
    assert json.loads((results / "batch.json").read_text())["batch"]["counts"] == {"succeeded": 9, "failed": 1}
    for number in (1, 2, ITEMS):
        assert (results / f"item-{number}" / "result.txt").read_text() == f"I am item {number}\n"
        assert (results / f"item-{number}" / "log.txt").read_text() == f"I am item {number}\n"
    assert "Subject: [PATCH] two" in (results / "item-2" / "commits.patch").read_text()
    assert not (results / f"item-{FAILS}" / "log.txt").exists()


def test_what_a_person_does_in_between_is_theirs(system: System) -> None:
    """One workspace is stopped by hand, and one is made by hand before its item begins."""
    wanted = {
        "items": [{"item": "stopped"}, {"item": "made"}, {"item": "last"}],
        "name": "by-{}",
        "task": "[ {} != stopped ] || sleep 600",
        "agent": "command",
        "parallel": 1,
        "removeWhen": "done",
        "wake": "none",
    }
    id_ = system.call("batches.start", wanted)["summary"]["id"]

    def items() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = system.call("batches.get", {"id": id_})["items"]
        return found

    eventually(lambda: items()[0]["state"] == "running", "the first item runs", seconds=60)
    system.call("workspaces.start", {"name": "by-made", "wait": False})
    system.call("workspaces.stop", {"name": "by-stopped"})
    eventually(lambda: all(item["done"] for item in items()), "the batch goes on to its end", seconds=60)
    stopped, made, last = items()
    assert [item["state"] for item in (stopped, made, last)] == ["failed", "failed", "succeeded"]
    assert "was stopped while the task was running" in stopped["reason"] and "meanwhile" in made["reason"]
    assert made["removal"] == "kept: somebody else made it" and last["removal"] == "deleted"
    there = {each["name"] for each in system.call("workspaces.list")}
    assert {"by-stopped", "by-made"} <= there and "by-last" not in there
    for name in ("by-stopped", "by-made"):
        system.call("workspaces.delete", {"name": name, "force": True})


def done_of(system: System) -> int:
    """How many items of the batch are done with."""
    batches: list[dict[str, Any]] = system.call("batches.list")["items"]
    if not batches:
        return 0
    items = system.call("batches.get", {"id": batches[0]["id"]})["items"]
    return sum(entry["done"] for entry in items)
