"""The use cases of wakes."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import anyio
import msgspec

from controlplane import cursors
from controlplane.auth.identity import Identity
from controlplane.db import Database
from controlplane.errors import InvalidInput, NotFound, NotReady, TooMany
from controlplane.ids import new_id
from controlplane.settings.hooks import GatewaySettings, HookSettings
from controlplane.wake.courier import Courier
from controlplane.wake.dialer import Dialer, Resolver
from controlplane.wake.forwarder import Forwarder
from controlplane.wake.message import OWN_ID, Message, bounded, clean, mode_of, read_request, words_of
from controlplane.wake.outbox import Outbox
from controlplane.wake.passage import Passage
from controlplane.wake.rate import Rate
from controlplane.wake.record import Record
from controlplane.wake.sender import Sender
from controlplane.wake.target import Target, target_of
from controlplane.wake.verdict import PATIENCE, unwell
from protocol.auth import IdentityKind
from protocol.wake import (
    TEXT_REQUIRED,
    ListWakes,
    Retried,
    RetryWakes,
    SessionTarget,
    ShownWake,
    TestWake,
    Wake,
    WakeGateway,
    WakeMode,
    WakeRef,
    Wakes,
    WakeWay,
)

log = logging.getLogger(__name__)

OPEN_LIMIT: Final = 50_000
"""Wakes that may wait."""

OPEN_OF_WORKSPACE: Final = 1_000
"""Wakes of one workspace that may wait."""

SWEEP_SECONDS: Final = 3600.0

TEST_SECONDS: Final = 30.0

PASSES_BY_ITSELF: Final = timedelta(minutes=5)
"""A gateway that is away for less is no problem of a person's: it is started anew, or has much to do."""

NO_GATEWAY: Final = (
    "No gateway is set that could be woken; name one in hooks.gateways (docs/howto/wakes.md says how), and start the "
    "agent anew."
)
UNKNOWN_GATEWAY: Final = "There is no gateway of this name in hooks.gateways."


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """How this machine reaches gateways. ``forward`` is the socket of Perry's node on the tailnet, which is asked where
    ``on_tailnet``, and ``places`` the file that tells that node where it may connect to. ``own_port`` and
    ``own_addresses`` are where this control plane itself is."""

    on_tailnet: bool
    domain: Callable[[], str | None]
    forward: Path
    places: Path
    own_port: int
    own_addresses: Callable[[], Iterable[str]]


