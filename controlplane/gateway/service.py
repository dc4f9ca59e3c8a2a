"""Keeps the gateway where it should be: its container running, its node on the tailnet."""

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final

import anyio

from controlplane.errors import ContainerStuck, EngineError, ImageMissing, NotReady, PerryError, TailnetError
from controlplane.gateway import spec
from controlplane.gateway.spec import GatewaySettings, is_gateway
from controlplane.gateway.store import Place, Store
from controlplane.ports import ContainerState, Engine, File, Tailnet
from controlplane.workspaces.sidecars import Sidecars, SidecarStatus
from controlplane.workspaces.spec import free_subnet
from protocol.tailnet import GatewayStatus

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 2.0
"""After news of the container: a Docker that is being stopped is left alone."""
FIRST_RETRY_SECONDS: Final = 5.0
LAST_RETRY_SECONDS: Final = 300.0
ME: Final = "gateway"


class Gateway:
    """One for each control plane; where there is no tailnet it takes away what an earlier setting left.

    ``reserved`` are subnets that Docker does not know of at the moment; ``owners`` those of the settings;
    ``strangers`` gives sentences about owners who are nobody on the tailnet.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        tailnet: Tailnet,
        store: Store,
        settings: GatewaySettings,
        owners: Collection[str],
        reserved: Callable[[], Iterable[str]],
        strangers: Callable[[], Awaitable[Collection[str]]],
    ) -> None:
        self._engine = engine
        self._tailnet = tailnet
        self._store = store
        self._settings = settings
        self._configured_owners = tuple(owners)
        self._owners: tuple[str, ...] = tuple(owners)
        self._reserved = reserved
        self._strangers = strangers
        self._wake = anyio.Event()
        self._followed = Sidecars(engine, lambda _: self._wake.set())
        self._error: str | None = "It has not been started yet."
        self._complaints: dict[str, str] = {}
        self._retry = (0, 0.0)
        self._looking = anyio.Lock(fast_acquire=True)
        self._left = False

    # --- what others ask

    def owners(self) -> Collection[str]:
        """Log-in names that may do everything: those of the settings, else the tailnet's own."""
        return self._owners

    def names(self) -> Collection[str]:
        """What this control plane is called on the tailnet now: names and addresses."""
        status = self._status()
        if status is None or not status.dns_name:
            return (spec.HOSTNAME,)
        full = status.dns_name.rstrip(".")
        # With a name that was taken we are perry-1; under `perry` requests come that mean another.
        return (full, full.partition(".")[0], *status.ips)

    def shown(self) -> GatewayStatus | None:
        """How it stands, for people; None where there is no tailnet."""
        if not self._tailnet.joins:
            return None
        status = self._status()
        name = self._name()
        online = status is not None and status.state == "running" and status.online
        error = self._error
        if error is None and status is not None and not online:
            error = status.error or "It is joining the tailnet."
        error = error or self._name_taken() or (status.door if status else None) or None
        return GatewayStatus(name=name, online=online, ips=list(status.ips) if status else [], error=error)

    def _name(self) -> str:
        status = self._status()
        return status.dns_name.partition(".")[0] if status is not None and status.dns_name else spec.HOSTNAME

    def _name_taken(self) -> str | None:
        if (name := self._name()) == spec.HOSTNAME:
            return None
        mine = self._settings.name
        return (
            f"Another device of your tailnet is named {spec.HOSTNAME!r}, so the agent became {name!r} there; call "
            f"`perry config worker {name}` on your devices, or rename that device and have the gateway join anew: "
            f"`docker rm -f {mine} && docker volume rm {mine}`."
        )

    # --- what it does

    async def learn_owners(self) -> None:
        """Ask the tailnet whose it is, where the settings do not say."""
        if self._configured_owners or not self._tailnet.joins:
            return
        with contextlib.suppress(TailnetError):
            self._owners = (await self._tailnet.info()).owners

    async def run(self, ready: anyio.Event) -> None:
        """Until cancelled; begins when ``ready`` is set. Reports trouble and goes on."""
        await ready.wait()
        async with anyio.create_task_group() as tasks:
            self._followed.run_in(tasks)
            while True:
                self._wake = anyio.Event()
                try:
                    await self.once()
                except Exception:
                    log.exception("a look at the gateway crashed")
                with anyio.move_on_after(EVERY_SECONDS):
                    await self._wake.wait()
                    if self._status() is None:
                        await anyio.sleep(SETTLE_SECONDS)

    def run_in(self, tasks: "TaskGroup") -> None:
        """For callers that call :meth:`once` themselves."""
        self._followed.run_in(tasks)

    async def once(self) -> None:
        """One look."""
        async with self._looking:
            if not self._left:
                await self._look()

    async def leave(self) -> None:
        """Take it off the tailnet, with all that it has here, until the control plane starts again.

        NotReady where its node has to be removed by hand.
        """
        if not self._tailnet.joins:
            raise NotReady("There is no tailnet that the agent could leave.")
        async with self._looking:
            self._left = True
            place = self._store.place()
            status = self._status()
            node = place.node_id or (status.node_id if status is not None else None)
            self._followed.forget(ME)
            await self._remove()
            if place.key_id is not None:
                await self._tailnet.revoke_key(place.key_id)
            if node and not self._tailnet.manages:
                raise NotReady(
                    f"The agent has left, but {self._tailnet.provider} does not let its credential remove devices; "
                    f"remove {spec.HOSTNAME!r} there by hand."
                )
            if node and is_gateway(await self._tailnet.node(node)):
                await self._tailnet.delete_node(node)
            self._store.set(Place())
            self._error = "It has left the tailnet, as it was asked to; it joins again when the agent starts anew."
            log.info("the gateway has left the tailnet")

    async def _look(self) -> None:
        try:
            await self.learn_owners()
            if self._tailnet.joins:
                await self._ensure()
                for sentence in (*await self._strangers(), self._name_taken()):
                    if sentence is not None:
                        self._complain(sentence, sentence)
            else:
                await self._remove()
        except PerryError as exc:
            self._error = exc.message
            self._complain("gateway", f"the gateway is not as it should be: {exc.message}")
        else:
            self._error = None
            self._complaints.pop("gateway", None)

    async def _ensure(self) -> None:
        settings = self._settings
        if await self._engine.image_id(settings.image) is None:
            raise ImageMissing(f"The image {settings.image} is not on this machine; `perry agent build` builds it.")
        await self._ensure_network()
        await self._engine.ensure_volume(settings.name, settings.labels)
        await self._engine.ensure_container(
            spec.container(settings, self._tailnet.identity, self._tailnet.control_url or "")
        )
        present = await self._present()
        if not present.running:
            if self._store.place() == Place():
                await self._give_key()
            try:
                await self._engine.start(settings.name)
            except ContainerStuck:
                # Its place is on its volume; the next look makes it anew.
                await self._engine.remove_container(settings.name)
                raise
            present = await self._present()
        self._followed.follow(ME, present.id, started=str(present.started))
        await self._keep_place()

    async def _ensure_network(self) -> None:
        name = self._settings.name
        if any(network.name == name for network in await self._engine.networks(self._settings.labels)):
            return
        taken = [*await self._engine.subnets_in_use(), *self._reserved()]
        await self._engine.ensure_network(spec.network(self._settings, free_subnet(self._settings.pool, taken)))

    async def _present(self) -> ContainerState:
        present = await self._engine.inspect(self._settings.name)
        if present is None:
            raise EngineError(f"The container {self._settings.name} is gone while it was being started.")
        return present

    # --- its node

    async def _keep_place(self) -> None:
        """Record where it is; bring it back where it lost its place."""
        status = self._status()
        if status is None:
            return
        place = self._store.place()
        if status.state == "running" and status.node_id:
            if place != (here := Place(node_id=status.node_id)):
                self._store.set(here)
                log.info("the gateway is on the tailnet as %s", status.dns_name)
            if self._tailnet.manages and not is_gateway(await self._tailnet.node(status.node_id)):
                await self._rejoin("its node is gone from the tailnet")
            else:
                self._retry = (0, 0.0)
        elif status.state in ("needs-key", "failed"):
            await self._rejoin(status.error or "it lost its place on the tailnet")

    async def _rejoin(self, why: str) -> None:
        tried, at = self._retry
        if time.monotonic() < at:
            return
        pause = min(FIRST_RETRY_SECONDS * 2**tried, LAST_RETRY_SECONDS)
        self._retry = (tried + 1, time.monotonic() + pause)
        log.warning("the gateway joins the tailnet anew: %s", why)
        old = self._store.place().node_id
        if old is not None and self._tailnet.manages and is_gateway(await self._tailnet.node(old)):
            # Else its name would be taken, by a node that never comes back.
            await self._tailnet.delete_node(old)
        await self._give_key()
        await self._engine.signal(self._settings.name, "SIGHUP")

    async def _give_key(self) -> None:
        """A new key in its volume. The one before is revoked, if it may be unused."""
        if (before := self._store.place().key_id) is not None:
            with contextlib.suppress(TailnetError):
                await self._tailnet.revoke_key(before)
        key = await self._tailnet.mint_gateway_key()
        self._store.set(Place(key_id=key.id))
        await self._engine.put_files(
            self._settings.name, [File(path=spec.AUTH_KEY_FILE, content=key.secret.encode(), mode=0o600)]
        )

    # --- the rest

    async def _remove(self) -> None:
        """All of it, where an earlier setting had a tailnet."""
        await self._engine.remove_container(self._settings.name)
        await self._engine.remove_network(self._settings.name)
        await self._engine.remove_volume(self._settings.name)

    def _status(self) -> SidecarStatus | None:
        return self._followed.status(ME)

    def _complain(self, about: str, sentence: str) -> None:
        """Once, until it changes."""
        if self._complaints.get(about) != sentence:
            self._complaints[about] = sentence
            log.warning("%s", sentence)
