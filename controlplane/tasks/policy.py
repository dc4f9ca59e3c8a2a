"""What a look at work that nobody told of concludes. Pure: what was seen comes in, a verdict goes out.

    a wake told of it already                                         → told (nothing more is said)
    its turn has come, and it cannot be begun                         → unreachable
    the workspace cannot be reached                                   → unreachable
    its processes are gone, and it left an error or nothing           → failed
    its processes are gone                                            → finished silently
    it waits for a person's answer or permission                      → waiting
    its session ended in an error                                     → failed
    its provider refuses it, and nothing has moved since              → failed
    it is done, and has been quiet for a minute                       → finished silently
    nothing moved for as long as a stall takes                        → stalled
    else                                                              → working

Something moves when the log grows, the session changes, files or commits change, or its processes use more than a
trickle of CPU. A part that cannot be seen says nothing either way; at a first look, CPU counts as used. What was
begun by hand stands still once its session rests, and that says for how long. How a process ended is not seen here: a
worker that saw it tells of it.

Texts that come from a workspace are somebody's own words: they are bounded, on one line, quoted, and decide nothing.
"""

import shlex
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import msgspec

from controlplane.quoting import quoted
from controlplane.tasks.paragraph import facts, listed, span, subject
from controlplane.tasks.seen import Checkout, Seen, Session
from protocol.sessions import SessionStatus

STALL: Final = timedelta(minutes=10)
"""So long nothing moves in a stall, unless somebody says otherwise."""

SETTLED: Final = timedelta(minutes=1)
"""An agent that has said its last word and goes on is idle for less than this."""

TRICKLE: Final = 0.05
"""Share of a core that an agent's runtime may use while it does nothing. Measured with a provider that never answers:
OpenCode 1.5 to 1.7 %, Claude Code 0.3 %, Codex 0.1 %."""

WHY: Final = 600
"""Characters of why it cannot be begun, or looked at: a workspace, or git, may have had its say in that."""

LONGEST: Final = 120.0
"""Seconds between two looks over which a trickle says something. Over more, as while nobody looked, any work hides in
it."""


