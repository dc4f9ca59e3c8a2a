"""headscale's REST API, v0.29: keys, nodes, policy. Errors in our words.

Its answers are of gRPC's JSON mapping: camelCase, ids as decimal strings, times as RFC 3339. What a missing object is
answered with varies (404, or 500 with "not found"), so both mean that it is gone already.
"""

import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import httpx

from controlplane.errors import TailnetError, TailnetUnavailable
from controlplane.ports import AuthKey, Node

TIMEOUT = httpx.Timeout(10, connect=3)

API_KEY_PREFIX = 12
"""So many characters of a key are its name, and no secret."""

CLIENT_VERSION = "113"
"""Any version of the protocol that it knows; this is Tailscale 1.80's, its oldest."""


TRY_AGAIN = frozenset({429, 502, 503, 504})
"""What a proxy in front of it says in passing. Its own 500 is for good."""

LONGEST_PAUSE = 5.0


class Refused(TailnetError):
    """The API key is wrong or has expired; for the adapter, which knows what to do."""


class HeadscaleApi:
    """One headscale. ``url`` and ``key`` may change at any time; calls under way end with those they began with.

    What may pass is asked ``attempts`` times, with pauses that begin at ``pause`` seconds. TLS trusts what this machine
    does.
    """

    def __init__(
        self,
        url: str = "",
        key: str = "",
        *,
        attempts: int = 1,
        pause: float = 0.5,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        self.key = key
        self._attempts = attempts
        self._pause = pause
        self._client = httpx.AsyncClient(
            timeout=TIMEOUT, trust_env=False, transport=transport, verify=ssl.create_default_context()
        )

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
        if answer.status_code in TRY_AGAIN:
            raise TailnetUnavailable(
                f"The tailnet's coordinator at {self.url} is not well ({_said(answer)}); "
                "`perry tailnet status` shows how it stands."
            )
        if answer.is_redirect:
            raise TailnetError(
                f"What answers at {self.url} sends us to {answer.headers.get('location', 'elsewhere')}; "
                "set tailnet.url to the address of headscale itself."
            )
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
        attempt = 1
        while True:
            answer = await self._attempt(method, url, body, query, headers, last=attempt >= self._attempts)
            if answer is not None and (answer.status_code not in TRY_AGAIN or attempt >= self._attempts):
                return answer
            await anyio.sleep(_pause(answer, self._pause * 2 ** (attempt - 1)))
            attempt += 1

    async def _attempt(
        self,
        method: str,
        url: str,
        body: Any,
        query: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        *,
        last: bool,
    ) -> httpx.Response | None:
        """None where nobody answered, and another attempt is to come."""
        try:
            return await self._client.request(method, url, json=body, params=query, headers=headers)
        except httpx.HTTPError as exc:
            if (reason := _untrusted(exc)) is not None:
                raise TailnetUnavailable(
                    f"The certificate of {self.url} is not trusted ({reason}); have its authority among this machine's "
                    "(/usr/local/share/ca-certificates, then `sudo update-ca-certificates`)."
                ) from exc
            if not last:
                return None
            raise TailnetUnavailable(
                f"The tailnet's coordinator at {self.url} does not answer; `perry tailnet status` shows how it stands."
            ) from exc

    async def user_id(self, name: str) -> str:
        """The id of a user, who is made where missing."""
        for user in await self.users():
            if user["name"] == name:
                return str(user["id"])
        return str((await self._call("POST", "/user", body={"name": name}))["user"]["id"])

    async def users(self) -> list[dict[str, Any]]:
        """As they stand in the answer; :func:`login_of` has the name that WhoIs gives them."""
        listed: list[dict[str, Any]] = (await self._call("GET", "/user")).get("users", [])
        return listed

    async def key_expiry(self) -> datetime | None:
        """When our API key expires; None where it does not, or cannot be found."""
        prefix = self.key.removeprefix("hskey-api-")[:API_KEY_PREFIX]
        for key in (await self._call("GET", "/apikey")).get("apiKeys", []):
            # It shows as hskey-api-PREFIX-***, and did as PREFIX alone.
            if prefix in str(key.get("prefix")) and key.get("expiration"):
                return _time(key["expiration"])
        return None

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
    return not key.get("used") and _time(key["expiration"]) > now


def login_of(user: Mapping[str, Any]) -> str:
    """A user's log-in name as WhoIs has it (hscontrol/types, User.Username)."""
    return str(user.get("email") or user.get("name") or user.get("providerId") or user.get("id") or "")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _node(node: Mapping[str, Any]) -> Node:
    tags = tuple(node.get("tags") or node.get("forcedTags") or ())
    expiry = node.get("expiry")
    expired = False
    if expiry and not expiry.startswith("0001"):
        expired = _time(expiry) < datetime.now(UTC)
    return Node(
        id=str(node["id"]),
        name=node.get("givenName") or node["name"],
        ips=tuple(node.get("ipAddresses") or ()),
        online=bool(node.get("online")),
        tags=tags,
        user=None if tags else login_of(node.get("user") or {}) or None,
        expired=expired,
    )


def _pause(answer: httpx.Response | None, otherwise: float) -> float:
    try:
        return min(float(answer.headers["retry-after"]), LONGEST_PAUSE) if answer is not None else otherwise
    except (KeyError, ValueError):
        return otherwise


def _untrusted(error: BaseException) -> str | None:
    """Why a certificate is not trusted, where that is what went wrong."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause.verify_message
        cause = cause.__cause__ or cause.__context__
    return None


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"
