"""The embedded tailnet: a headscale in a container of ours, for machines where no tailnet is configured."""

import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import anyio

from controlplane.adapters.tailnet.coordinator import Coordinator
from controlplane.adapters.tailnet.headscale_api import HeadscaleApi, Refused, usable
from controlplane.adapters.tailnet.headscale_config import USER, policy
from controlplane.adapters.tailnet.placement import is_private
from controlplane.errors import EngineError, TailnetError, TailnetUnavailable
from controlplane.ports import GATEWAY_TAG, WORKSPACE_TAG, AuthKey, Engine, Machine, Node, TailnetInfo

log = logging.getLogger(__name__)

T = TypeVar("T")

START_SECONDS = 20.0
ANSWER_SECONDS = 5.0
"""How long one that runs already may keep us waiting: Docker may be restarting it."""


class EmbeddedTailnet:
    """``folder`` is for what belongs to it: headscale's API key (0600), and by what the server was known.

    ``wake_ports`` are those of the owner's devices that the gateway may connect to.
    """

    provider = "embedded"
    identity = "embedded"
    joins = True
    manages = True

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        *,
        instance: str,
        image: str,
        address: str,
        port: int,
        domain: str,
        folder: Path,
        wake_ports: Sequence[int] = (),
    ) -> None:
        self._coordinator = Coordinator(
            engine, machine, instance=instance, image=image, address=address, port=port, domain=domain
        )
        self._domain = domain
        self._wake_ports = wake_ports
        self._key_file = folder / "api-key"
        self._server_file = folder / "server-key"
        self._anew_file = folder / "made-anew"
        self._api = HeadscaleApi()
        self._user = ""
        self._prepared_for: str | None = None
        """The key of the server that has our user and policy, and that takes our API key."""
        self._error: str | None = "The coordinator has not been started yet."
        self._ensuring = anyio.Lock()

    @property
    def control_url(self) -> str | None:
        """What workspaces are told. Devices elsewhere are told another: :meth:`info`."""
        return self._coordinator.url(self._coordinator.placement.workspaces)

    async def ensure(self) -> None:
        """TailnetUnavailable says what is in the way. One that is as it should be is asked a single cheap thing."""
        async with self._ensuring:
            try:
                started = await self._coordinator.run()
                self._api.url = self._coordinator.url(self._coordinator.placement.listen)
                server = await self._answered(START_SECONDS if started else ANSWER_SECONDS)
                if server != self._prepared_for:
                    await self._prepare(server)
            except EngineError as exc:
                self._error = exc.message
                raise TailnetUnavailable(exc.message) from exc
            except TailnetError as exc:
                self._error = exc.message
                raise
            self._error = None

    async def _answered(self, patience: float) -> str:
        """The server's key, as soon as it says it."""
        end = time.monotonic() + patience
        while True:
            try:
                return await self._api.server_key()
            except TailnetUnavailable:
                name = self._coordinator.name
                if (reason := await self._coordinator.why_silent()) is not None:
                    raise TailnetUnavailable(reason) from None
                if time.monotonic() > end:
                    raise TailnetUnavailable(
                        f"The coordinator did not answer within {patience:.0f} s; `docker logs {name}` has its reasons."
                    ) from None
            await anyio.sleep(0.05)

    async def _prepare(self, server: str) -> None:
        """Have an API key that works, the owner's user, and the policy."""
        kept = _read(self._key_file)
        self._api.key = kept or await self._new_key()
        try:
            self._user = await self._api.user_id(USER)
        except Refused:
            self._api.key = await self._new_key()
            self._user = await self._api.user_id(USER)
        wanted = policy(self._wake_ports)
        if await self._api.policy() != wanted:
            await self._api.set_policy(wanted)
        known = _read(self._server_file)
        if known is not None and known != server:
            log.warning("the coordinator's volume was made anew: every device has to join again")
            _write(self._anew_file, datetime.now(UTC).isoformat(timespec="seconds"))
        if known != server:
            _write(self._server_file, server)
        self._prepared_for = server

    async def _new_key(self) -> str:
        key = await self._coordinator.new_key()
        _write(self._key_file, key)
        return key

    async def _asked(self, ask: Callable[[HeadscaleApi], Awaitable[T]]) -> T:
        """Ask, with a coordinator that is there and a key that works, where that can be had."""
        if self._prepared_for is None:
            await self.ensure()
        used = self._api.key
        try:
            try:
                answer = await ask(self._api)
            except Refused:
                await self._renew(used)
                answer = await ask(self._api)
        except TailnetUnavailable as exc:
            self._error = exc.message
            raise
        self._error = None
        return answer

    async def _renew(self, refused: str) -> None:
        async with self._ensuring:
            if self._api.key != refused:
                return
            log.info("the coordinator refuses the API key; a new one is made")
            try:
                # The key on disk is tried first; the database may be another by now.
                await self._prepare(await self._answered(ANSWER_SECONDS))
            except EngineError as exc:
                raise TailnetUnavailable(exc.message) from exc

    async def close(self) -> None:
        await self._api.close()

    async def remove(self) -> None:
        self._prepared_for = None
        try:
            await self._coordinator.remove()
        except EngineError as exc:
            raise TailnetUnavailable(exc.message) from exc
        for file in (self._key_file, self._server_file, self._anew_file):
            file.unlink(missing_ok=True)

    async def info(self) -> TailnetInfo:
        return TailnetInfo(
            provider=self.provider,
            ready=self._error is None,
            control_url=self._coordinator.url(self._coordinator.placement.devices),
            domain=self._domain,
            owners=(USER,),
            error=self._error,
            warning=self._warning(),
            join_notes=join_notes(self._coordinator.placement.devices),
        )

    def _warning(self) -> str | None:
        if (since := _read(self._anew_file)) is None:
            return None
        return (
            f"The coordinator's volume was made anew at {since}: workspaces join again by themselves, "
            "your other devices with `perry tailnet join`."
        )

    async def mint_workspace_key(self, *, seconds: int = 600) -> AuthKey:
        return await self._asked(lambda api: api.mint_key(user=None, tags=[WORKSPACE_TAG], seconds=seconds))

    async def mint_gateway_key(self, *, seconds: int = 600) -> AuthKey:
        return await self._asked(lambda api: api.mint_key(user=None, tags=[GATEWAY_TAG], seconds=seconds))

    async def mint_device_key(self, *, seconds: int = 3600) -> AuthKey:
        return await self._asked(lambda api: api.mint_key(user=self._user, tags=[], seconds=seconds))

    async def users(self) -> list[str] | None:
        return [USER]

    async def revoke_key(self, key_id: str) -> None:
        await self._asked(lambda api: api.delete_key(key_id))

    async def unused_keys(self) -> list[str] | None:
        keys = await self._asked(lambda api: api.keys())
        now = datetime.now(UTC)
        return [str(key["id"]) for key in keys if WORKSPACE_TAG in (key.get("aclTags") or ()) and usable(key, now)]

    async def nodes(self) -> list[Node]:
        nodes = await self._asked(lambda api: api.nodes())
        if any(node.user == USER for node in nodes):
            # Somebody has joined again, and so has noticed.
            self._anew_file.unlink(missing_ok=True)
        return nodes

    async def node(self, node_id: str) -> Node | None:
        return await self._asked(lambda api: api.node(node_id))

    async def delete_node(self, node_id: str) -> None:
        await self._asked(lambda api: api.delete_node(node_id))


def join_notes(host: str) -> tuple[str, ...]:
    """What plain http means for devices other than Linux ones with a private way here."""
    relay = (
        "The relay of this tailnet speaks plain http: on macOS that takes the open-source tailscaled, with this "
        "variable set; Tailscale's apps for macOS, Windows and phones cannot be given it, and may reach nothing."
    )
    if is_private(host):
        return (relay,)
    away = (
        f"{host} is no address of a private network: when the coordinator was away, the device may stay offline until "
        "its tailscaled is restarted; set tailnet.address to a private one if devices reach this machine by one."
    )
    return (relay, away)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None


def _write(file: Path, text: str) -> None:
    """Whole or not at all, for its owner alone."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = file.with_suffix(".new")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as opened:
        opened.write(text + "\n")
    partial.replace(file)
