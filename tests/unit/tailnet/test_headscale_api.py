"""headscale's answers, and its failures, in our words."""

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from controlplane.adapters.tailnet.headscale_api import HeadscaleApi, Refused, login_of, usable
from controlplane.errors import TailnetError, TailnetUnavailable

pytestmark = pytest.mark.anyio


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


async def test_what_a_proxy_says_in_passing_is_asked_again() -> None:
    answers: list[httpx.Response | Exception] = [
        httpx.Response(503),
        httpx.ConnectError("refused"),
        httpx.Response(429, headers={"retry-after": "0"}),
    ]

    def answer(request: httpx.Request) -> httpx.Response:
        following = answers.pop(0) if answers else httpx.Response(200, json={"nodes": []})
        if isinstance(following, Exception):
            raise following
        return following

    patient = HeadscaleApi("http://10.0.0.1:1", attempts=4, pause=0.001, transport=httpx.MockTransport(answer))
    assert await patient.nodes() == []
    answers = [httpx.Response(502, text="<html>")] * 4
    with pytest.raises(TailnetUnavailable, match=r"is not well \(HTTP 502\); `perry tailnet status`"):
        await patient.nodes()
    answers = [httpx.Response(500, json={"message": "database is locked"})]
    with pytest.raises(TailnetError, match="database is locked"):
        await patient.nodes()


async def test_an_address_that_leads_elsewhere_is_said() -> None:
    moved = api(lambda request: httpx.Response(301, headers={"location": "https://hs.example.com/api/v1/node"}))
    with pytest.raises(TailnetError, match=r"sends us to https://hs\.example\.com/.*set tailnet\.url"):
        await moved.nodes()


@pytest.fixture
def homemade_tls(tmp_path: Path) -> ssl.SSLContext:
    """A server's, with a certificate that it signed itself, as at home."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls


async def test_a_certificate_that_nobody_trusts_is_said(homemade_tls: ssl.SSLContext) -> None:
    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0, ssl=homemade_tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        asked = HeadscaleApi(f"https://localhost:{port}", "key", attempts=3)
        with pytest.raises(
            TailnetUnavailable, match=r"certificate of https://localhost:\d+ is not trusted \(self.signed"
        ):
            await asked.nodes()
        await asked.close()


def test_people_are_named_as_whois_names_them() -> None:
    assert login_of({"id": "1", "name": "me", "email": "me@example.com"}) == "me@example.com"
    assert login_of({"id": "1", "name": "me", "email": ""}) == "me"
    assert login_of({"id": "7"}) == "7"


async def test_our_keys_expiry_is_found_by_its_name() -> None:
    listed = {
        "apiKeys": [
            {"id": "1", "prefix": "hskey-api-aaaaaaaaaaaa-***", "expiration": "2030-01-01T00:00:00Z"},
            {"id": "2", "prefix": "hskey-api-bbbbbbbbbbbb-***", "expiration": "2031-01-01T00:00:00Z"},
        ]
    }
    asked = saying(200, listed)
    asked.key = "hskey-api-bbbbbbbbbbbb-secret"
    assert await asked.key_expiry() == datetime(2031, 1, 1, tzinfo=UTC)
    asked.key = "hskey-api-cccccccccccc-secret"
    assert await asked.key_expiry() is None
