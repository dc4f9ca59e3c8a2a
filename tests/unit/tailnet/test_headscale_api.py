"""headscale's answers, and its failures, in our words."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.adapters.tailnet.headscale_api import HeadscaleApi, Refused, usable
from controlplane.errors import TailnetError, TailnetUnavailable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def api(answer: Callable[[httpx.Request], httpx.Response]) -> HeadscaleApi:
    return HeadscaleApi("http://10.0.0.1:7390", "key", transport=httpx.MockTransport(answer))


def saying(status: int, body: Any) -> HeadscaleApi:
    return api(lambda request: httpx.Response(status, json=body))


async def test_a_key_always_expires_and_a_tagged_one_has_no_user() -> None:
    sent: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer key"
        sent.append(msgspec.json.decode(request.content))
        return httpx.Response(200, json={"preAuthKey": {"id": "7", "key": "secret"}})

    minted = await api(answer).mint_key(user=None, tags=["tag:a"], seconds=600)
    await api(answer).mint_key(user="1", tags=[], seconds=60)
    assert (minted.id, minted.secret) == ("7", "secret")
    tagged, owned = sent
    assert "user" not in tagged and owned["user"] == "1" and tagged["aclTags"] == ["tag:a"]
    assert not tagged["reusable"] and not tagged["ephemeral"]
    expires = datetime.fromisoformat(tagged["expiration"].replace("Z", "+00:00"))
    assert timedelta(seconds=590) < expires - datetime.now(UTC) <= timedelta(seconds=600)


@pytest.mark.parametrize(("status", "body"), [(404, {"message": "no"}), (500, {"message": "node not found"})])
async def test_what_is_gone_is_removed(status: int, body: Any) -> None:
    await saying(status, body).delete_node("3")
    assert await saying(status, body).node("3") is None


async def test_failures_are_told_apart() -> None:
    with pytest.raises(TailnetError, match="refused: database is locked"):
        await saying(500, {"message": "database is locked"}).delete_node("3")
    with pytest.raises(Refused):
        await saying(401, {}).nodes()

    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(TailnetUnavailable, match=r"http://10\.0\.0\.1:7390 does not answer"):
        await api(away).nodes()
    with pytest.raises(TailnetUnavailable, match=r"no coordinator.*tailnet\.port"):
        await api(lambda request: httpx.Response(200, text="<html>")).server_key()
    with pytest.raises(TailnetError, match="no JSON"):
        await api(lambda request: httpx.Response(200, text="<html>")).nodes()


async def test_nodes_in_our_words() -> None:
    past = "2020-01-01T00:00:00Z"
    owned = {"id": "1", "name": "lap", "givenName": "laptop", "user": {"name": "owner"}, "expiry": past}
    tagged = {
        "id": "2",
        "name": "alpha",
        "user": {"name": "tagged-devices"},
        "tags": ["tag:perry-workspace"],
        "ipAddresses": ["100.64.0.2"],
        "expiry": "0001-01-01T00:00:00Z",
        "online": True,
    }
    laptop, alpha = await saying(200, {"nodes": [owned, tagged]}).nodes()
    assert (laptop.name, laptop.user, laptop.expired, laptop.online) == ("laptop", "owner", True, False)
    assert (alpha.user, alpha.expired, alpha.online, alpha.ips) == (None, False, True, ("100.64.0.2",))


def test_a_key_that_was_used_or_is_over_enrols_nobody() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert usable({"expiration": "2026-01-01T00:00:01Z"}, now)
    assert not usable({"expiration": "2025-12-31T23:59:59Z"}, now)
    assert not usable({"expiration": "2026-01-01T00:00:01Z", "used": True}, now)
