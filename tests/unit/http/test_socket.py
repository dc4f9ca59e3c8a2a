"""The control plane's socket, with a real server: what the gateway says there counts, and nothing else does."""

import base64
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from controlplane.auth.service import GatewayResolver
from controlplane.errors import StartupError
from controlplane.system.server import CONTROL_SOCKET, listen_in, serve
from tests.fakes.surface import TOKEN, Surface


def said(**fields: object) -> str:
    text = msgspec.json.encode({"nodeId": "1", **fields})
    return "Perry-Identity: " + base64.urlsafe_b64encode(text).decode().rstrip("=") + "\r\n"


OWNER, GUEST = said(login="owner", node="laptop.perry.internal"), said(login="guest", node="phone.perry.internal")


@asynccontextmanager
async def served(surface: Surface, folder: Path, names: Callable[[], tuple[str, ...]] = tuple) -> AsyncIterator[Path]:
    resolver = GatewayResolver(owners=lambda: ("owner",), workspace_of=lambda _: None, own_addresses=tuple)
    app = surface.listener(resolver, names)
    listener = listen_in(folder)
    async with anyio.create_task_group() as group:

        async def run(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            await serve(
                app,
                listener,
                requests=surface.requests,
                stop=surface.stop,
                before_end=surface.services.end_streams,
                task_status=task_status,
            )

        await group.start(run)
        try:
            yield folder / CONTROL_SOCKET
        finally:
            surface.stop.set()
    listener.close()


def exchange(at: Path, lines: str, path: str = "/rpc/workspaces/list", host: str = "perry") -> tuple[int, str]:
    with socket.socket(socket.AF_UNIX) as plain:
        plain.settimeout(5)
        plain.connect(str(at))
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        plain.sendall(f"{head}{lines}Content-Length: 2\r\n\r\n{{}}".encode())
        answer = b""
        while chunk := plain.recv(65536):
            answer += chunk
    return int(answer.split()[1]), answer.decode()


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (OWNER, 200),
        (OWNER.replace("Perry-Identity", "pERRY-iDENTITY"), 200),
        (GUEST, 403),
        (GUEST + OWNER, 401),
        (OWNER + OWNER.replace("Perry-Identity", "PERRY-IDENTITY"), 401),
        (GUEST + OWNER.replace("Perry-Identity", "Perry_Identity"), 403),
        (GUEST + f"Authorization: Bearer {TOKEN}\r\n", 403),
        (f"Authorization: Bearer {TOKEN}\r\n", 401),
        ("", 401),
        (OWNER.replace("Perry-Identity", "Perry_Identity"), 401),
        (OWNER.replace("Perry-Identity:", "Perry-Identity :"), 400),
        (GUEST.rstrip() + ",\r\n " + OWNER.partition(": ")[2], 401),
        (OWNER + "Origin: http://evil.example\r\n", 403),
        (OWNER + "Origin: http://perry\r\n", 200),
    ],
)
async def test_who_one_is_on_the_socket(surface: Surface, tmp_path: Path, lines: str, status: int) -> None:
    async with served(surface, tmp_path / "run") as at:
        got, answer = await anyio.to_thread.run_sync(exchange, at, lines)
    assert got == status, answer
    if lines == GUEST:
        assert "recognised as guest, on phone" in answer


async def test_its_names_are_those_of_the_moment(surface: Surface, tmp_path: Path) -> None:
    names: list[str] = []
    async with served(surface, tmp_path / "run", lambda: tuple(names)) as at:

        async def status(host: str) -> int:
            return (await anyio.to_thread.run_sync(lambda: exchange(at, OWNER, host=host)))[0]

        hosts = ("perry-1", "perry-1.tail1234.ts.net", "100.64.0.9:7391", "[fd7a:115c:a1e0::9]")
        assert [await status(host) for host in hosts] == [403] * 4
        names += ["perry-1", "perry-1.tail1234.ts.net", "100.64.0.9", "fd7a:115c:a1e0::9"]
        assert [await status(host) for host in hosts] == [200] * 4
        assert await status("evil.example") == 403
        assert await status(str(at)) == 400


async def test_only_the_owner_may_enter_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40) / "run"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    listen_in(folder).close()
    listen_in(folder).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    found = (folder / CONTROL_SOCKET).stat()
    assert stat.S_ISSOCK(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600


async def test_a_folder_that_cannot_have_it_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.symlink(tmp_path, tmp_path / "link")
    for folder in (tmp_path / "file", tmp_path / "link", tmp_path / "none" / "run"):
        with pytest.raises(StartupError, match=r"cannot be made .* PERRY_CONFIG_DIR"):
            listen_in(folder)
