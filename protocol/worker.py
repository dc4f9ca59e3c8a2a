"""Between the control plane and the worker inside a workspace: one WebSocket, which the control plane opens.

``GET /v1/stream`` on TCP 7392 of the pod, with the workspace's own secret as bearer token. Text frames are JSON, one
struct of this module each. The control plane begins with :class:`Follow`; the worker answers :class:`Hello`. Then the
worker tells what changes (:data:`Event`), numbered, and answers what it is asked (:class:`Ask`), in any order.

The stream says **that** a session has changed, and not how: ``mark`` is another than before. What has changed is then
asked for with :class:`ReadSession`, from the cursor where the last page ended. So nothing piles up for a reader that is
slow; a session that changes a thousand times a second is told of as often as it is heard; and all that the worker has
to know of its past is where its files are. A cursor holds whatever the reader of that agent's format needs to go on.

A control plane that was away sends the epoch and the number of the last event it heard. A worker of that epoch that
still knows what came after goes on from there (``resumed``); else it tells every session anew, then
:class:`SnapshotEnd`: what was not among them is gone.

Nothing of what a worker says is trusted: the reader bounds sizes, counts and rates (:data:`FRAME_LIMIT`,
:data:`PAGE_LIMIT`, :data:`SESSIONS_LIMIT`), and what is out of bounds ends the connection.
"""

from typing import Annotated, Final

import msgspec

from protocol.sessions import Message, SessionStatus, Tokens
from protocol.tasks import Commit, TaskState
from protocol.wire import Moment, Wire

WORKER_PORT: Final = 7392

STREAM_PATH: Final = "/v1/stream"

PROTOCOL: Final = 1
"""Grows when a control plane would misunderstand a worker or the reverse. What is only added does not count: unknown
events are passed over, and an unknown request is refused by :class:`Refused` with the code ``unknown``."""

SECRET_FILE: Final = "/etc/perry/worker-secret"
"""In the workspace; 43 characters, for its user alone. Read anew for each connection."""

FRAME_LIMIT: Final = 4 << 20
"""Bytes of one frame, at most; both ways."""

PAGE_LIMIT: Final = 1 << 20
"""Bytes of content that a page of messages has at most; but for a single message that alone is larger."""

BLOCK_LIMIT: Final = 256 << 10
"""Characters of one block at most; what is more is cut off and counted (``omitted``)."""

PAGES_LIMIT: Final = 64
"""Sessions that one request may ask for."""

SESSIONS_LIMIT: Final = 100_000
"""Sessions of one workspace, at most."""


# --- what the control plane says


class Follow(Wire, frozen=True, tag="follow", tag_field="type"):
    """The first frame. ``epoch`` and ``after`` are what was heard last."""

    version: str
    protocol: int
    epoch: str | None = None
    after: int | None = None


class ReadSession(Wire, frozen=True, tag="readSession", tag_field="kind"):
    """Messages from ``cursor`` on (None: from the beginning), as many as fit into ``limit`` bytes. → :class:`Page`."""

    agent: str
    session_id: str
    cursor: str | None = None
    limit: int = PAGE_LIMIT


class Unread(Wire, frozen=True):
    """A session, and where to read on (None: from the beginning)."""

    agent: str
    session_id: str
    cursor: str | None = None


class ReadSessions(Wire, frozen=True, tag="readSessions", tag_field="kind"):
    """A page of each of these, as long as they fit into ``limit`` bytes together. → :class:`Pages`."""

    sessions: Annotated[list[Unread], msgspec.Meta(min_length=1, max_length=PAGES_LIMIT)]
    limit: int = PAGE_LIMIT


class RenameInStore(Wire, frozen=True, tag="renameSession", tag_field="kind"):
    """Another title, in the agent's own store. → :class:`Done`."""

    agent: str
    session_id: str
    title: str


class DeleteInStore(Wire, frozen=True, tag="deleteSession", tag_field="kind"):
    """Delete it from the agent's own store. → :class:`Done`."""

    agent: str
    session_id: str


class ReadStatus(Wire, frozen=True, tag="status", tag_field="kind"):
    """How the worker is. → :class:`WorkerStatus`."""


class StartTask(Wire, frozen=True, tag="startTask", tag_field="kind"):
    """Begin a task; asked twice, it begins once. → :class:`Done`; Refused with the code ``noAgent`` where the agent is
    not installed. ``timeout`` is in seconds."""

    id: str
    agent: str
    text: str
    model: str | None = None
    timeout: float | None = None


class CancelTask(Wire, frozen=True, tag="cancelTask", tag_field="kind"):
    """End a task's whole process group. → :class:`Done`, also where it has ended. TaskSeen tells of the end."""

    id: str