class Conclusion(StrEnum):
    """What it comes to."""

    WORKING = "working"
    WAITING = "waiting"
    STALLED = "stalled"
    FAILED = "failed"
    FINISHED_SILENTLY = "finished silently"
    UNREACHABLE = "unreachable"
    TOLD = "told"


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """What to keep of a look for the next one. ``moved`` is when something moved last."""

    at: datetime
    moved: datetime
    cpu: float | None = None
    messages: int | None = None
    log_size: int | None = None
    checkout: Checkout | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``text`` is one paragraph for a person or an assistant, ``commands`` are for looking further.

    ``wakes`` says whether it is worth a wake. ``quiet`` is how long nothing has moved.
    """

    conclusion: Conclusion
    wakes: bool
    text: str
    commands: tuple[str, ...]
    quiet: timedelta
    marks: Marks


# --- the verdict


def conclude(seen: Seen, before: Marks | None, *, stall: timedelta = STALL) -> Verdict:
    """Conclude from a look, and what the one before it left. Looks may be any time apart."""
    marks = moved(seen, before)
    quiet = max(seen.at - marks.moved, timedelta(0))
    conclusion, because = _conclusion(seen, quiet, stall)
    return Verdict(
        conclusion=conclusion,
        wakes=conclusion not in (Conclusion.WORKING, Conclusion.TOLD),
        text=" ".join([because, *([] if conclusion is Conclusion.TOLD else facts(seen))]),
        commands=_commands(seen, conclusion),
        quiet=quiet,
        marks=marks,
    )


def moved(seen: Seen, before: Marks | None) -> Marks:
    """When something moved last, as far as this look and the one before it can tell."""
    processes, session, log = seen.processes, seen.session, seen.log
    active = session.last_activity if session is not None else None
    # A workspace's clock and its agents' records may be wrong, and what is to come moves nothing.
    times = [time for time in (seen.started, active) if time is not None and time <= seen.at]
    if before is None:
        # Without an earlier look nobody can say that it stands still, unless all of it is stopped.
        if not times or not _stands(seen):
            times.append(seen.at)
    else:
        times.append(min(before.moved, seen.at))
        if not _rests(seen) and _differs(seen, before):
            times.append(seen.at)
    # What could not be seen this time is compared with what was seen before.
    kept = before or Marks(at=seen.at, moved=seen.at)
    return Marks(
        at=seen.at,
        moved=max(times),
        cpu=kept.cpu if processes is None else processes.cpu,
        messages=kept.messages if session is None else session.messages,
        log_size=kept.log_size if log is None else log.size,
        checkout=seen.checkout or kept.checkout,
    )


def _stands(seen: Seen) -> bool:
    if _frozen(seen) or (seen.task is not None and seen.processes is not None and seen.processes.count == 0):
        return True
    return _rests(seen)


def _rests(seen: Seen) -> bool:
    """What was begun by hand, and waits for its person. What it uses of CPU until then means nothing."""
    resting = seen.session is not None and seen.session.status not in (SessionStatus.BUSY, SessionStatus.UNKNOWN)
    return seen.task is None and resting


def _frozen(seen: Seen) -> bool:
    return seen.processes is not None and 0 < seen.processes.count <= seen.processes.stopped


def _differs(seen: Seen, before: Marks) -> bool:
    seconds = max((seen.at - before.at).total_seconds(), 1.0)
    # A total that is less than before is of other processes.
    if seen.processes is not None and before.cpu is not None:
        used = seen.processes.cpu - before.cpu
        if used < 0 or used > TRICKLE * min(seconds, LONGEST):
            return True
    return (
        (seen.session is not None and seen.session.messages != before.messages)
        or (seen.log is not None and seen.log.size != before.log_size)
        or (seen.checkout is not None and seen.checkout != before.checkout)
    )


def _conclusion(seen: Seen, quiet: timedelta, stall: timedelta) -> tuple[Conclusion, str]:
    """With a sentence for it."""
    who, session = subject(seen), seen.session
    if seen.told is not None:
        return Conclusion.TOLD, f"{who} waits for a person. Wake {seen.told} told of it."
    if seen.held_up is not None:
        return Conclusion.UNREACHABLE, f"{who} has not begun: {quoted(seen.held_up, WHY)}."
    if seen.unreachable is not None:
        return Conclusion.UNREACHABLE, f"{who} cannot be looked at: {quoted(seen.unreachable, WHY)}."
    count = None if seen.processes is None else seen.processes.count
    if count == 0 and seen.task is not None:
        return _of_an_end(seen)
    if session is not None and session.status is SessionStatus.WAITING:
        return Conclusion.WAITING, f"{who} waits for a person, to answer or to allow something."
    if session is not None and session.status is SessionStatus.ERROR:
        return Conclusion.FAILED, f"{who} failed: {_provider(session)}"
    if session is not None and session.error and quiet >= SETTLED:
        # Agents try again by themselves, and are seen to move then.
        return Conclusion.FAILED, f"{who} failed: {_provider(session)} Nothing has moved for {span(quiet)} since."
    if seen.task is None and _frozen(seen) and quiet >= SETTLED:
        # Its session, which it cannot write to, says that it rests.
        return Conclusion.STALLED, f"{who} has stalled: {_standstill(seen, quiet)}"
    if session is not None and session.status is SessionStatus.IDLE and session.said and quiet >= SETTLED:
        still = ", and its process still runs" if count else ""
        idle = f"it has been idle for {span(quiet)}{still}."
        return Conclusion.FINISHED_SILENTLY, f"{who} is done and told nobody: {idle}"
    if quiet >= stall:
        return Conclusion.STALLED, f"{who} has stalled: {_standstill(seen, quiet)}"
    return Conclusion.WORKING, f"{who} works; {_moved_last(seen, quiet)} ago."


def _moved_last(seen: Seen, quiet: timedelta) -> str:
    active = None if seen.session is None else seen.session.last_activity
    if seen.task is not None or active is None or active > seen.at:
        return f"something moved {span(quiet)}"
    return f"its session was active {span(seen.at - active)}"


def _of_an_end(seen: Seen) -> tuple[Conclusion, str]:
    """Nobody saw how: no process is left."""
    who, session = subject(seen), seen.session
    if session is not None and (session.status is SessionStatus.ERROR or session.error):
        return Conclusion.FAILED, f"{who} failed: {_provider(session)}"
    if not _left_something(seen):
        return Conclusion.FAILED, f"{who} failed: its process is gone, nobody saw how it ended, and it left nothing."
    return Conclusion.FINISHED_SILENTLY, f"{who} finished and told nobody. How its process ended was not seen."


def _left_something(seen: Seen) -> bool:
    checkout = seen.checkout
    return bool(checkout and (checkout.commits or checkout.changed)) or bool(seen.session and seen.session.said)


def _standstill(seen: Seen, quiet: timedelta) -> str:
    still = [
        words
        for part, words in (
            (seen.log, "it printed nothing"),
            (seen.session, "its session did not change"),
            (seen.processes, "its processes used no CPU"),
        )
        if part is not None
    ]
    text = f"for {span(quiet)} {listed(still)}." if still else f"nothing was to be seen of it for {span(quiet)}."
    processes = seen.processes
    if processes is not None and processes.stopped == processes.count:
        text += " All of its processes are stopped (as by kill -STOP), and will not go on by themselves."
    elif processes is not None and processes.stopped:
        text += f" {processes.stopped} of its {processes.count} processes are stopped (as by kill -STOP)."
    return text


def _provider(session: Session) -> str:
    return f"its provider answered {quoted(session.error)}." if session.error else "its session ended in an error."


def _commands(seen: Seen, conclusion: Conclusion) -> tuple[str, ...]:
    workspace, task = shlex.quote(seen.workspace), seen.task
    if conclusion is Conclusion.TOLD:
        return () if task is None else (f"perry tasks show {task}",)
    if conclusion is Conclusion.UNREACHABLE:
        return (f"perry info {workspace}", f"perry start {workspace}", f"perry logs {workspace}", "perry doctor")
    commands = [f"perry tasks logs {task}", f"perry tasks result {task}"] if task is not None else []
    commands.append(f"perry exec {workspace} -- git status")
    if conclusion in (Conclusion.STALLED, Conclusion.WAITING, Conclusion.WORKING):
        commands.append(f"perry ssh {workspace}")
    if task is not None and conclusion is not Conclusion.FAILED:
        commands.append(f"perry tasks cancel {task}")
    return tuple(commands)
