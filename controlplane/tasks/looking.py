"""Looks at work in a workspace: asks its worker, and what is known of its session; :mod:`.policy` concludes."""

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

import anyio
import msgspec

from controlplane.errors import PerryError, WorkerError
from controlplane.ports import WorkerLink
from controlplane.tasks.seen import Checkout, Log, Processes, Seen, Session
from controlplane.tasks.state import Record, bounded_commit
from protocol.sessions import (
    ListMessages,
    ListSessions,
    MessageRole,
    Messages,
    SessionInfo,
    SessionRef,
    SessionStatus,
    Text,
)
from protocol.sessions import Sessions as SessionsPage
from protocol.tasks import TaskState
from protocol.worker import LookAtTask, TaskLook

LATEST = 20
"""Messages among which the agent's last word is looked for."""

TAIL = 4096
"""Characters of the end of a log that are kept of a look, however many a worker sends."""

LOOK_SECONDS = 10.0
"""How long a worker may take to look. One that does not answer must not keep others from being looked at."""


class Sessions(Protocol):
    """What is known of sessions; see :class:`controlplane.sessions.service.Sessions`."""

    async def get(self, wanted: SessionRef) -> SessionInfo: ...

    async def messages(self, wanted: ListMessages) -> Messages: ...

    async def list_(self, wanted: ListSessions) -> SessionsPage: ...


class Looker:
    """Looks now. What cannot be seen is left out; only a workspace that cannot be looked into is said."""

    def __init__(self, link: Callable[[str], WorkerLink], sessions: Sessions) -> None:
        self._link = link
        self._sessions = sessions

    async def at_task(self, record: Record) -> Seen:
        """At a task that is under way."""
        look, unreachable = await self._ask(record.workspace, LookAtTask(id=record.id))
        session = None
        if record.session_id is not None:
            session = await self._session(record.workspace, record.wishes.agent, record.session_id)
        told = record.wake_id if record.state is TaskState.WAITING else None
        return _seen(look, unreachable, session, record.workspace, record.wishes.agent, record.id, record.started, told)

    def at_queued(self, record: Record, problem: str | None) -> Seen:
        """At a task that has not begun, and why."""
        seen = _seen(None, None, None, record.workspace, record.wishes.agent, record.id, None, None)
        return msgspec.structs.replace(seen, held_up=problem)

    async def latest_session(self, workspace: str) -> SessionInfo | None:
        """The one in it that was active last."""
        page = await self._sessions.list_(ListSessions(workspace=workspace, limit=1))
        return next(iter(page.items), None)

    async def at_session(self, session: SessionInfo) -> Seen:
        """At what nobody dispatched."""
        workspace, agent = session.workspace, session.agent
        look, unreachable = await self._ask(workspace, LookAtTask(agent=agent))
        known = await self._session(workspace, agent, session.session_id)
        return _seen(look, unreachable, known, workspace, agent, None, None, None)

    async def _ask(self, workspace: str, request: LookAtTask) -> tuple[TaskLook | None, str | None]:
        try:
            with anyio.fail_after(LOOK_SECONDS):
                found = await self._link(workspace).ask(request)
        except WorkerError as exc:
            return None, exc.message
        except TimeoutError:
            return None, "Its worker did not answer in time."
        return (found, None) if isinstance(found, TaskLook) else (None, "Its worker does not know how to look.")

    async def _session(self, workspace: str, agent: str, session_id: str) -> Session | None:
        with contextlib.suppress(PerryError):
            info = await self._sessions.get(SessionRef(workspace=workspace, agent=agent, session_id=session_id))
            wanted = ListMessages(workspace=workspace, agent=agent, session_id=session_id, limit=LATEST)
            page = await self._sessions.messages(wanted)
            said = [
                (block.text, message.at)
                for message in page.items
                if message.role is MessageRole.ASSISTANT
                for block in message.blocks
                if isinstance(block, Text) and block.text.strip()
            ]
            last, at = said[-1] if said else (None, None)
            return Session(
                status=info.status,
                messages=info.message_count,
                last_activity=info.last_activity,
                said=last,
                said_at=at,
                # Agents write what their provider answered into the session, as the last that was said.
                error=last if info.status is SessionStatus.ERROR else None,
            )
        return None


def _seen(
    look: TaskLook | None,
    unreachable: str | None,
    session: Session | None,
    workspace: str,
    agent: str,
    task: str | None,
    started: datetime | None,
    told: str | None,
) -> Seen:
    processes = log = checkout = None
    if look is not None:
        if look.processes is not None:
            processes = Processes(count=look.processes, cpu=look.cpu, stopped=look.stopped)
        if look.log_size is not None:
            log = Log(size=look.log_size, tail=look.log_tail[-TAIL:])
        if look.commits is not None and look.changed is not None:
            last = None if look.last is None else bounded_commit(look.last)
            checkout = Checkout(last=last, commits=look.commits, changed=look.changed)
    return Seen(
        at=datetime.now(UTC),
        workspace=workspace,
        agent=agent,
        task=task,
        started=started,
        unreachable=unreachable,
        told=told,
        processes=processes,
        session=session,
        checkout=checkout,
        log=log,
    )
