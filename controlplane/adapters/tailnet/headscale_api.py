"""headscale's REST API, v0.29: keys, nodes, policy. Errors in our words.

Its answers are of gRPC's JSON mapping: camelCase, ids as decimal strings, times as RFC 3339. What a missing object is
answered with varies (404, or 500 with "not found"), so both mean that it is gone already.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from controlplane.errors import TailnetError, TailnetUnavailable
from controlplane.ports import AuthKey, Node

TIMEOUT = httpx.Timeout(10, connect=3)

CLIENT_VERSION = "113"
"""Any version of the protocol that it knows; this is Tailscale 1.80's, its oldest."""


class Refused(TailnetError):
    """The API key is wrong or has expired; for the adapter, which has a new one made."""


class HeadscaleApi:
    """One headscale. ``url`` and ``key`` may change at any time; calls under way end with those they began with."""

    def __init__(self, url: str = "", key: str = "", *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.url = url
        self.key = key
        self._client = httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, transport=transport)

    async def close(self) -> None:
        await self._client.aclose()

    async def server_key(self) -> str:
        """What the server is known by; a database made anew has another. Needs no API key, and costs it nothing."""
        answer = await self._answer("GET", f"{self.url}/key", query={"v": CLIENT_VERSION})
        try:
            return str(answer.json()["publicKey"])
        except (ValueError, KeyError, TypeError) as exc:
            raise TailnetUnavailable(
                f"What answers at {self.url} is no coordinator; free its port, or set tailnet.port in config.json."
            ) from exc

    async def _call(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, str] | None = None, gone: Any = None
    ) -> Any:
        """The answer's JSON; ``gone`` where the object does not exist, if that is given."""
        answer = await self._answer(
            method,
            f"{self.url}/api/v1{path}",
            body=body,
            query=query,
            headers={"Authorization": f"Bearer {self.key}"},
        )
        if answer.status_code == 401:
            raise Refused("The tailnet's coordinator refuses the API key; it is wrong or has expired.")
        missing = answer.status_code == 404 or (answer.status_code == 500 and "not found" in answer.text)
        if missing and gone is not None:
            return gone
        if answer.is_error:
            raise TailnetError(f"The tailnet's coordinator refused: {_said(answer)}")
        try:
            return answer.json()
        except ValueError as exc:
            raise TailnetError("The tailnet's coordinator answered something that is no JSON.") from exc

    async def _answer(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            return await self._client.request(method, url, json=body, params=query, headers=headers)
        except httpx.HTTPError as exc:
            raise TailnetUnavailable(
                f"The tailnet's coordinator at {self.url} does not answer; `perry tailnet status` shows how it stands."
            ) from exc

    async def user_id(self, name: str) -> str:
        """The id of a user, who is made where missing."""
        users = (await self._call("GET", "/user"))["users"]
        for user in users:
            if user["name"] == name:
                return str(user["id"])
        return str((await self._call("POST", "/user", body={"name": name}))["user"]["id"])

    async def mint_key(self, *, user: str | None, tags: Sequence[str], seconds: int) -> AuthKey:
        """A key for one node. A tagged one has no user."""
        # Left out, the expiry would be in year 1, and the key dead at birth.
        expires = datetime.now(UTC) + timedelta(seconds=seconds)
        body: dict[str, Any] = {
            "reusable": False,
            "ephemeral": False,
            "expiration": expires.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "aclTags": list(tags),
        }
        if user is not None:
            body["user"] = user
        minted = (await self._call("POST", "/preauthkey", body=body))["preAuthKey"]
        return AuthKey(id=str(minted["id"]), secret=minted["key"], expires=expires)

    async def keys(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await self._call("GET", "/preauthkey")).get("preAuthKeys", [])
        return listed

    async def delete_key(self, key_id: str) -> None:
        await self._call("DELETE", "/preauthkey", query={"id": key_id}, gone={})

    async def nodes(self) -> list[Node]:
        return [_node(node) for node in (await self._call("GET", "/node")).get("nodes", [])]

    async def node(self, node_id: str) -> Node | None:
        found = await self._call("GET", f"/node/{node_id}", gone={})
        return _node(found["node"]) if found else None

    async def delete_node(self, node_id: str) -> None:
        await self._call("DELETE", f"/node/{node_id}", gone={})

    async def policy(self) -> str:
        found = await self._call("GET", "/policy", gone={"policy": ""})
        return str(found["policy"])

    async def set_policy(self, policy: str) -> None:
        await self._call("PUT", "/policy", body={"policy": policy})


def usable(key: Mapping[str, Any], now: datetime) -> bool:
    """Whether a listed key could still enrol a node."""
    return not key.get("used") and datetime.fromisoformat(key["expiration"].replace("Z", "+00:00")) > now


def _node(node: Mapping[str, Any]) -> Node:
    tags = tuple(node.get("tags") or node.get("forcedTags") or ())
    user = (node.get("user") or {}).get("name")
    expiry = node.get("expiry")
    expired = False
    if expiry and not expiry.startswith("0001"):
        expired = datetime.fromisoformat(expiry.replace("Z", "+00:00")) < datetime.now(UTC)
    return Node(
        id=str(node["id"]),
        name=node.get("givenName") or node["name"],
        ips=tuple(node.get("ipAddresses") or ()),
        online=bool(node.get("online")),
        tags=tags,
        user=None if tags else user,
        expired=expired,
    )


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"
