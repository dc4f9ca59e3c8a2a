"""Sessions of coding agents, put together: their index, who fills it, and who is asked."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import anyio

from controlplane.errors import EngineError, NotReady, OutOfSpace
from controlplane.ports import Engine
from controlplane.sessions.changes import Changes
from controlplane.sessions.database import SessionsDatabase
from controlplane.sessions.follower import Follower
from controlplane.sessions.service import Sessions
from controlplane.workspaces.spec import instance_labels
from controlplane.workspaces.store import Store

log = logging.getLogger(__name__)


class SessionParts:
    """``service`` is what others ask. ``folder`` has the index; ``secrets`` gives what is masked in it."""

    def __init__(self, folder: Path, store: Store, *, secrets: Callable[[], Iterable[str]]) -> None:
        self._store = store
        self.database = SessionsDatabase(folder / "sessions.db")
        self.changes = Changes()
        self.follower = Follower(
            self.database,
            self.changes,
            created=lambda name: record.reservation.created if (record := store.get(name)) else "",
            secrets=secrets,
        )
        self.service = Sessions(self.database, self.changes, self.follower, lambda name: store.get(name) is not None)

    async def let_go_of_others(self, looked: anyio.Event, engine: Engine, instance: str) -> None:
        """Let go of those of workspaces that were deleted while nobody looked. ``looked`` is set once all workspaces
        that there are have been found."""
        await looked.wait()
        while True:
            try:
                found = await engine.containers(instance_labels(instance))
                there = [(record.name, record.reservation.created) for record in self._store.all()]
                unsure = {state.labels.get("perry.workspace", "") for state in found}
                await self.follower.end_others(there, unsure)
                return
            except (EngineError, NotReady, OutOfSpace) as exc:
                log.warning("sessions of workspaces that were deleted are let go of later: %s", exc)
                await anyio.sleep(30)