class WakeService:
    """Takes wakes for good, has them brought to their gateways, and says what became of them."""

    def __init__(
        self,
        database: Database,
        settings: HookSettings,
        folder: Path,
        outgoing: Outgoing,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._outgoing = outgoing
        self._folder = folder
        self._now = now
        self._resolve = Resolver()
        self._passage = Passage(outgoing.forward, outgoing.places, self._places)
        self._outbox = Outbox(database, lambda record: self._forwarder.arrived(record), now)
        default = settings.target
        self._forwarder = Forwarder(
            {gateway.name: self._courier(gateway) for gateway in settings.gateways}, default.name if default else ""
        )
        self._rate = Rate(time.monotonic)

    def _courier(self, gateway: GatewaySettings) -> Courier:
        def target() -> Target:
            return target_of(gateway, on_tailnet=self._outgoing.on_tailnet, domain=self._outgoing.domain())

        def sender(target: Target) -> Sender:
            dialer = Dialer(
                target,
                own_port=self._outgoing.own_port,
                own_addresses=self._outgoing.own_addresses,
                passage=self._passage,
                resolve=self._resolve,
            )
            return Sender(target, dialer, self._now)

        file = self._folder / Path(gateway.token_file).expanduser()
        return Courier(gateway, target, file, sender, self._outbox, self._now)

    def _places(self) -> list[str]:
        """Where Perry's node on the tailnet may connect to."""
        targets = (courier.target for courier in self._forwarder.couriers.values())
        return [target.place for target in targets if target.way is WakeWay.TAILNET]

    # --- taking them

    async def wake(
        self,
        text: str,
        *,
        mode: str = WakeMode.NOW,
        session: str = SessionTarget.MAIN,
        workspace: str | None = None,
        task: str | None = None,
        id: str | None = None,
    ) -> str:
        """Wake with a text of our own. Returns the wake's id once it is on the disk; what follows is the outbox's.

        ``id`` makes it safe to ask twice: a known id is the same wake. A text that is too long is cut. InvalidInput for
        an empty text; TooMany where far too many wait. Taken also where no gateway is set, until there is one.
        """
        if not (cleaned := clean(text)):
            raise InvalidInput(TEXT_REQUIRED)
        if id is not None and not OWN_ID.fullmatch(id):
            raise InvalidInput(f"{id!r} is no id for a wake.")
        id_ = id or new_id("w")
        message = Message(
            id=id_,
            text=bounded(cleaned),
            mode=mode_of(mode),
            session=SessionTarget(session),
            workspace=workspace,
            task=task,
        )
        self._check_room(workspace=None)
        await self._outbox.add(message, self._forwarder.default)
        return message.id

    async def knock(self, body: bytes, identity: Identity, key: str | None) -> tuple[str, WakeMode]:
        """A request at the wake door: the id and the mode of its wake. ``key`` is the client's own, for asking
        again.

        InvalidInput, TooLarge; TooMany with ``{"retryAfter": seconds}``; NotReady where nobody could be woken.
        """
        text, mode = read_request(body)
        if not self._forwarder.couriers:
            raise NotReady(NO_GATEWAY)
        workspace = identity.workspace if identity.kind is IdentityKind.WORKSPACE else None
        id_ = new_id("w") if not key else _id_of(identity, key)
        self._check_room(workspace)
        if identity.kind in (IdentityKind.WORKSPACE, IdentityKind.NODE):
            wait = self._rate.wait(f"{identity.kind}:{identity.workspace or identity.node}")
            if wait > 0:
                raise TooMany(
                    f"Too many wakes at once; try again in {wait:.0f} seconds.", data={"retryAfter": int(wait) + 1}
                )
        if workspace is not None:
            text = words_of("It", text)
        elif identity.kind is IdentityKind.NODE:
            text = words_of(f"The device {clean(identity.node or '')} of the tailnet", text)
        await self._outbox.add(Message(id=id_, text=text, mode=mode, workspace=workspace), self._forwarder.default)
        return id_, mode

    async def bring(self, workspace: str, spooled: Message) -> None:
        """A wake out of a workspace's spool, whose id, text and task are the workspace's own words. Returns when it is
        on the disk; TooMany where too many of its wakes wait."""
        self._check_room(workspace)
        await self._outbox.add(spooled, self._forwarder.default)

    def _check_room(self, workspace: str | None) -> None:
        full = workspace is not None and self._outbox.open_of(workspace) >= OPEN_OF_WORKSPACE
        if full or self._outbox.open >= OPEN_LIMIT:
            raise TooMany(
                "Too many wakes wait already; `perry wakes list` says why the gateway does not take them.",
                data={"retryAfter": 60},
            )

    # --- bringing them

    async def run(self) -> None:
        """Until closed or cancelled."""
        forwarder = self._forwarder
        if self._outgoing.on_tailnet:
            try:
                self._passage.tell()
            except OSError as exc:
                log.warning("Perry's node on the tailnet is not told of the gateways (%s); it is tried again", exc)
        self._outbox.reassign(forwarder.couriers, forwarder.default)
        unsettled = self._outbox.recover()
        for record in unsettled:
            forwarder.arrived(record)
        for name, courier in forwarder.couriers.items():
            courier.resume([record for record in unsettled if record.gateway == name and record.sent is not None])
            courier.reopen_refused()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sweep_for_ever)
            await forwarder.run()
            if forwarder.couriers:
                tasks.cancel_scope.cancel()

    def close(self) -> None:
        """Begin no attempt more; the control plane ends."""
        self._forwarder.close()

    async def _sweep_for_ever(self) -> None:
        while True:
            try:
                self._outbox.give_up(f"For {PATIENCE.days} days nobody took it.")
                self._outbox.forget_old()
            except Exception:
                log.exception("old wakes could not be swept")
            await anyio.sleep(SWEEP_SECONDS)

    # --- telling of them

    def page(self, wanted: ListWakes) -> Wakes:
        """A page, the newest first."""
        before = cursors.before(wanted.cursor, "wakes.list")
        page = self._outbox.page(workspace=wanted.workspace, state=wanted.state, before=before, limit=wanted.limit + 1)
        shown, more = page[: wanted.limit], len(page) > wanted.limit
        return Wakes(
            items=[self._shown(record) for record in shown],
            gateways=self.gateways(),
            next_cursor=str(shown[-1].number) if more else None,
        )

    def gateways(self) -> list[WakeGateway]:
        """Every gateway of the settings, and how it stands."""
        return [
            WakeGateway(
                name=name,
                kind=courier.kind,
                url=courier.target.url,
                default=name == self._forwarder.default,
                waiting=courier.waiting,
                problem=courier.trouble.problem,
            )
            for name, courier in self._forwarder.couriers.items()
        ]

    def problems(self) -> list[str]:
        """What a person has to mend so that wakes arrive, each with what to do. Nothing of what may pass by itself."""
        now = self._now()
        found = []
        for name, courier in self._forwarder.couriers.items():
            problem, since = courier.trouble.problem, courier.trouble.since or now
            if problem is not None and (courier.refused or now - since >= PASSES_BY_ITSELF):
                found.append(unwell(name, problem, waiting=courier.waiting, refused=courier.refused))
        if lost := self._outbox.lost(now - PATIENCE):
            found.append(
                f"In the last {PATIENCE.days} days, {lost} of the wakes were refused or given up; `perry wakes list` "
                "says why, and `perry wakes retry --all` sends them again."
            )
        return found

    def show(self, wanted: WakeRef) -> ShownWake:
        """All of one wake."""
        record = self._must_exist(wanted.id)
        return ShownWake(wake=self._shown(record), text=record.whole_text, attempts=self._outbox.attempts(record))

    def _shown(self, record: Record) -> Wake:
        wake = record.shown()
        if record.settled is None and not record.gateway:
            return msgspec.structs.replace(wake, answer=NO_GATEWAY)
        return wake

    def retry(self, wanted: RetryWakes) -> Retried:
        """Try now what waits, and try again what was rejected or is dead: one wake, or all."""
        names, default = list(self._forwarder.couriers), self._forwarder.default
        if wanted.id is None:
            self._outbox.reopen("1", gateways=names, default=default)
            count = self._outbox.open
        else:
            record = self._must_exist(wanted.id)
            count = len(self._outbox.reopen("id = ?", (record.id,), gateways=names, default=default))
            count += record.settled is None
        self._forwarder.hurry()
        return Retried(count=count)

    async def test(self, wanted: TestWake) -> Wake:
        """Wake a gateway once, and wait for its answer. NotFound where there is no such gateway."""
        name = wanted.gateway or self._forwarder.default
        courier = self._forwarder.couriers.get(name)
        if courier is None:
            raise NotFound(UNKNOWN_GATEWAY) if wanted.gateway else NotReady(NO_GATEWAY)
        id_ = new_id("test")
        text = "This is a test of Perry's wakes. Nothing is to be done."
        settled = self._outbox.settled(id_)
        await self._outbox.add(Message(id=id_, text=text, lane=id_), name)
        courier.hurry()
        with anyio.move_on_after(TEST_SECONDS):
            await settled.wait()
        return self._must_exist(id_).shown()

    def _must_exist(self, id_: str) -> Record:
        record = self._outbox.get(id_)
        if record is None:
            raise NotFound(f"There is no wake {id_!r}; `perry wakes list` shows them.")
        return record


def _id_of(identity: Identity, key: str) -> str:
    """The same for the same caller's same key; nobody can make another's."""
    who = (identity.kind.value, identity.workspace or identity.node or "", key)
    return "w-" + hashlib.sha256("\0".join(who).encode()).hexdigest()[:24]
