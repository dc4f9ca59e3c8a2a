"""A person's own tailnet on Tailscale's service."""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import anyio
from tailscale import Device, TailscaleNotFoundError

from controlplane.adapters.tailnet.credential import TAILSCALE, Credential, Kind, read_credential
from controlplane.adapters.tailnet.tailscale_api import API, KEYS_PAGE, MACHINES_PAGE, TailscaleApi
from controlplane.errors import CredentialRefused, NotReady, TailnetError
from controlplane.ports import GATEWAY_TAG, WORKSPACE_TAG, AuthKey, Node, TailnetInfo

T = TypeVar("T")

WANTED = "an OAuth client's secret (tskey-client-…), an API access token (tskey-api-…) or an auth key (tskey-auth-…)"

CHECK_SECONDS = 300.0
"""A credential that was good is looked at again after this."""

LIST_SECONDS = 5.0
"""For so long a list of devices answers questions about single ones: a look at all workspaces is one request."""

PEOPLE_SECONDS = 300.0
"""For so long people are remembered: somebody asks every half a minute whether the owners are among them."""

TRIAL_SECONDS = 300

SOON = timedelta(days=7)

SHARED_KEY = "shared"
"""The id of an auth key that is itself the credential. It is the user's, and never revoked by us."""


class TailscaleTailnet:
    """``file`` is what ``tailnet.credentialFile`` says, a path from ``folder``.

    It is read again with each look, so that a new credential takes effect by itself. ``api`` and ``pause`` are for
    tests.
    """

    provider = "tailscale"
    identity = "tailscale"
    joins = True
    control_url: str | None = None

    def __init__(self, file: str, folder: Path, *, api: str = API, pause: float = 0.5) -> None:
        self._file = file
        self._folder = folder
        self._url = api
        self._pause = pause
        self._credential: Credential | None = None
        self._api: TailscaleApi | None = None
        self._expires: datetime | None = None
        self._domain: str | None = None
        self._good_until = 0.0
        self._listed: tuple[float, dict[str, Node]] = (0.0, {})
        self._people: tuple[float, list[str] | None] = (0.0, None)
        self._error: str | None = "Tailscale has not been asked yet."
        self._ensuring = anyio.Lock()

    @property
    def manages(self) -> bool:
        return self._credential is None or self._credential.kind is not Kind.AUTH_KEY

    async def ensure(self) -> None:
        """Look whether the credential is there and may do what it has to. One that was good is believed for a while."""
        async with self._ensuring:
            try:
                credential = read_credential(self._file, self._folder, TAILSCALE, wanted=WANTED)
                if credential != self._credential:
                    await self._use(credential)
                if time.monotonic() >= self._good_until:
                    await self._check()
            except TailnetError as exc:
                self._good_until = 0.0
                self._error = exc.message
                raise
            self._error = None

    async def _use(self, credential: Credential) -> None:
        await self.close()
        self._credential, self._expires, self._good_until = credential, None, 0.0
        self._people = (0.0, None)
        if credential.kind is not Kind.AUTH_KEY:
            self._api = TailscaleApi(credential, self._url, pause=self._pause)

    async def _check(self) -> None:
        if (api := self._api) is not None:
            if self._error is not None:
                # What it lacks would show only when somebody starts a workspace otherwise.
                for tag in (WORKSPACE_TAG, GATEWAY_TAG):
                    trial = await self._mint(api, tag, TRIAL_SECONDS)
                    await self._revoke(api, trial.id)
            await self._list(api)
            self._expires = await self._expiry(api)
        self._good_until = time.monotonic() + CHECK_SECONDS

    async def _expiry(self, api: TailscaleApi) -> datetime | None:
        """None for what does not expire, and where it may not look itself up."""
        try:
            async with api.asking("look at itself", scope="auth_keys:read"):
                return (await api.client.key(api.credential.id)).expires
        except (TailnetError, TailscaleNotFoundError):
            return None

    async def _asked(self, ask: Callable[[TailscaleApi], Awaitable[T]], *, without: str) -> T:
        """Ask with a credential that was looked at. ``without`` is the sentence for an auth key, which cannot ask."""
        if self._credential is None:
            await self.ensure()
        if (api := self._api) is None:
            raise TailnetError(without)
        try:
            try:
                return await ask(api)
            except CredentialRefused as exc:
                if not api.was_token_refused(exc):
                    raise
                return await ask(api)
        except TailnetError as exc:
            self._good_until, self._error = 0.0, exc.message
            raise

    async def close(self) -> None:
        if self._api is not None:
            await self._api.close()
            self._api = None
            self._credential = None

    async def remove(self) -> None:
        """Nothing of it is on this machine."""

    async def info(self) -> TailnetInfo:
        return TailnetInfo(
            provider=self.provider,
            ready=self._error is None,
            control_url=None,
            domain=self._domain,
            owners=(),
            error=self._error,
            warning=self._warning(),
            credential=str(self._credential) if self._credential is not None else None,
            credential_expires=self._expires,
        )

    def _warning(self) -> str | None:
        if not self.manages:
            return (
                "With an auth key every workspace gets that same key, and Perry cannot look at your devices, nor "
                f"remove those of deleted workspaces: do that at {MACHINES_PAGE}, or use an OAuth client."
            )
        if self._expires is not None and self._expires - datetime.now(UTC) < SOON:
            return (
                f"The {self._credential} expires at {self._expires:%Y-%m-%d %H:%M} UTC; make a new one at {KEYS_PAGE}, "
                "or an OAuth client, which does not expire."
            )
        return None

    # --- keys

    async def mint_workspace_key(self, *, seconds: int = 600) -> AuthKey:
        return await self._key_for(WORKSPACE_TAG, seconds)

    async def mint_gateway_key(self, *, seconds: int = 600) -> AuthKey:
        if not self.manages:
            raise NotReady(
                "An auth key is for workspaces, which all get it, and cannot make one for the gateway; "
                "an OAuth client can."
            )
        return await self._key_for(GATEWAY_TAG, seconds)

    async def _key_for(self, tag: str, seconds: int) -> AuthKey:
        if self._credential is None:
            await self.ensure()
        if self._credential is not None and not self.manages:
            return AuthKey(id=SHARED_KEY, secret=self._credential.secret, expires=None)
        return await self._asked(lambda api: self._mint(api, tag, seconds), without="")

    async def _mint(self, api: TailscaleApi, tag: str, seconds: int) -> AuthKey:
        async with api.asking("make keys for workspaces", scope="auth_keys"):
            made = await api.client.create_key(
                description="perry", expiry_seconds=seconds, preauthorized=True, tags=[tag]
            )
        return AuthKey(id=made.key_id, secret=made.key, expires=made.expires)

    async def mint_device_key(self, *, seconds: int = 3600) -> AuthKey:
        raise NotReady(
            "On Tailscale a device joins with the log-in of whom it belongs to: run `sudo tailscale up` on it."
        )

    async def revoke_key(self, key_id: str) -> None:
        if key_id == SHARED_KEY:
            return
        await self._asked(lambda api: self._revoke(api, key_id), without="An auth key cannot revoke others.")

    async def _revoke(self, api: TailscaleApi, key_id: str) -> None:
        try:
            async with api.asking("revoke keys", scope="auth_keys"):
                await api.client.delete_key(key_id)
        except TailscaleNotFoundError:
            pass

    async def unused_keys(self) -> list[str] | None:
        return None

    # --- devices and people

    async def nodes(self) -> list[Node]:
        if self._credential is None:
            await self.ensure()
        if not self.manages:
            return []
        return list((await self._asked(self._list, without="")).values())

    async def node(self, node_id: str) -> Node | None:
        return await self._asked(lambda api: self._node(api, node_id), without="An auth key cannot look at devices.")

    async def delete_node(self, node_id: str) -> None:
        await self._asked(lambda api: self._delete(api, node_id), without="An auth key cannot delete devices.")

    async def users(self) -> list[str] | None:
        """None also where the credential lacks ``users:read``, which it does not need for anything else."""
        if self._credential is None:
            await self.ensure()
        if (api := self._api) is None:
            return None
        until, people = self._people
        if time.monotonic() >= until:
            try:
                async with api.asking("list users", scope="users:read"):
                    people = [user.login_name for user in await api.client.users()]
            except (CredentialRefused, TailscaleNotFoundError):
                people = None
            self._people = (time.monotonic() + PEOPLE_SECONDS, people)
        return people

    async def _list(self, api: TailscaleApi) -> dict[str, Node]:
        try:
            async with api.asking("look at devices", scope="devices:core"):
                devices = [each for each in (await api.client.devices()).values() if not each.is_external]
        except TailscaleNotFoundError as exc:
            raise TailnetError(f"Tailscale's API knows no tailnet of the {api.credential}: {exc}") from exc
        for device in devices:
            self._domain = device.name.partition(".")[2] or self._domain
        nodes = {device.node_id: _node(device) for device in devices}
        self._listed = (time.monotonic() + LIST_SECONDS, nodes)
        return nodes

    async def _node(self, api: TailscaleApi, node_id: str) -> Node | None:
        until, listed = self._listed
        if time.monotonic() >= until:
            listed = await self._list(api)
        if node_id in listed:
            return listed[node_id]
        # It may have joined since.
        try:
            async with api.asking("look at devices", scope="devices:core"):
                return _node(await api.client.device(node_id))
        except TailscaleNotFoundError:
            return None

    async def _delete(self, api: TailscaleApi, node_id: str) -> None:
        self._listed = (0.0, {})
        try:
            async with api.asking("delete devices", scope="devices:core"):
                await api.client.delete_device(node_id)
        except TailscaleNotFoundError:
            pass


def _node(device: Device) -> Node:
    tags = tuple(device.tags)
    now = datetime.now(UTC)
    online = device.connected_to_control
    if online is None:
        online = device.last_seen is not None and now - device.last_seen < timedelta(minutes=2)
    return Node(
        # By this one the device knows itself, too.
        id=device.node_id,
        name=device.name.partition(".")[0],
        ips=tuple(device.addresses),
        online=online,
        tags=tags,
        user=None if tags else device.user,
        expired=bool(not device.key_expiry_disabled and device.expires is not None and device.expires < now),
    )
