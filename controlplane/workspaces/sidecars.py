"""What each sidecar says of itself: whole snapshots, one a line, on its standard output.

The container's output is a channel that the workspace cannot write to, although it shares the sidecar's network.
"""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
import msgspec

from controlplane.errors import EngineError
from controlplane.ports import Engine
from protocol.workspaces import TailnetState, WorkspaceTailnet

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

log = logging.getLogger(__name__)


class SidecarStatus(msgspec.Struct, frozen=True, rename="camel"):
    """One line of a sidecar's output."""

    border: bool
    state: str
    hostname: str = ""
    dns_name: str = ""
    ips: tuple[str, ...] = ()
    node_id: str = ""
    tun: bool = False
    online: bool = False
    error: str = ""
    door: str = ""


STATES = {
    "running": TailnetState.ONLINE,
    "disabled": TailnetState.NONE,
    "failed": TailnetState.FAILED,
    "needs-key": TailnetState.FAILED,
    "offline": TailnetState.OFFLINE,
}


WITHOUT_TUN = (
    "This machine has no /dev/net/tun, so ssh over the tailnet needs a key and addresses of peers are not seen; "
    "load it with `sudo modprobe tun`, then restart the workspace."
)


def shown(name: str, status: SidecarStatus | None, *, joins: bool, runs: bool) -> WorkspaceTailnet:
    """A workspace's place on the tailnet, for people."""
    if not joins:
        return WorkspaceTailnet(status=TailnetState.NONE, hostname=name, ips=[])
    if status is None or not runs:
        return WorkspaceTailnet(status=TailnetState.OFFLINE, hostname=name, ips=[])
    state = STATES.get(status.state, TailnetState.JOINING)
    if state is TailnetState.ONLINE and not status.online:
        state = TailnetState.OFFLINE
    return WorkspaceTailnet(
        status=state,
        hostname=status.hostname or name,
        ips=list(status.ips),
        dns_name=status.dns_name.rstrip(".") or None,
        error=status.error or (status.door or _without_tun(status) if state is TailnetState.ONLINE else None),
    )


def _without_tun(status: SidecarStatus) -> str | None:
    return None if status.tun else WITHOUT_TUN


class Sidecars:
    """Follows the output of every sidecar that it is told of, for as long as that runs."""

    def __init__(self, engine: Engine, changed: Callable[[str], None]) -> None:
        self._engine = engine
        self._changed = changed
        self._statuses: dict[str, SidecarStatus] = {}
        self._followed: dict[str, tuple[str, anyio.CancelScope]] = {}
        self._news: dict[str, anyio.Event] = {}
        self._tasks: TaskGroup | None = None

    def run_in(self, tasks: "TaskGroup") -> None:
        """All following happens in this task group."""
        self._tasks = tasks

    def status(self, name: str) -> SidecarStatus | None:
        """The latest snapshot since the sidecar's start; None before its first."""
        return self._statuses.get(name)

    def follow(self, name: str, container: str, *, started: str) -> None:
        """Follow the sidecar of workspace ``name``; ``started`` tells its runs apart. Safe to call again."""
        assert self._tasks is not None
        run = f"{container}@{started}"
        if (followed := self._followed.get(name)) is not None:
            if followed[0] == run:
                return
            followed[1].cancel()
        self._statuses.pop(name, None)
        scope = anyio.CancelScope()
        self._followed[name] = (run, scope)
        self._tasks.start_soon(self._follow, name, container, run, scope)

    def forget(self, name: str) -> None:
        """The workspace stops or goes."""
        if (followed := self._followed.pop(name, None)) is not None:
            followed[1].cancel()
        self._statuses.pop(name, None)

    async def wait_for(
        self, name: str, wanted: Callable[[SidecarStatus], bool], seconds: float
    ) -> SidecarStatus | None:
        """The first snapshot that is as wanted; None when the time is over."""
        with anyio.move_on_after(seconds):
            while True:
                status = self._statuses.get(name)
                if status is not None and wanted(status):
                    return status
                await self._news.setdefault(name, anyio.Event()).wait()
        return None

    async def _follow(self, name: str, container: str, run: str, scope: anyio.CancelScope) -> None:
        with scope:
            try:
                async for line in self._engine.follow_stdout(container):
                    self._take(name, line)
            except EngineError as exc:
                log.info("no longer following the sidecar of %s: %s", name, exc)
        if (followed := self._followed.get(name)) is not None and followed[0] == run:
            del self._followed[name]
            self._statuses.pop(name, None)
            self._tell(name)

    def _take(self, name: str, line: str) -> None:
        try:
            status = msgspec.json.decode(line, type=SidecarStatus)
        except msgspec.DecodeError:
            log.warning("the sidecar of %s wrote a line that is no status", name)
            return
        if status != self._statuses.get(name):
            self._statuses[name] = status
            self._tell(name)

    def _tell(self, name: str) -> None:
        if (news := self._news.pop(name, None)) is not None:
            news.set()
        self._changed(name)
