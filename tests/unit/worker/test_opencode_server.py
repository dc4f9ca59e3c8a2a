"""When OpenCode's server is started for the first time."""

import asyncio
from pathlib import Path

import pytest

from worker.sessions.liveness import Processes
from worker.tasks.server import until_it_is_alone


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_it_waits_for_somebodys_first_opencode(tmp_path: Path) -> None:
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "cmdline").write_bytes(b"opencode\0run\0hello\0")
    waiting = asyncio.create_task(
        until_it_is_alone(str(tmp_path / "opencode.db"), Processes(tmp_path / "proc"), look=0.01)
    )
    await asyncio.sleep(0.1)
    assert not waiting.done()
    (process / "cmdline").unlink()
    await asyncio.wait_for(waiting, 20)


async def test_it_does_not_wait_where_the_database_is_there(tmp_path: Path) -> None:
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "cmdline").write_bytes(b"opencode\0")
    (tmp_path / "opencode.db").touch()
    await asyncio.wait_for(until_it_is_alone(str(tmp_path / "opencode.db"), Processes(tmp_path / "proc"), look=60), 20)
