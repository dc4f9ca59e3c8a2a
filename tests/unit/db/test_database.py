"""state.db on bad days, and one control plane for each folder."""

import sqlite3
import stat
from pathlib import Path

import pytest

from controlplane.db import Database
from controlplane.errors import AlreadyRunning, StateError
from controlplane.wiring import folder_lock


def test_it_is_its_owners_alone_and_opens_again(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    Database.open(file).close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = Database.open(file)
    again.check()
    again.close()


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be one" * 40, b"SQLite format 3\0" * 99]
)
def test_a_damaged_one_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state.db"
    file.write_bytes(content)
    with pytest.raises(StateError, match="found by their labels"):
        Database.open(file)
    assert file.read_bytes() == content


def test_a_newer_one_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    Database.open(file).close()
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(StateError, match="newer Perry"):
        Database.open(file)


def test_a_transaction_is_all_or_nothing() -> None:
    database = Database.open(None)
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.run("INSERT INTO tailnet_leftovers VALUES ('embedded', 'node', '1')")
        _ = 1 / 0
    assert database.rows("SELECT * FROM tailnet_leftovers") == []
    database.close()


def test_one_control_plane_for_each_folder(tmp_path: Path) -> None:
    with folder_lock(tmp_path), pytest.raises(AlreadyRunning), folder_lock(tmp_path):
        pass
    with folder_lock(tmp_path):
        pass
