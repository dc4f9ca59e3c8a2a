"""Wakes for sessions that a person works in by hand: the same signals as for tasks, where ``wake.sessions`` is on.

Claude Code and Codex say by their hooks when they rest. OpenCode's sessions are seen to rest: its status goes from busy
to something else.
"""

import contextlib
import hashlib
import logging
import re
from collections.abc import Callable

import anyio
from anyio.abc import TaskGroup

from controlplane.errors import PerryError, WorkerError
from controlplane.ports import Waker, WorkerLink
from controlplane.quoting import clean, quoted
from controlplane.tasks.service import ASK_SECONDS
from controlplane.tasks.state import SAID
from protocol.sessions import SessionStatus
from protocol.worker import AgentSignal, Event, SessionGone, SessionSeen, TakeSignals

log = logging.getLogger(__name__)

WORDS = {"done": "has done what it was asked", "failed": "has failed", "waiting": "waits for a person"}

_AGENT = re.compile(r"[a-z][a-z0-9-]{0,31}")
_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""What may stand in our own words of what a workspace says; else it is left out."""

RESTS = {SessionStatus.IDLE: "done", SessionStatus.ERROR: "failed", SessionStatus.WAITING: "waiting"}

WITHOUT_HOOKS = frozenset({"opencode"})
"""Agents whose rest is seen, and not said."""

SESSIONS_LIMIT = 1_000
"""Busy sessions of one workspace that are kept in mind."""


class Signals:
    """Follows every worker (a ``WorkerFollower``). ``of_task`` knows the sessions that dispatched tasks work in."""

    def __init__(self, waker: Waker, *, wanted: bool, of_task: Callable[[str, str], bool]) -> None:
        self._waker = waker
        self._wanted = wanted
        self._of_task = of_task
        self._links: dict[str, WorkerLink] = {}
        self._busy: dict[str, dict[tuple[str, str], None]] = {}
        self._tasks: TaskGroup | None = None

    def run_in(self, tasks: TaskGroup) -> None:
        """All that it does, it does in this task group."""
        self._tasks = tasks

    def attached(self, workspace: str, link: WorkerLink) -> None:
        self._links[workspace] = link

    def detached(self, workspace: str) -> None:
        self._links.pop(workspace, None)

    def deleted(self, workspace: str) -> None:
        self._busy.pop(workspace, None)

    def told(self, workspace: str, event: Event) -> None:
        if isinstance(event, AgentSignal):
            self._later(workspace, event)
        elif isinstance(event, SessionSeen) and event.agent in WITHOUT_HOOKS and self._wanted:
            self._look(workspace, event)
        elif isinstance(event, SessionGone):
            self._busy.get(workspace, {}).pop((event.agent, event.session_id), None)

    def _look(self, workspace: str, seen: SessionSeen) -> None:
        busy = self._busy.setdefault(workspace, {})
        key = (seen.agent, seen.session_id)
        if seen.status is SessionStatus.BUSY:
            if len(busy) < SESSIONS_LIMIT:
                busy[key] = None
        elif key in busy and (what := RESTS.get(seen.status)) is not None:
            del busy[key]
            # The same rest is the same wake, also for a control plane that hears of it anew.
            id_ = hashlib.sha256(f"{seen.agent} {seen.session_id} {seen.mark}".encode()).hexdigest()[:24]
            self._start(self._wake, workspace, seen.agent, seen.session_id, what, "", id_)

    def _later(self, workspace: str, signal: AgentSignal) -> None:
        self._start(self._hear, workspace, signal)

    def _start(self, *work: object) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(*work)  # type: ignore[arg-type]

    async def _hear(self, workspace: str, signal: AgentSignal) -> None:
        """Wake where that is wanted; then the worker may forget it. Where it cannot be, it is told of again later."""
        if self._wanted and signal.what in WORDS:
            id_ = hashlib.sha256(f"{workspace} {signal.id}".encode()).hexdigest()[:24]
            if not await self._wake(workspace, signal.agent, signal.session_id, signal.what, signal.text, id_):
                return
        if (link := self._links.get(workspace)) is not None:
            with contextlib.suppress(WorkerError, TimeoutError), anyio.fail_after(ASK_SECONDS):
                await link.ask(TakeSignals(ids=[signal.id]))

    async def _wake(self, workspace: str, agent: str, session_id: str, what: str, text: str, id_: str) -> bool:
        """False where the wake was not taken."""
        if self._of_task(workspace, session_id):
            return True  # The task's own end, or its question, wakes.
        who = agent if _AGENT.fullmatch(agent) else "A coding agent"
        lines = [f"{who} in {workspace} {WORDS[what]}."]
        if clean(text):
            lines.append(f"It said: {quoted(text, SAID)}")
        # It stands in a command that somebody may run.
        known = _SESSION.fullmatch(session_id)
        look = f"perry sessions messages {session_id}" if known else f"perry sessions list -w {workspace}"
        lines.append(f"Look further: `{look}`.")
        try:
            await self._waker.wake("\n".join(lines), workspace=workspace, id=f"s-{id_}")
        except PerryError as exc:
            log.warning("a session of %s rests, and nobody is woken: %s", workspace, exc.message)
            return False
        return True
