"""Processes, as /proc says: this one, and some that are made up."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.unit.worker.agents import put
from worker.sessions.liveness import Processes


def eventually(so: Callable[[], bool]) -> None:
    """A program that was only just started may not have its name yet."""
    deadline = time.monotonic() + 20
    while not so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_this_process_and_one_that_ended(tmp_path: Path) -> None:
    processes = Processes()
    started = processes.start_of(os.getpid())
    assert started is not None and started == processes.start_of(os.getpid()) and int(started) > 0
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert processes.start_of(child.pid) not in (None, started)
        eventually(lambda: child.pid in processes.named("sleep"))
        child.kill()
        # Dead, but nobody has asked for its exit code yet.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes.start_of(child.pid) is None
    finally:
        child.kill()
        child.wait()
    assert processes.start_of(child.pid) is None


def test_a_name_with_parentheses_and_a_script(tmp_path: Path) -> None:
    fields = " ".join(["S", *["0"] * 18, "4711", "0"])
    put(tmp_path / "7/stat", f"7 (a) b) {fields}")
    put(tmp_path / "7/cmdline", b"node\0--flag\0/usr/local/bin/gemini\0-p\0")
    processes = Processes(tmp_path)
    assert processes.start_of(7) == "4711"
    assert processes.named("gemini") == [7]
    assert processes.named("claude") == []
    put(tmp_path / "8/stat", "8 (x)")
    assert processes.start_of(8) is None and processes.start_of(9) is None


def test_who_has_a_file_open(tmp_path: Path) -> None:
    path = put(tmp_path / "file", "")
    processes = Processes()
    with path.open() as file:
        child = subprocess.Popen(["sleep", "60"], stdin=file)
    try:
        eventually(lambda: processes.hold_open(str(path), "sleep"))
        assert not processes.hold_open(str(path), "codex")
        assert processes.folder_of(child.pid) == os.getcwd()
    finally:
        child.kill()
        child.wait()
    assert not processes.hold_open(str(path), "sleep")
    assert not processes.hold_open(str(tmp_path / "missing"), "sleep")


def test_what_a_process_has_begun() -> None:
    processes, before = Processes(), time.time() - 1
    child = subprocess.Popen(["sleep", "60"])
    try:
        eventually(lambda: processes.has_begun(os.getpid(), before))
        assert not processes.has_begun(os.getpid(), time.time() + 60)
        assert not processes.has_begun(child.pid, before)
    finally:
        child.kill()
        child.wait()


def test_thousands_of_questions_in_a_row_are_one_look(tmp_path: Path) -> None:
    put(tmp_path / "7/cmdline", b"claude\0")
    processes = Processes(tmp_path)
    assert processes.named("claude") == [7]
    put(tmp_path / "8/cmdline", b"claude\0")
    assert processes.named("claude") == [7]
    eventually(lambda: sorted(processes.named("claude")) == [7, 8])
