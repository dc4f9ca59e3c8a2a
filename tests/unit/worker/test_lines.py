"""From bytes to lines to records."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.sessions import lines as module
from worker.sessions.lines import Line, lines, salvage

Opened = tuple[int, Path]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Opened]:
    path = tmp_path / "file"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    yield fd, path
    os.close(fd)


def test_a_line_that_has_not_ended_is_told_as_such(file: Opened) -> None:
    fd, path = file
    path.write_bytes("a\n\nzü".encode()[:-1])
    assert list(lines(fd, 0)) == [
        Line(0, 2, b"a", True),
        Line(2, 3, b"", True),
        Line(3, 5, b"z\xc3", False),
    ]


def test_a_line_over_many_chunks_is_one(file: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 3)
    fd, path = file
    path.write_bytes(b"0123456789\nab\n")
    assert [line.data for line in lines(fd, 0)] == [b"0123456789", b"ab"]
    assert [line.data for line in lines(fd, 11)] == [b"ab"]


def test_a_line_of_100_mb_is_passed_over_in_bounded_memory(file: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    fd, path = file
    with path.open("wb") as out:
        out.write(b"{}\n")
        # A hole, which is read as NULs.
        out.seek(100 << 20, os.SEEK_CUR)
        out.write(b"\nafter\n")
    largest, real = [0], os.pread

    def pread(fd: int, size: int, at: int) -> bytes:
        largest[0] = max(largest[0], size)
        return real(fd, size, at)

    monkeypatch.setattr(os, "pread", pread)
    found = list(lines(fd, 0))
    assert [line.data for line in found] == [b"{}", None, b"after"]
    assert found[1].end - found[1].start == (100 << 20) + 1
    assert largest[0] <= 1 << 20


def test_the_rest_of_a_line_that_is_too_long(file: Opened) -> None:
    fd, path = file
    path.write_bytes(b"rest\nnext\n")
    assert [line.data for line in lines(fd, 0, inside=True)] == [None, b"next"]
    path.write_bytes(b"rest")
    assert list(lines(fd, 0, inside=True)) == [Line(0, 4, None, False)]


def test_beyond_two_gigabytes(file: Opened) -> None:
    fd, path = file
    with path.open("wb") as out:
        out.seek(2 << 30)
        out.write(b"\nlast\n")
    assert list(lines(fd, (2 << 30) + 1)) == [Line((2 << 30) + 1, (2 << 30) + 6, b"last", True)]


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b'{"a":1}{"b":2}', [{"a": 1}, {"b": 2}]),
        (b'{"a":1} garbage {"b":2}', [{"a": 1}, {"b": 2}]),
        (b'{"type":"user","mess{"b":2}', [{"b": 2}]),
        (b'\0\0{"a":1}\0', [{"a": 1}]),
        (b'{"a":"\xff"}', [{"a": "\ufffd"}]),
        (b'[1,2]{"a":1}', [{"a": 1}]),
        (b'{"a":' + b"[" * 100_000, []),
        (b"nothing", []),
    ],
)
def test_salvage(data: bytes, records: list[object]) -> None:
    assert list(salvage(data)) == records


def test_of_a_line_that_has_not_ended_only_what_stays() -> None:
    assert list(salvage(b'{"a":1}{"b":{"c":1}', ended=False)) == [{"a": 1}]


def test_salvage_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    class Counting:
        def raw_decode(self, text: str, at: int) -> tuple[object, int]:
            tries.append(at)
            raise json.JSONDecodeError("Unterminated string starting at", text, at)

    monkeypatch.setattr(module, "_lenient", Counting())
    assert list(salvage(b'{"' * (2 << 20))) == []
    assert len(tries) < 20
