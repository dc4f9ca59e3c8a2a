"""Requests to the whole application, in memory or over a real server."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.fakes.surface import TOKEN, Surface


@pytest.fixture
def surface(tmp_path: Path, anyio_backend: str) -> Surface:
    return Surface(tmp_path, allowed_hosts=("perry.example",))


@pytest.fixture
async def client(surface: Surface) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody with the token."""
    async with in_memory(surface, Authorization=f"Bearer {TOKEN}") as opened:
        yield opened


@pytest.fixture
async def stranger(surface: Surface) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody without."""
    async with in_memory(surface) as opened:
        yield opened


def in_memory(surface: Surface, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=surface.app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7391", headers=headers)
