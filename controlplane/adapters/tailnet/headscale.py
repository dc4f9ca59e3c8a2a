"""A person's own headscale. Nothing in it is changed but keys and the nodes of workspaces."""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio

from controlplane.adapters.tailnet.credential import HEADSCALE, Credential, read_credential
from controlplane.adapters.tailnet.headscale_api import HeadscaleApi, Refused, login_of
from controlplane.adapters.tailnet.placement import as_address, is_private
from controlplane.errors import CredentialRefused, NotReady, TailnetError, TailnetUnavailable
from controlplane.ports import GATEWAY_TAG, WORKSPACE_TAG, AuthKey, Node, TailnetInfo

T = TypeVar("T")

WANTED = "an API key of headscale (hskey-api-…, from `headscale apikeys create`)"

ATTEMPTS = 3
SOON = timedelta(days=7)
CHECK_SECONDS = 300.0
"""A key that was good is looked at again after this; one that was not, with each look."""


class HeadscaleTailnet:
    """``file`` is what ``tailnet.credentialFile`` says, a path from ``folder``, and is read again with each look.

    ``owners`` are log-in names; the first that is a user of this headscale gets the keys for devices.
    """

    provider = "headscale"
    joins = True
    manages = True

    def __init__(self, url: str, file: str, folder: Path, *, owners: Sequence[str], pause: float = 0.5) -> None:
        self._url = url.rstrip("/")
        self._file = file
        self._folder = folder
        self._owners = owners
        self._api = HeadscaleApi(self._url, attempts=ATTEMPTS, pause=pause)
        self._credential: Credential | None = None
        self._expires: datetime | None = None
        self._good_until = 0.0
        self._error: str | None = "The coordinator has not been asked yet."
        self._ensuring = anyio.Lock()

    @property
    def identity(self) -> str:
        return f"headscale {self._url}"

    @property
    def control_url(self) -> str | None:
        return self._url

    async def ensure(self) -> None:
        """Look whether it answers, and takes our key."""
        async with self._ensuring:
            try:
                credential = self._read()
                if credential != self._credential:
                    self._credential, self._expires, self._good_until = credential, None, 0.0
                    self._api.key = credential.secret
                if self._error is not None or time.monotonic() >= self._good_until:
                    self._expires = await self._translated(lambda api: api.key_expiry())
                    self._good_until = time.monotonic() + CHECK_SECONDS
            except TailnetError as exc:
                self._error = exc.message
                raise
            self._error = None

    def _read(self) -> Credential:
        if not self._url:
            raise CredentialRefused(
                "tailnet.provider is headscale, and nothing says where it is; "
                "`perry config set tailnet.url https://headscale.example.com` does."
            )
        return read_credential(self._file, self._folder, HEADSCALE, wanted=WANTED)

    async def _translated(self, ask: Callable[[HeadscaleApi], Awaitable[T]]) -> T:
        try:
            return await ask(self._api)
        except Refused as exc:
            raise CredentialRefused(
                f"Your headscale at {self._url} does not accept the {self._credential}: it is wrong, or has expired; "
                "make a new one with `headscale apikeys create` and put it into that file."
            ) from exc

    async def _asked(self, ask: Callable[[HeadscaleApi], Awaitable[T]]) -> T:
        if self._credential is None:
            await self.ensure()
        try:
            return await self._translated(ask)
        except (TailnetUnavailable, CredentialRefused) as exc:
            self._error = exc.message
            raise

    async def close(self) -> None:
        await self._api.close()

    async def remove(self) -> None:
        """Nothing of it is on this machine."""

    async def info(self) -> TailnetInfo:
        return TailnetInfo(
            provider=self.provider,
            ready=self._error is None,
            control_url=self._url or None,
            domain=None,
            owners=(),
            error=self._error,
            warning=self._warning(),
            credential=str(self._credential) if self._credential is not None else None,
            credential_expires=self._expires,
        )

    def _warning(self) -> str | None:
        if self._expires is not None and self._expires - datetime.now(UTC) < SOON:
            return (
                f"The {self._credential} expires at {self._expires:%Y-%m-%d %H:%M} UTC; make a new one with "
                "`headscale apikeys create` and put it into that file."
            )
        parts = urlsplit(self._url)
        if parts.scheme == "http" and not _is_near(parts.hostname or ""):
            return f"{self._url} is plain http, so whoever is on the way reads the API key; give it https."
        return None

    async def mint_workspace_key(self, *, seconds: int = 600) -> AuthKey:
        return await self._asked(lambda api: api.mint_key(user=None, tags=[WORKSPACE_TAG], seconds=seconds))

    async def mint_gateway_key(self, *, seconds: int = 600) -> AuthKey:
        return await self._asked(lambda api: api.mint_key(user=None, tags=[GATEWAY_TAG], seconds=seconds))

    async def mint_device_key(self, *, seconds: int = 3600) -> AuthKey:
        user = await self._owner()
        return await self._asked(lambda api: api.mint_key(user=user, tags=[], seconds=seconds))

    async def _owner(self) -> str:
        users: list[dict[str, Any]] = await self._asked(lambda api: api.users())
        for owner in self._owners:
            for user in users:
                if login_of(user) == owner:
                    return str(user["id"])
        raise NotReady(
            "None of auth.owners is a user of your headscale, so nobody is there to own a device; "
            "`perry config set auth.owners NAME`."
        )

    async def revoke_key(self, key_id: str) -> None:
        await self._asked(lambda api: api.delete_key(key_id))

    async def unused_keys(self) -> list[str] | None:
        """Keys bear no name, and another Perry may use the same headscale. What is left over expires in minutes."""
        return None

    async def users(self) -> list[str] | None:
        return [login_of(user) for user in await self._asked(lambda api: api.users())]

    async def nodes(self) -> list[Node]:
        return await self._asked(lambda api: api.nodes())

    async def node(self, node_id: str) -> Node | None:
        return await self._asked(lambda api: api.node(node_id))

    async def delete_node(self, node_id: str) -> None:
        await self._asked(lambda api: api.delete_node(node_id))


def _is_near(host: str) -> bool:
    address = as_address(host)
    return host == "localhost" or is_private(host) or (address is not None and address.is_loopback)
