"""Who is let in, from where. Every route and every WebSocket is behind the same door."""

import logging
from collections.abc import Iterable
from typing import Any

import httpx
import msgspec
import pytest
from litestar.routes import HTTPRoute, WebSocketRoute

from controlplane.asgi import IDENTITY, Message, Scope
from controlplane.auth.headers import Headers
from controlplane.auth.identity import ANONYMOUS, TOKEN, Identity
from controlplane.auth.policy import Right
from protocol.auth import IdentityKind
from tests.fakes import surface as fakes
from tests.fakes.surface import Surface
from tests.unit.http.conftest import in_memory
from tests.unit.http.test_rpc import JSON, call, error

AUTHORISED = ("authorization", f"Bearer {fakes.TOKEN}")
HOST = ("host", "127.0.0.1:7391")


async def knock(
    surface: Surface,
    headers: Iterable[tuple[str, str]],
    *,
    path: str = "/rpc/workspaces/list",
    method: str = "POST",
    app: Any = None,
) -> tuple[int, dict[str, Any]]:
    """A request with exactly these headers, as a server would hand it over: status and error."""
    sent: list[Message] = []
    body = iter([{"type": "http.request", "body": b"{}", "more_body": False}])

    async def receive() -> Message:
        return next(body)

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(key.encode(), value.encode()) for key, value in headers],
        "client": ("127.0.0.1", 50000),
        "server": ("192.0.2.7", 7391),
    }
    await (app or surface.app)(scope, receive, send)
    answer = msgspec.json.decode(sent[1]["body"]) if len(sent) > 1 and sent[1]["body"] else {}
    return sent[0]["status"], answer.get("json", answer) if isinstance(answer, dict) else answer


TYPE = ("content-type", "application/json")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:7391",
        "LOCALHOST:1",
        "localhost.",
        "127.0.0.1:7391",
        "127.1.2.3",
        "[::1]:7391",
        "[::ffff:127.0.0.1]",
        "perry",
        "Perry:80",
        "perry.example:443",
        "192.0.2.7:7391",
    ],
)
async def test_our_own_names_are_served(surface: Surface, host: str) -> None:
    assert (await knock(surface, [("host", host), AUTHORISED, TYPE]))[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "192.0.2.8",
        "0.0.0.0",
        "perry.evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.example:7391",
        "[2001:db8::1]",
        "2130706433",
    ],
)
async def test_a_foreign_name_is_refused(surface: Surface, host: str) -> None:
    status, found = await knock(surface, [("host", host), AUTHORISED, TYPE])
    assert (status, found["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize(
    "host", ["", "a b", "localhost:port", "user@localhost", "localhost/x", "[::1", "localhost:1:2"]
)
async def test_a_malformed_name_is_refused(surface: Surface, host: str) -> None:
    assert (await knock(surface, [("host", host), AUTHORISED, TYPE]))[0] == 400


async def test_a_name_is_needed(surface: Surface) -> None:
    assert (await knock(surface, [AUTHORISED, TYPE]))[0] == 400


@pytest.mark.parametrize("name", ["Host", "hOST", "Authorization", "AUTHORIZATION", "Origin", "sec-fetch-SITE"])
async def test_a_doubled_header_is_refused(surface: Surface, name: str) -> None:
    values = {
        "host": "127.0.0.1:7391",
        "authorization": AUTHORISED[1],
        "origin": "http://127.0.0.1:7391",
        "sec-fetch-site": "same-origin",
    }
    once = list(values.items())
    assert (await knock(surface, [*once, TYPE]))[0] == 200
    status, found = await knock(surface, [*once, TYPE, (name, values[name.lower()])])
    assert (status, found["code"]) == (400, "BAD_REQUEST")


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "http://127.0.0.1:5173",
        "http://127.0.0.1",
        "http://localhost:7391",
        "https://127.0.0.1",
        "file://",
        "http://127.0.0.1:7391@evil.example",
        "http://user@127.0.0.1:7391",
        "chrome-extension://abc",
        "http://[::1",
        "",
    ],
)
async def test_a_page_of_another_origin_is_refused(surface: Surface, origin: str) -> None:
    status, found = await knock(surface, [HOST, AUTHORISED, TYPE, ("Origin", origin)])
    assert (status, found["code"]) == (403, "FORBIDDEN")