class ForgetTask(Wire, frozen=True, tag="forgetTask", tag_field="kind"):
    """Its end was recorded: the worker need not tell of it any more. Its log stays. → :class:`Done`."""

    id: str


class ReadTaskLog(Wire, frozen=True, tag="readTaskLog", tag_field="kind"):
    """From byte ``offset`` on; a negative one counts from the end. → :class:`TaskLog`."""

    id: str
    offset: int
    limit: int


class ReadOutcome(Wire, frozen=True, tag="readOutcome", tag_field="kind"):
    """What a task has left so far. → :class:`TaskOutcome`."""

    id: str


class LookAtTask(Wire, frozen=True, tag="lookAtTask", tag_field="kind"):
    """How a task looks now; without an id, how the project does, and what ``agent`` does that nobody dispatched. →
    :class:`TaskLook`."""

    id: str | None = None
    agent: Annotated[str, msgspec.Meta(max_length=32)] | None = None


class TakeWakes(Wire, frozen=True, tag="takeWakes", tag_field="kind"):
    """These wakes are in the outbox, for good: the spool may forget them. → :class:`Done`."""

    ids: list[str]


class TakeSignals(Wire, frozen=True, tag="takeSignals", tag_field="kind"):
    """These signals were heard, for good: the worker may forget them. → :class:`Done`."""

    ids: list[str]


Request = (
    ReadSession
    | ReadSessions
    | RenameInStore
    | DeleteInStore
    | ReadStatus
    | StartTask
    | CancelTask
    | ForgetTask
    | ReadTaskLog
    | ReadOutcome
    | LookAtTask
    | TakeWakes
    | TakeSignals
)


class Ask(Wire, frozen=True, tag="ask", tag_field="type"):
    """A question. ``id`` comes back with its answer."""

    id: int
    request: Request


FromControlPlane = Follow | Ask


# --- what the worker says


class Hello(Wire, frozen=True, tag="hello", tag_field="type"):
    """The first frame back. ``epoch`` is this run of the worker; ``seq`` the number of its latest event."""

    version: str
    protocol: int
    epoch: str
    seq: int
    resumed: bool


class SessionSeen(Wire, frozen=True, tag="session", tag_field="type"):
    """A session is there, or has changed. ``mark`` changes whenever its messages or facts do."""

    seq: int
    agent: Annotated[str, msgspec.Meta(max_length=32)]
    session_id: Annotated[str, msgspec.Meta(max_length=256)]
    mark: Annotated[str, msgspec.Meta(max_length=256)]
    status: SessionStatus
    last_activity: Moment | None = None


class SessionGone(Wire, frozen=True, tag="sessionGone", tag_field="type"):
    """A session was deleted in its agent's store."""

    seq: int
    agent: Annotated[str, msgspec.Meta(max_length=32)]
    session_id: Annotated[str, msgspec.Meta(max_length=256)]


class StoreSeen(Wire, frozen=True, tag="store", tag_field="type"):
    """Whether all of an agent's store could be looked at. ``whole`` is false only before a SnapshotEnd: sessions of
    that agent that are not told may be there still. It is told again, true, when all of them are; what was not told
    until then is gone."""

    seq: int
    agent: Annotated[str, msgspec.Meta(max_length=32)]
    whole: bool


class SnapshotEnd(Wire, frozen=True, tag="snapshotEnd", tag_field="type"):
    """Every session that there is has been told, but for agents whose store is not :class:`whole <StoreSeen>`."""

    seq: int


class TaskSeen(Wire, frozen=True, tag="task", tag_field="type"):
    """A task of this worker has begun or changed. Told anew after each Hello that is not resumed, until forgotten.

    ``state`` is one of running, waiting, succeeded, failed, cancelled. ``session_id`` is the session in which the agent
    works, once known. ``last_message`` is the beginning of what the agent said last.
    """

    seq: int
    id: Annotated[str, msgspec.Meta(max_length=32)]
    state: TaskState
    started: Moment
    ended: Moment | None = None
    exit_code: int | None = None
    reason: Annotated[str, msgspec.Meta(max_length=2000)] | None = None
    session_id: Annotated[str, msgspec.Meta(max_length=256)] | None = None
    last_message: Annotated[str, msgspec.Meta(max_length=20_000)] | None = None


class WakeSpooled(Wire, frozen=True, tag="wake", tag_field="type"):
    """A wake from inside the workspace, safe in its spool. Told anew after each Hello that is not resumed, until taken.

    In the order in which they came. ``mode`` is ``now`` or ``next-heartbeat``.
    """

    seq: int
    id: Annotated[str, msgspec.Meta(max_length=64)]
    text: Annotated[str, msgspec.Meta(max_length=65_536)]
    mode: Annotated[str, msgspec.Meta(max_length=32)]
    at: Moment
    task: Annotated[str, msgspec.Meta(max_length=32)] | None = None


