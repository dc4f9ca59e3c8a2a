"""Tailscale's service as far as its API shows it: a server for the adapter to speak to.

Held to the OpenAPI document of the API, to the examples in it, and to answers and error bodies that were seen from the
real one. Devices join by a call, since what they would speak is another protocol.
"""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from aiohttp import web

WORKSPACE_TAG, GATEWAY_TAG = "tag:perry-workspace", "tag:perry-gateway"

TAG_OWNERS = {"tag:perry": ["autogroup:admin"], WORKSPACE_TAG: ["tag:perry"], GATEWAY_TAG: ["tag:perry"]}

INVALID = (401, "API token invalid")
FORBIDDEN = (403, "calling actor does not have enough permissions to perform this function")
NO_DEVICE = (404, "no manageable device matching this ID found")
NO_KEY = (404, "key not found")


class Actor(msgspec.Struct, frozen=True):
    """Whom a token speaks for. A person's has all rights that the person has."""

    id: str
    scopes: frozenset[str]
    tags: tuple[str, ...]
    is_person: bool
    expires: datetime | None = None


class TheirTailscale:
    """``fail`` has statuses that the next requests are answered with, in their order; ``asked`` the requests."""

    def __init__(self, port: int) -> None:
        self.tag_owners: dict[str, list[str]] = dict(TAG_OWNERS)
        self.users = ["owner@example.com", "somebody@example.com"]
        self.fail: list[int] = []
        self.asked: list[tuple[str, str]] = []
        self.port = port
        self._ids = itertools.count(1)
        self._clients: dict[str, tuple[str, Actor]] = {}
        self._tokens: dict[str, Actor] = {}
        self._keys: dict[str, dict[str, Any]] = {}
        self._secrets: dict[str, str] = {}
        self._devices: dict[str, dict[str, Any]] = {}
        self._runner: web.AppRunner | None = None

    # --- what people do in the admin console, and devices by their own protocol

    def oauth_client(self, scopes: str = "auth_keys devices:core users:read", tags: str = "tag:perry") -> str:
        """A new OAuth client's secret."""
        number = self._number()
        secret = f"tskey-client-{number}-s3cr3t{number}"
        self._clients[number] = (secret, Actor(number, frozenset(scopes.split()), tuple(tags.split()), False))
        return secret

    def api_token(self, expires: timedelta = timedelta(days=90)) -> str:
        """A new API access token of somebody who administers the tailnet."""
        number = self._number()
        token = f"tskey-api-{number}-s3cr3t{number}"
        self._tokens[token] = Actor(number, frozenset({"all"}), (), True, datetime.now(UTC) + expires)
        return token

    def auth_key(self, *tags: str) -> str:
        """A new reusable auth key, made by hand."""
        return str(self._made(reusable=True, tags=list(tags), seconds=86400)["key"])

    def revoke(self, secret: str) -> None:
        """The credential is worth nothing from now on, and neither are tokens made with it."""
        number = secret.split("-")[2]
        self._clients.pop(number, None)
        self.forget_tokens(number)

    def forget_tokens(self, number: str | None = None) -> None:
        """Access tokens end, as after their hour."""
        self._tokens = {token: actor for token, actor in self._tokens.items() if number not in (None, actor.id)}

    def join(self, name: str, secret: str) -> bool:
        """A device comes with a key."""
        key = self._keys.get(self._secrets.get(secret, ""))
        if key is None or key["used"] or key["expires"] < datetime.now(UTC):
            return False
        key["used"] = not key["capabilities"]["devices"]["create"]["reusable"]
        self._add(name, tags=key["capabilities"]["devices"]["create"]["tags"], user="owner@example.com")
        return True

    def join_as_person(self, name: str, user: str = "owner@example.com") -> None:
        """A device whose owner logs in."""
        self._add(name, tags=[], user=user)

    def share_in(self, name: str) -> None:
        """Somebody of another tailnet shares a device with this one."""
        self._add(name, tags=[], user="stranger@example.net")
        device = next(reversed(self._devices.values()))
        device |= {"isExternal": True, "name": f"{name}.tail9999.ts.net", "machineKey": "", "created": ""}

    def _add(self, name: str, *, tags: list[str], user: str) -> None:
        number = next(self._ids)
        taken = {device["name"].partition(".")[0] for device in self._devices.values()}
        free = next(
            each for each in itertools.chain([name], (f"{name}-{n}" for n in itertools.count(1))) if each not in taken
        )
        node_id = f"n{number:06}CNTRL"
        device: dict[str, Any] = {
            "addresses": [f"100.64.0.{number}", f"fd7a:115c:a1e0::{number:x}"],
            "id": str(92960230385000 + number),
            "nodeId": node_id,
            "user": user,
            "name": f"{free}.tail1234.ts.net",
            "hostname": name,
            "clientVersion": "1.102.5",
            "updateAvailable": False,
            "os": "linux",
            "created": _time(datetime.now(UTC)),
            "connectedToControl": True,
            "lastSeen": _time(datetime.now(UTC)),
            "expires": "0001-01-01T00:00:00Z" if tags else _time(datetime.now(UTC) + timedelta(days=180)),
            "keyExpiryDisabled": bool(tags),
            "authorized": True,
            "isExternal": False,
            "isEphemeral": False,
            "machineKey": f"mkey:{number:064x}",
            "nodeKey": f"nodekey:{number:064x}",
            "blocksIncomingConnections": False,
            "tailnetLockError": "",
            "tailnetLockKey": "",
        }
        if tags:
            device["tags"] = tags
        self._devices[node_id] = device

    def _number(self) -> str:
        return f"k{next(self._ids):06}CNTRL"

    def _made(self, *, reusable: bool, tags: list[str], seconds: int, description: str = "") -> dict[str, Any]:
        number = self._number()
        secret = f"tskey-auth-{number}-s3cr3t{number}"
        now = datetime.now(UTC)
        create = {"reusable": reusable, "ephemeral": False, "preauthorized": True, "tags": tags}
        self._keys[number] = {
            "id": number,
            "keyType": "auth",
            "expirySeconds": seconds,
            "created": now,
            "expires": now + timedelta(seconds=seconds),
            "capabilities": {"devices": {"create": create}},
            "description": description,
            "used": False,
        }
        self._secrets[secret] = number
        return {**_shown(self._keys[number]), "key": secret}

    # --- the server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def appear(self) -> None:
        """Serve."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()

    async def vanish(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/api/v2")
        self.asked.append((request.method, path))
        if self.fail:
            return _error(self.fail.pop(0), "try again later")
        if (request.method, path) == ("POST", "/oauth/token"):
            return await self._token(request)
        actor = self._tokens.get(request.headers.get("Authorization", "").removeprefix("Bearer "))
        if actor is None or (actor.expires is not None and actor.expires < datetime.now(UTC)):
            return _error(*INVALID)
        parts = path.strip("/").split("/")
        if parts[0] == "device" and len(parts) == 2:
            return self._device(request, actor, parts[1])
        if parts[:2] == ["tailnet", "-"]:
            if parts[2:] == ["devices"] and request.method == "GET":
                if not _may(actor, "devices:core", "devices:core:read"):
                    return _error(*FORBIDDEN)
                return web.json_response({"devices": list(self._devices.values())})
            if parts[2:] == ["users"] and request.method == "GET":
                if not _may(actor, "users", "users:read"):
                    return _error(*FORBIDDEN)
                return web.json_response({"users": [_user(number, name) for number, name in enumerate(self.users)]})
            if parts[2:] == ["keys"] and request.method == "POST":
                return await self._create_key(request, actor)
            if parts[2] == "keys" and len(parts) == 4:
                return self._key(request, actor, parts[3])
        return _error(404, "404 page not found")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        secret, actor = self._clients.get(str(form.get("client_id")), ("", None))
        if actor is None or form.get("client_secret") != secret:
            return _error(*INVALID)
        token = f"tskey-api-{actor.id}-{next(self._ids)}"
        self._tokens[token] = actor
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": " ".join(actor.scopes)}
        return web.json_response(answer)

    async def _create_key(self, request: web.Request, actor: Actor) -> web.Response:
        if not _may(actor, "auth_keys"):
            return _error(*FORBIDDEN)
        wanted = await request.json()
        create = wanted["capabilities"]["devices"]["create"]
        tags = create["tags"]
        if not actor.is_person and not tags:
            return _error(400, "tailnet-owned auth key must have tags set")
        if not self._allowed(actor, tags):
            return _error(400, f"requested tags [{' '.join(tags)}] are invalid or not permitted")
        seconds = wanted.get("expirySeconds") or 90 * 86400
        made = self._made(
            reusable=create["reusable"], tags=tags, seconds=seconds, description=wanted.get("description", "")
        )
        return web.json_response(made)

    def _allowed(self, actor: Actor, tags: list[str]) -> bool:
        if actor.is_person:
            return all("autogroup:admin" in self._owners(tag) for tag in tags)
        return sorted(tags) == sorted(actor.tags) or all(set(actor.tags) & set(self._owners(tag)) for tag in tags)

    def _owners(self, tag: str) -> list[str]:
        """A tag's owners, through the tags that own it."""
        direct = self.tag_owners.get(tag, [])
        return [*direct, *(owner for one in direct if one.startswith("tag:") for owner in self._owners(one))]

    def _key(self, request: web.Request, actor: Actor, number: str) -> web.Response:
        if request.method == "GET" and number == actor.id:
            shown = {"id": number, "keyType": "api" if actor.is_person else "client", "created": "2026-01-01T00:00:00Z"}
            shown |= {"expires": _time(actor.expires)} if actor.expires else {}
            return web.json_response(shown)
        if not _may(actor, "auth_keys"):
            return _error(*FORBIDDEN)
        if number not in self._keys:
            return _error(*NO_KEY)
        if request.method == "DELETE":
            del self._keys[number]
            return web.json_response({})
        return web.json_response(_shown(self._keys[number]))

    def _device(self, request: web.Request, actor: Actor, wanted: str) -> web.Response:
        if not _may(actor, "devices:core"):
            return _error(*FORBIDDEN)
        found = next((key for key, each in self._devices.items() if wanted in (key, each["id"])), None)
        if found is None:
            return _error(*NO_DEVICE)
        if request.method == "DELETE":
            del self._devices[found]
            return web.json_response(None)
        return web.json_response(self._devices[found])


def _may(actor: Actor, *scopes: str) -> bool:
    return bool(actor.scopes & {*scopes, "all"})


def _shown(key: dict[str, Any]) -> dict[str, Any]:
    return {**key, "created": _time(key["created"]), "expires": _time(key["expires"]), "invalid": False}


def _user(number: int, login: str) -> dict[str, Any]:
    return {
        "id": f"u{number}CNTRL",
        "displayName": login.partition("@")[0].title(),
        "loginName": login,
        "profilePicUrl": "",
        "tailnetId": "T1CNTRL",
        "created": "2026-01-01T00:00:00Z",
        "type": "member",
        "role": "admin" if number == 0 else "member",
        "status": "active",
        "deviceCount": 1,
        "lastSeen": "2026-01-02T00:00:00Z",
        "currentlyConnected": True,
    }


def _time(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _error(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
