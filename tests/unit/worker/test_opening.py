"""Nothing but a regular file of its place is opened, and nothing is waited for."""

import os
import socket
from pathlib import Path

import pytest

from tests.unit.worker.agents import put
from worker.opening import NotRegular, open_below


def test_a_regular_file_is_opened(tmp_path: Path) -> None:
    path = put(tmp_path / "root/a/b.jsonl", "content")
    fd = open_below(tmp_path / "root", str(path))
    assert os.read(fd, 100) == b"content"
    os.close(fd)


def test_the_root_itself_may_be_behind_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real/a.jsonl", "content")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    os.close(open_below(tmp_path / "root", f"{tmp_path}/root/a.jsonl"))


def test_nothing_else_is(tmp_path: Path) -> None:
    root = tmp_path / "root"
    secret = put(tmp_path / "secret", "secret")
    root.mkdir()
    (root / "link").symlink_to(secret)
    (root / "folder").mkdir()
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        for name in ("link", "folder", "linked/secret", "pipe", "socket", "../secret", "folder/../../secret"):
            with pytest.raises(NotRegular):
                os.close(open_below(root, f"{root}/{name}"))


def test_what_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_below(tmp_path, f"{tmp_path}/a/b")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    put(tmp_path / "a/b/c", "")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("a/b/c", "a/b", "a/x/c", "a/b/c/d"):
        try:
            os.close(open_below(tmp_path, f"{tmp_path}/{name}"))
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before