async def test_our_own_page_is_served(surface: Surface) -> None:
    for origin, host in [
        ("http://127.0.0.1:7391", "127.0.0.1:7391"),
        ("http://perry", "perry"),
        ("https://perry", "perry:443"),
        ("https://Perry.Example", "perry.example"),
    ]:
        status, _ = await knock(surface, [("host", host), AUTHORISED, TYPE, ("origin", origin)])
        assert status == 200, origin


@pytest.mark.parametrize("site", ["cross-site", "CROSS-site", "same-site", "what"])
async def test_a_cross_site_fetch_is_refused(surface: Surface, site: str) -> None:
    for path, method in (("/health", "GET"), ("/rpc/workspaces/list", "POST"), ("/nowhere", "GET")):
        status, _ = await knock(surface, [HOST, AUTHORISED, TYPE, ("Sec-Fetch-Site", site)], path=path, method=method)
        assert status == 403


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (f"Bearer {fakes.TOKEN}", 200),
        (f"bearer {fakes.TOKEN}", 200),
        (f"BEARER   {fakes.TOKEN} ", 200),
        (f"Bearer {fakes.TOKEN}x", 401),
        (f"Bearer {fakes.TOKEN[:-1]}", 401),
        (f"Bearer {fakes.TOKEN.upper()}", 401),
        ("Bearer tökén", 401),
        ("Bearer ", 400),
        (fakes.TOKEN, 400),
        (f"Basic {fakes.TOKEN}", 400),
        ("", 400),
    ],
)
async def test_the_token_has_to_be_ours(surface: Surface, value: str, status: int) -> None:
    assert (await knock(surface, [HOST, TYPE, ("AuthoriZation", value)]))[0] == status


async def test_a_stranger_sees_the_health_and_nothing_else(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get("/health")).json() == {"ok": True, "version": "0.1.0", "apiVersion": 1}
    for method, path in [
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("GET", "/schema"),
        ("GET", "/nowhere"),
        ("GET", "/health/"),
        ("GET", "//health"),
        ("HEAD", "/health"),
        ("POST", "/health"),
        ("OPTIONS", "/rpc/workspaces/list"),
        ("POST", "/rpc/auth/whoami"),
        ("PUT", "/uploads/abcdefgh12345678"),
    ]:
        answer = await stranger.request(method, path, headers=JSON)
        assert answer.status_code == 401, (method, path)
        assert answer.headers["www-authenticate"] == "Bearer"
        if method != "HEAD":
            assert error(answer).code == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "header",
    ["Tailscale-User-Login", "X-Perry-Login", "X-Forwarded-User", "Remote-User", "perry.identity", "X-Webauth-User"],
)
async def test_a_header_of_identity_means_nothing_over_tcp(surface: Surface, header: str) -> None:
    assert (await knock(surface, [HOST, TYPE, (header, "owner@")]))[0] == 401
    status, found = await knock(surface, [HOST, TYPE, AUTHORISED, (header, "owner@")], path="/rpc/auth/whoami")
    assert (status, found["kind"]) == (200, "token")


async def test_a_forwarded_address_means_nothing(surface: Surface) -> None:
    forged = [("x-forwarded-for", "127.0.0.1"), ("x-forwarded-host", "localhost"), ("forwarded", "host=localhost")]
    assert (await knock(surface, [("host", "evil.example"), AUTHORISED, TYPE, *forged]))[0] == 403


