"""state.db on bad days, and one control plane for each folder."""

import sqlite3
import stat
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest

from controlplane.db import Database
from controlplane.errors import AlreadyRunning, StateError
from controlplane.gateway.store import Place, Store
from controlplane.process import folder_lock


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


def test_what_there_was_before_there_were_several_tailnets_is_the_embedded_ones(tmp_path: Path) -> None:
    file = tmp_path / "state.db"
    script = resources.files("controlplane.db.migrations").joinpath("0001_workspaces.sql").read_text()
    with closing(sqlite3.connect(file)) as old:
        old.executescript(script)
        old.execute(
            "INSERT INTO workspaces (name, created, desired, ssh_port, subnet, request, node_id) "
            "VALUES ('alpha', '2026-01-01T00:00:00Z', 'running', 1, '10.0.0.0/28', '{}', '3')"
        )
        old.execute("INSERT INTO tailnet_leftovers VALUES ('node', '4')")
        old.execute("PRAGMA user_version = 1")
        old.commit()
    database = Database.open(file)
    assert [tuple(row) for row in database.rows("SELECT tailnet, node_id FROM workspaces")] == [("embedded", "3")]
    assert [tuple(row) for row in database.rows("SELECT * FROM tailnet_leftovers")] == [("embedded", "node", "4")]
    database.close()


def test_a_gateway_that_comes_back_to_a_tailnet_knows_its_old_place(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "state.db")
    here, there = Store(database, "embedded"), Store(database, "headscale https://h")
    here.set(Place(node_id="1"))
    assert there.place() == Place()
    there.set(Place(node_id="1", key_id="2"))
    there.set(Place(node_id="3"))
    assert (here.place(), there.place()) == (Place(node_id="1"), Place(node_id="3"))
    database.close()
