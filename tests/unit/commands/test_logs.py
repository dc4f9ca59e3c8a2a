"""``GET /logs/<name>``: over a real server, of a fake container."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import msgspec
import pytest

from controlplane.logs import service
from controlplane.workspaces.log_times import exact
from protocol.workspaces import LogLine
from tests.fakes.surface import Surface
from tests.unit.commands.conftest import AUTHORISED
from tests.waiting import until

pytestmark = pytest.mark.anyio


class Reader:
    """Reads lines as they come."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> str:
        """The text of the next line that is one."""
        with anyio.fail_after(5):
            while not (line := await anext(self._lines)):
                pass
        return msgspec.json.decode(line, type=LogLine).text

    async def ended(self) -> bool:
        with anyio.fail_after(5):
            return [line async for line in self._lines if line] == []


@asynccontextmanager
async def following(port: int, **query: Any) -> AsyncIterator[Reader]:
    async with (
        httpx.AsyncClient(headers=AUTHORISED) as client,
        client.stream("GET", f"http://127.0.0.1:{port}/logs/alpha", params=query, timeout=10) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        yield Reader(answer)


@pytest.fixture
def alpha(surface: Surface) -> Any:
    return surface.engine.by_name["alpha"]


async def test_what_was_and_what_comes(surface: Surface, alpha: Any) -> None:
    for number in range(5):
        alpha.say(f"old {number}")
    async with surface.served() as port, following(port, tail=2) as reader:
        assert [await reader.next(), await reader.next()] == ["old 3", "old 4"]
        alpha.say("new")
        assert await reader.next() == "new"


async def test_it_goes_on_over_a_restart(surface: Surface, alpha: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "AGAIN_SECONDS", 0.02)
    async with surface.served() as port, following(port) as reader:
        alpha.say("before")
        assert await reader.next() == "before"
        await surface.engine.stop("alpha")
        await surface.engine.start("alpha")
        alpha.say("after")
        assert await reader.next() == "after"


async def test_it_begins_after_a_moment(surface: Surface, alpha: Any) -> None:
    for number in range(5):
        alpha.say(f"old {number}")
    (third,) = (await surface.engine.logs("alpha", tail=3))[:1]
    async with surface.served() as port, following(port, since=third.at) as reader:
        assert await reader.next() == "old 3"


async def test_quiet_is_told(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "QUIET_SECONDS", 0.02)
    async with surface.served() as port, following(port) as reader:
        assert await anext(reader._lines) == ""


async def test_it_ends_with_the_workspace(surface: Surface, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "AGAIN_SECONDS", 0.02)
    async with surface.served() as port, following(port) as reader:
        surface.workspaces._all.clear()
        await surface.engine.stop("alpha")
        assert await reader.ended()


async def test_it_ends_with_the_control_plane_at_once(surface: Surface) -> None:
    async with surface.served(grace=30) as port, following(port) as reader:
        surface.stop.set()
        assert await reader.ended()


async def test_who_reads_nothing_is_not_read_for(surface: Surface, alpha: Any) -> None:
    taken = 0
    real = surface.engine.follow_logs

    async def counted(container: str, *, since: str | None = None) -> AsyncIterator[Any]:
        nonlocal taken
        async for entry in real(container, since=since):
            taken += 1
            yield entry

    surface.engine.follow_logs = counted  # type: ignore[method-assign]
    async with surface.served() as port, following(port):
        for _ in range(2000):
            alpha.say("x" * 20_000)
        await anyio.sleep(1)
        before = taken
        assert 0 < before < 1000
        await anyio.sleep(0.3)
        assert taken == before
    await until(lambda: not surface.services.logs._scopes, "nobody follows")


@pytest.mark.parametrize(
    ("path", "status"),
    [("nobody", 404), ("alpha?tail=0", 400), ("alpha?tail=x", 400), ("alpha?tail=99999", 400), ("alpha?since=x", 400)],
)
async def test_what_is_wrong(surface: Surface, path: str, status: int) -> None:
    async with surface.served() as port, httpx.AsyncClient(headers=AUTHORISED) as client:
        answer = await client.get(f"http://127.0.0.1:{port}/logs/{path}")
        assert answer.status_code == answer.json()["json"]["status"] == status


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456789Z"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000000Z"),
        ("2026-01-02T03:04:05.5+02:00", "2026-01-02T01:04:05.500000000Z"),
        ("2026-01-02", "2026-01-02T00:00:00.000000000Z"),
    ],
)
def test_times_are_compared_as_docker_writes_them(given: str | None, meant: str | None) -> None:
    assert exact(given) == meant