async def test_a_request_id_is_ours(surface: Surface, client: httpx.AsyncClient) -> None:
    answer = await client.get("/health", headers={"X-Request-Id": "forged"})
    assert answer.headers.get_list("x-request-id") != ["forged"]
    assert len(answer.headers.get_list("x-request-id")) == 1


class _Says:
    """What a listener of a gateway would trust."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def identify(self, headers: Headers) -> Identity:
        return self._identity


async def test_trust_follows_the_listener(surface: Surface) -> None:
    """The same routes, on a listener that knows its callers: a tagged node may ask who it is, and others nothing."""
    guest = surface.listener(_Says(Identity(kind=IdentityKind.NODE, login="guest@", node="laptop")))
    status, found = await knock(surface, [HOST, TYPE], path="/rpc/auth/whoami", app=guest)
    assert (status, found["code"]) == (403, "FORBIDDEN")
    assert "recognised as guest@, on laptop" in found["message"]
    assert (await knock(surface, [HOST], path="/health", method="GET", app=guest))[0] == 200
    node = Identity(kind=IdentityKind.NODE, tags=("tag:ci",), node="laptop")
    app = surface.listener(_Says(node))
    status, found = await knock(surface, [HOST, TYPE], path="/rpc/auth/whoami", app=app)
    assert (status, found["kind"], found["node"]) == (200, "node", "laptop")
    for path, method in [("/rpc/workspaces/list", "POST"), ("/metrics", "GET"), ("/uploads/abcdefgh12345678", "PUT")]:
        status, found = await knock(surface, [HOST, TYPE], path=path, method=method, app=app)
        assert (status, found["code"]) == (403, "FORBIDDEN"), path
    owner = surface.listener(_Says(Identity(kind=IdentityKind.OWNER, login="owner@")))
    assert (await knock(surface, [HOST, TYPE], app=owner))[0] == 200


async def test_without_a_door_nobody_is_known(surface: Surface) -> None:
    status, found = await knock(surface, [HOST, AUTHORISED, TYPE], app=surface.litestar)
    assert (status, found["code"]) == (401, "UNAUTHORIZED")


def test_every_route_says_who_may(surface: Surface) -> None:
    handlers = [
        handler
        for route in surface.litestar.routes
        for handler in (
            route.route_handlers
            if isinstance(route, HTTPRoute)
            else [route.route_handler]
            if isinstance(route, WebSocketRoute)
            else []
        )
    ]
    assert len(handlers) > 15
    for handler in handlers:
        if "OPTIONS" in getattr(handler, "http_methods", ()):
            continue  # Litestar's own, which say no more than the methods; the guard refuses them.
        assert isinstance(handler.opt.get("right"), Right), handler


async def test_options_are_refused_to_everybody(client: httpx.AsyncClient) -> None:
    assert error(await client.options("/rpc/workspaces/list")).code == "FORBIDDEN"


async def test_the_log_has_one_line_a_request_and_no_secret(surface: Surface, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with in_memory(surface, Authorization=f"Bearer {fakes.TOKEN}") as client:
            answer = await call(client, "workspaces.start", {"json": {"name": "alpha", "clone": "https://u:pw@host/x"}})
        await knock(surface, [("host", "evil.example"), AUTHORISED, TYPE])
        await knock(surface, [HOST, TYPE])
    lines = [record.__dict__["fields"] for record in caplog.records if record.getMessage() == "request"]
    assert [(line["status"], line["identity"]) for line in lines] == [
        (200, "token"),
        (403, "anonymous"),
        (401, "anonymous"),
    ]
    assert answer.status_code == 200
    assert set(lines[0]) == {"method", "path", "status", "ms", "identity"}
    text = caplog.text + str([record.__dict__ for record in caplog.records])
    assert fakes.TOKEN not in text
    assert "pw@" not in text


def test_the_identity_of_a_listener_cannot_come_from_the_wire() -> None:
    assert ANONYMOUS != TOKEN
    assert IDENTITY.encode() not in {b"authorization", b"host"}
