"""Wakes: a text that the assistant of a person is woken with, surely and once.

The wake door is ``POST /hooks/wake`` with :class:`DoorWake`, as the gateways of clawdbot and openclaw have it; it
answers :class:`DoorAnswer`. What became of a wake is asked with the procedures ``wakes.*``.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec

from protocol.wire import Told, Wire
from protocol.workspaces import WorkspaceName

WAKE_PATH: Final = "/hooks/wake"

WAKE_PORT: Final = 18789
"""Where gateways have their door, and so Perry's own on the tailnet and inside workspaces."""

TEXT_LIMIT: Final = 64 << 10
"""Bytes of a wake's text, at most."""

DOOR_LIMIT: Final = 256 << 10
"""Bytes of a request at a wake door, at most."""

TEXT_REQUIRED: Final = "text required"
"""What a door says to a wake without a text, in the gateways' own words."""

WakeId = Annotated[str, msgspec.Meta(min_length=1, max_length=160)]


class WakeMode(StrEnum):
    """When the assistant looks at it: at once, or with its next heartbeat."""

    NOW = "now"
    NEXT_HEARTBEAT = "next-heartbeat"


class SessionTarget(StrEnum):
    """Where the assistant takes it up: in its main session, or in one of its own."""

    MAIN = "main"
    ISOLATED = "isolated"


class DoorAnswer(Wire, frozen=True):
    """What a wake door answers. ``id`` is there when the wake is safe; ``error`` when it was not taken."""

    ok: bool
    mode: str | None = None
    id: str | None = None
    error: str | None = None


class WakeState(Told):
    """How a wake stands.

    ``rejected``: the gateway refused it for good, and says why. ``dead``: for days nobody took it.
    """

    QUEUED = "queued"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    DEAD = "dead"


class WakeWay(Told):
    """How a gateway is connected to: ``direct`` is from the agent's machine, ``tailnet`` by Perry's own node there."""

    DIRECT = "direct"
    TAILNET = "tailnet"


class WakeAttempt(Wire, frozen=True):
    """One try at a gateway. ``status`` is that of HTTP, where one came. Without ``ended`` it goes on or was cut off.

    ``way`` is there where it was connected to.
    """

    gateway: str
    began: datetime
    ended: datetime | None = None
    status: int | None = None
    answer: str | None = None
    way: WakeWay | None = None


class Wake(Wire, frozen=True):
    """A wake. ``text`` is its beginning. ``next`` is when it is tried again; ``answer`` what came of the latest try,
    and ``way`` how the gateway was connected to.

    ``workspace`` and ``task`` say where it comes from. ``gateway`` is empty while there is none for it. ``session`` is
    ``isolated`` where the assistant is to take it up in a session of its own.
    """

    id: str
    state: WakeState
    text: str
    mode: str
    created: datetime
    gateway: str
    attempts: int
    workspace: str | None = None
    task: str | None = None
    next: datetime | None = None
    settled: datetime | None = None
    answer: str | None = None
    session: str | None = None
    way: WakeWay | None = None


class ShownWake(Wire, frozen=True):
    """All of a wake: what the gateway is sent, and the latest attempts, the oldest first."""

    wake: Wake
    text: str
    attempts: list[WakeAttempt]


class WakeGateway(Wire, frozen=True):
    """A gateway of the settings. ``waiting`` counts the wakes for it. ``problem`` is why it gets none for now."""

    name: str
    kind: str
    url: str
    default: bool
    waiting: int
    problem: str | None = None


class WakeRef(Wire, frozen=True, forbid_unknown_fields=True):
    """One wake."""

    id: WakeId


class ListWakes(Wire, frozen=True, forbid_unknown_fields=True):
    """Which wakes: the newest first."""

    workspace: WorkspaceName | None = None
    state: str | None = None
    cursor: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50


class Wakes(Wire, frozen=True):
    """A page of wakes, and every gateway. ``next_cursor`` is absent on the last page."""

    items: list[Wake]
    gateways: list[WakeGateway]
    next_cursor: str | None = None


class RetryWakes(Wire, frozen=True, forbid_unknown_fields=True):
    """What is tried again, now: this wake; without ``id`` every wake that was rejected, is dead, or waits."""

    id: WakeId | None = None


class Retried(Wire, frozen=True):
    """How many wakes are tried again."""

    count: int


class TestWake(Wire, frozen=True, forbid_unknown_fields=True):
    """Send a wake that says that it is a test, once; to the default gateway where none is named."""

    __test__ = False
    gateway: str | None = None