class AgentSignal(Wire, frozen=True, tag="signal", tag_field="type"):
    """A coding agent has said by its own hooks that a session rests. Told anew after each Hello that is not resumed,
    until taken.

    ``what``: ``done`` (it has done what it was asked), ``failed`` (its provider did), ``waiting`` (a person has to
    answer or to allow something). ``text`` is what it said last, or the question.
    """

    seq: int
    id: Annotated[str, msgspec.Meta(max_length=64)]
    agent: Annotated[str, msgspec.Meta(max_length=32)]
    session_id: Annotated[str, msgspec.Meta(max_length=256)]
    what: Annotated[str, msgspec.Meta(max_length=32)]
    text: Annotated[str, msgspec.Meta(max_length=4_000)]
    at: Moment


Event = SessionSeen | SessionGone | StoreSeen | SnapshotEnd | TaskSeen | WakeSpooled | AgentSignal


class SessionFacts(Wire, frozen=True):
    """What the agent recorded of a session, as far as it was read. Totals, not differences; None: not known (yet)."""

    title: str | None = None
    cwd: str | None = None
    model: str | None = None
    parent: str | None = None
    created: Moment | None = None
    last_activity: Moment | None = None
    tokens: Tokens | None = None
    cost: float | None = None
    resume: list[str] | None = None


class Page(Wire, frozen=True, tag="page", tag_field="kind"):
    """Messages, each replacing the one that had its ordinal before. ``cursor`` is where the next page begins.

    ``reset``: the cursor that was sent means nothing any more (the session was rewritten); the page is the first, and
    what was read before is void. ``more``: there is more to read at once. ``mark`` is the session's when this was
    read. ``skipped`` counts records that could not be read.
    """

    messages: list[Message]
    facts: SessionFacts
    cursor: Annotated[str, msgspec.Meta(max_length=16384)]
    mark: Annotated[str, msgspec.Meta(max_length=256)]
    more: bool
    reset: bool = False
    skipped: int = 0


class Refused(Wire, frozen=True, tag="refused", tag_field="kind"):
    """It was not done. ``code``: ``unknown`` (no such request), ``missing`` (no such session or task), ``noAgent``,
    ``failed``."""

    code: str
    message: str


class Pages(Wire, frozen=True, tag="pages", tag_field="kind"):
    """A page of each session that was asked for, in that order, or why there is none. There is at least one; those that
    are missing at the end are to be asked for again."""

    pages: Annotated[list[Page | Refused], msgspec.Meta(min_length=1, max_length=PAGES_LIMIT)]


class Done(Wire, frozen=True, tag="done", tag_field="kind"):
    """It was done."""


class AgentStatus(Wire, frozen=True):
    """A coding agent's store, as the worker sees it. ``problem`` is one sentence."""

    agent: str
    sessions: int
    problem: str | None = None


class WorkerStatus(Wire, frozen=True, tag="status", tag_field="kind"):
    """How a worker is. ``uptime`` is in seconds, ``memory`` in bytes (resident)."""

    version: str
    uptime: float
    memory: int
    watching: bool
    agents: list[AgentStatus]


class TaskLog(Wire, frozen=True, tag="taskLog", tag_field="kind"):
    """A piece of what the agent printed; what is not UTF-8 is replaced. Offsets and ``size`` are in bytes."""

    text: str
    offset: int
    next: int
    size: int


class TaskOutcome(Wire, frozen=True, tag="taskOutcome", tag_field="kind"):
    """What a task has left: see :class:`protocol.tasks.TaskResult`."""

    last_message: str | None = None
    commits: tuple[Commit, ...] = ()
    diff_stat: str | None = None
    uncommitted: int | None = None
    unpushed: int | None = None
    unknown: str | None = None


class TaskLook(Wire, frozen=True, tag="taskLook", tag_field="kind"):
    """One look. ``processes``, of which ``stopped`` were stopped by a signal, have used ``cpu`` seconds in all; they
    are None where neither a task nor an agent was asked about. ``log_tail`` are its last lines. ``commits`` counts
    those since the task began, ``changed`` the files that are in no commit; None where the project is no repository."""

    processes: int | None = None
    stopped: int = 0
    cpu: float = 0.0
    log_size: int | None = None
    log_tail: str = ""
    last: Commit | None = None
    commits: int | None = None
    changed: int | None = None


Result = Page | Pages | Done | WorkerStatus | TaskLog | TaskOutcome | TaskLook | Refused


class Answer(Wire, frozen=True, tag="answer", tag_field="type"):
    """To the question of that ``id``."""

    id: int
    result: Result


FromWorker = Hello | SessionSeen | SessionGone | StoreSeen | SnapshotEnd | TaskSeen | WakeSpooled | AgentSignal | Answer
