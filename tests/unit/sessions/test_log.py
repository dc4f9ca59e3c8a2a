"""What is written stays short beside the file, and nobody who writes waits for that."""

import sqlite3
from pathlib import Path

import anyio
import pytest

from controlplane.sessions import database as module
from controlplane.sessions.database import SessionsDatabase
from tests.unit.sessions.conftest import until

pytestmark = pytest.mark.anyio


async def test_the_log_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAL_BYTES", 1 << 20)
    monkeypatch.setattr(module, "_WAL_PAGES", 1 << 30)  # No writer does it by the way.
    database = SessionsDatabase(tmp_path / "sessions.db")
    log, written = tmp_path / "sessions.db-wal", 0

    async def write() -> None:
        nonlocal written
        await database.write(
            lambda db: db.execute("INSERT INTO messages VALUES (?, '', '', 0, '', ?)", (written, "x" * 100_000))
        )
        written += 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.keep_short)

        async def short() -> bool:
            await write()
            return written > 100 and log.stat().st_size <= 1 << 20

        await until(short, "what is written is in the file itself")
        tasks.cancel_scope.cancel()

    def count(db: sqlite3.Connection) -> int:
        return int(db.execute("SELECT count(*) FROM messages").fetchone()[0])

    assert await database.read(count) == written
    database.close()


async def test_a_file_that_cannot_be_opened_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "WAL_BYTES", 0)
    database = SessionsDatabase(tmp_path / "sessions.db")

    def refuse(*_: object, **__: object) -> sqlite3.Connection:
        raise PermissionError("Read-only file system")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(database.keep_short)
        monkeypatch.setattr(database, "_connect", refuse)
        await database.write(lambda db: db.execute("INSERT INTO messages VALUES (1, '', '', 0, '', '')"))
        await until(lambda: "grows: Read-only file system" in caplog.text, "it is said")
        tasks.cancel_scope.cancel()
    database.close()
