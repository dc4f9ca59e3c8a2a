"""What the kernel says: of folders that come later, go, and come again, and when it had to drop something."""

import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.worker.agents import put
from worker.sessions import watcher as module
from worker.sessions.agent import Place
from worker.sessions.watcher import Heard, Watcher


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def watcher(home: Path) -> Iterator[Watcher]:
    watcher = Watcher([Place(home / ".agent/sessions", 2), Place(home / ".agent")], home)
    watcher.settle()
    yield watcher
    watcher.close()


def hear(watcher: Watcher) -> Heard:
    """All that there is to hear."""
    all_of_it = Heard()
    while select.select([watcher.fileno()], [], [], 0.05)[0]:
        heard = watcher.hear()
        all_of_it.files |= heard.files
        all_of_it.folders |= heard.folders
        all_of_it.dropped |= heard.dropped
    return all_of_it


def test_a_folder_that_comes_later_is_watched_with_what_is_in_it(home: Path, watcher: Watcher) -> None:
    path = put(home / ".agent/sessions/a/b/file", "1")
    assert str(path) in hear(watcher).files
    path.write_text("2")
    assert hear(watcher).files == {str(path)}


def test_a_folder_that_goes_and_comes_again(home: Path, watcher: Watcher) -> None:
    path = put(home / ".agent/sessions/a/file", "1")
    hear(watcher)
    shutil.rmtree(home / ".agent")
    assert f"{home}/.agent/sessions/a" in hear(watcher).folders
    put(path, "2")
    assert str(path) in hear(watcher).files
    with path.open("a") as file:
        file.write("3")
    assert hear(watcher).files == {str(path)}


def test_a_folder_that_is_moved_away_is_not_watched_there(home: Path, watcher: Watcher) -> None:
    path = put(home / ".agent/sessions/a/file", "1")
    hear(watcher)
    (home / ".agent/sessions/a").rename(home / "elsewhere")
    assert hear(watcher).folders == {f"{home}/.agent/sessions/a"}
    put(home / "elsewhere/file", "2")
    assert hear(watcher) == Heard()
    (home / "elsewhere").rename(home / ".agent/sessions/a")
    assert str(path) in hear(watcher).files


def test_the_whole_tree_is_moved_away(home: Path, watcher: Watcher) -> None:
    put(home / ".agent/sessions/a/file", "1")
    hear(watcher)
    (home / ".agent").rename(home / ".other")
    assert f"{home}/.agent" in hear(watcher).folders
    path = put(home / ".agent/sessions/b/file", "1")
    assert str(path) in hear(watcher).files


def test_a_place_behind_a_link_is_watched_and_links_below_are_not(home: Path, watcher: Watcher) -> None:
    (home / "real/sessions").mkdir(parents=True)
    (home / "outside").mkdir()
    (home / ".agent").symlink_to(home / "real")
    hear(watcher)
    path = put(home / ".agent/sessions/file", "1")
    assert str(path) in hear(watcher).files
    (home / ".agent/sessions/link").symlink_to(home / "outside")
    hear(watcher)
    put(home / "outside/file", "1")
    assert hear(watcher) == Heard()


def test_deeper_than_its_depth_is_nobody_s_business(home: Path, watcher: Watcher) -> None:
    put(home / ".agent/sessions/a/b/c/file", "1")
    hear(watcher)
    put(home / ".agent/sessions/a/b/c/file", "2")
    put(home / "noise", "1")
    assert hear(watcher) == Heard()


def test_what_the_kernel_dropped_is_said_and_watched_all_the_same(home: Path, watcher: Watcher) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (home / ".agent/sessions").mkdir(parents=True)
    hear(watcher)
    paths = [str(home / f".agent/sessions/{number}") for number in range(2)]
    for number in range(limit // 2 + 10):
        # Alternating: the kernel says the same only once in a row.
        for path in paths:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
            os.truncate(path, number % 2 + 1)
    (home / ".agent/sessions/late").mkdir()
    assert hear(watcher).dropped
    late = put(home / ".agent/sessions/late/file", "1")
    assert str(late) in hear(watcher).files


def test_no_more_watches_are_said_and_tried_again(
    home: Path, watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = watcher._inotify.add_watch
    monkeypatch.setattr(watcher._inotify, "add_watch", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    put(home / ".agent/sessions/a/file", "1")
    hear(watcher)
    assert watcher.problem == module.NO_MORE
    monkeypatch.setattr(watcher._inotify, "add_watch", real)
    watcher.settle()
    assert watcher.problem is None
    put(home / ".agent/sessions/a/file", "2")
    assert f"{home}/.agent/sessions/a/file" in hear(watcher).files
