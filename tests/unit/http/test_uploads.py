"""Bodies sent ahead: whole or not at all, bounded, private, and gone after a day."""

import errno
import os
import socket
import sqlite3
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest

from controlplane.ports import Uploads
from controlplane.workspaces.uploads import KEPT_SECONDS, UploadFolder
from tests.fakes.surface import TOKEN, Surface
from tests.unit.http.test_rpc import error
from tests.waiting import until

ID = "abcdefgh12345678"


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def files(surface: Surface, tmp_path: Path) -> list[str]:
    return sorted(file.name for file in (tmp_path / "uploads").iterdir())


async def test_a_body_is_kept_for_its_owner_alone(client: httpx.AsyncClient, surface: Surface, tmp_path: Path) -> None:
    body = os.urandom((2 << 20) + 17)
    assert surface.uploads.path(ID) is None
    assert (await client.put(f"/uploads/{ID}", content=body)).status_code == 204
    file = surface.uploads.path(ID)
    assert file is not None
    assert file.read_bytes() == body
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert (await client.put(f"/uploads/{ID}", content=b"again")).status_code == 204
    assert file.read_bytes() == b"again"
    assert files(surface, tmp_path) == [ID]
    surface.uploads.discard(ID)
    surface.uploads.discard(ID)
    assert surface.uploads.path(ID) is None


@pytest.mark.parametrize(
    "name", ["short", "A" * 16, "a" * 65, "abcdefgh1234567.", "..%2f..%2fetc%2fpasswd00", "a" * 16 + "%0a", "é" * 16]
)
async def test_an_id_is_letters_and_digits(
    client: httpx.AsyncClient, surface: Surface, tmp_path: Path, name: str
) -> None:
    answer = await client.put(f"/uploads/{name}", content=b"x")
    assert error(answer).code in ("BAD_REQUEST", "NOT_FOUND")
    assert files(surface, tmp_path) == []
    assert surface.uploads.path("../" + name) is None


async def test_a_body_has_a_bound(client: httpx.AsyncClient, surface: Surface, tmp_path: Path) -> None:
    too_much = surface.uploads.limit + 1
    assert error(await client.put(f"/uploads/{ID}", content=b"x" * too_much)).code == "PAYLOAD_TOO_LARGE"
    parts = chunks(*[b"x" * 65536] * (too_much // 65536 + 1))
    assert error(await client.put(f"/uploads/{ID}", content=parts)).code == "PAYLOAD_TOO_LARGE"
    assert (await client.put(f"/uploads/{ID}", content=b"x" * surface.uploads.limit)).status_code == 204
    assert files(surface, tmp_path) == [ID]


async def test_a_transfer_that_breaks_leaves_nothing(surface: Surface, tmp_path: Path) -> None:
    head = (
        f"PUT /uploads/{ID} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {2 << 20}\r\n\r\n"
    )

    def break_off(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(head.encode() + b"x" * (1 << 20) + b"y")
            time.sleep(0.1)

    async with surface.served() as port, anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, break_off, port)
        await until(lambda: len(files(surface, tmp_path)) == 1, "it is being written")
        await until(lambda: files(surface, tmp_path) == [], "it is removed")
    assert surface.uploads.path(ID) is None


async def test_a_full_disk_is_a_sentence(
    client: httpx.AsyncClient, surface: Surface, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(surface.uploads, "_write", full)
    assert error(await client.put(f"/uploads/{ID}", content=b"x")).code == "INSUFFICIENT_STORAGE"
    assert files(surface, tmp_path) == []


async def test_what_nobody_takes_is_swept_after_a_day(surface: Surface, tmp_path: Path) -> None:
    for name, age in ((ID, KEPT_SECONDS + 60), ("b" * 16, KEPT_SECONDS - 60), (f".{ID}.aa", KEPT_SECONDS + 60)):
        file = tmp_path / "uploads" / name
        file.write_bytes(b"x")
        os.utime(file, (time.time() - age,) * 2)
    with anyio.move_on_after(0.2):
        await surface.uploads.sweep_for_ever()
    assert files(surface, tmp_path) == ["b" * 16]


async def test_what_is_needed_stays_until_it_is_not(surface: Surface, tmp_path: Path) -> None:
    """As a batch's repository, which each of its items clones, some of them a week later."""
    old, other = tmp_path / "uploads" / ID, tmp_path / "uploads" / ("b" * 16)
    for file in (old, other):
        file.write_bytes(b"x")
        os.utime(file, (time.time() - 7 * KEPT_SECONDS,) * 2)
    needed = {ID}
    surface.uploads.keep_while(lambda: needed)
    await surface.uploads.sweep()
    surface.uploads.discard(ID)
    await surface.uploads.sweep()
    assert files(surface, tmp_path) == [ID]
    os.utime(old)
    needed.clear()
    await surface.uploads.sweep()
    assert files(surface, tmp_path) == []


async def test_where_nobody_can_say_what_is_needed_nothing_goes(
    surface: Surface, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "uploads" / ID
    file.write_bytes(b"x")
    os.utime(file, (time.time() - 2 * KEPT_SECONDS,) * 2)

    def fails() -> set[str]:
        raise sqlite3.OperationalError("disk I/O error")

    surface.uploads.keep_while(fails)
    with anyio.move_on_after(0.2):
        await surface.uploads.sweep_for_ever()
    assert files(surface, tmp_path) == [ID] and "could not be swept" in caplog.text


def _typed(folder: UploadFolder) -> Uploads:
    return folder
