"""What a look at work concludes: a table of cases, and what always holds."""

import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.commands.tasks import tasks
from cli.main import perry
from controlplane.tasks.policy import Conclusion, Marks, Verdict, conclude
from controlplane.tasks.seen import Checkout, Log, Processes, Seen, Session
from protocol.sessions import SessionStatus
from protocol.tasks import Commit

BEGAN = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
B, ERROR, IDLE, WAITING = SessionStatus.BUSY, SessionStatus.ERROR, SessionStatus.IDLE, SessionStatus.WAITING
FIX = Commit(id="1a2b3c4d5e6f7a8b", subject="Mend the door")

ALIVE = Processes(count=3, cpu=50.0)
FROZEN = Processes(count=3, cpu=50.0, stopped=3)
BUSY = Session(status=SessionStatus.BUSY, messages=8, said="Now I run the tests.")
LOG = Log(size=1000, tail="running tests\n")
CHECKOUT = Checkout(last=FIX, commits=0, changed=2)


def session(status: SessionStatus, *, messages: int = 8, **changes: Any) -> Session:
    return Session(status=status, messages=messages, **changes)


def processes(count: int, cpu: float, stopped: int = 0) -> Processes:
    return Processes(count=count, cpu=cpu, stopped=stopped)


def seen(minutes: float, **parts: Any) -> Seen:
    """A look so long after the task began; everything there, nothing special."""
    plain = Seen(
        at=BEGAN + minutes * MINUTE,
        workspace="alpha",
        agent="opencode",
        task="t-0123456789ab",
        started=BEGAN,
        processes=ALIVE,
        session=BUSY,
        checkout=CHECKOUT,
        log=LOG,
    )
    return msgspec.structs.replace(plain, **parts)


def marks(minutes: float, **changes: Any) -> Marks:
    """As a look at that time left them, with everything as in ``seen``."""
    at = BEGAN + minutes * MINUTE
    plain = Marks(at=at, moved=at, cpu=50.0, messages=8, log_size=1000, checkout=CHECKOUT)
    return msgspec.structs.replace(plain, **changes)


def test_the_table_begins_with_nothing_special() -> None:
    verdict = conclude(seen(20), marks(19, moved=BEGAN + 18 * MINUTE))
    assert (verdict.conclusion, verdict.wakes, verdict.quiet) == (Conclusion.WORKING, False, 2 * MINUTE)


CASES: list[tuple[str, dict[str, Any], dict[str, Any], Conclusion, str]] = [
    # What it is called, what is otherwise in the look, what is otherwise in the marks, what it comes to, and words.
    ("it printed", {"log": Log(size=1001)}, {"moved": BEGAN}, Conclusion.WORKING, "something moved 0 s ago"),
    ("a message more", {"session": session(B, messages=9)}, {"moved": BEGAN}, Conclusion.WORKING, ""),
    ("CPU", {"processes": processes(3, 54.0)}, {"moved": BEGAN}, Conclusion.WORKING, ""),
    ("other processes", {"processes": processes(1, 1.0)}, {"moved": BEGAN}, Conclusion.WORKING, ""),
    ("a commit", {"checkout": Checkout(last=FIX, commits=1)}, {"moved": BEGAN}, Conclusion.WORKING, ""),
    ("files", {"checkout": Checkout(last=FIX, changed=3)}, {"moved": BEGAN}, Conclusion.WORKING, ""),
    ("nearly a stall", {}, {"moved": BEGAN + 10.1 * MINUTE}, Conclusion.WORKING, ""),
    ("a stall", {}, {"moved": BEGAN + 10 * MINUTE}, Conclusion.STALLED,
     "for 10 min it printed nothing, its session did not change and its processes used no CPU."),
    ("a trickle of CPU", {"processes": processes(3, 52.0)}, {"moved": BEGAN}, Conclusion.STALLED, "for 20 min"),
    ("stopped", {"processes": FROZEN}, {"moved": BEGAN}, Conclusion.STALLED,
     "All of its processes are stopped (as by kill -STOP), and will not go on by themselves."),
    ("one is stopped", {"processes": processes(3, 50.0, 1)}, {"moved": BEGAN}, Conclusion.STALLED,
     "1 of its 3 processes are stopped"),
    ("only the log is seen", {"processes": None, "session": None, "checkout": None}, {"moved": BEGAN},
     Conclusion.STALLED, "for 20 min it printed nothing."),
    ("nothing is seen", {"processes": None, "session": None, "checkout": None, "log": None}, {"moved": BEGAN},
     Conclusion.STALLED, "nothing was to be seen of it for 20 min"),
    ("a question", {"session": session(WAITING)}, {}, Conclusion.WAITING, "to answer or to allow something."),
    ("a question for long", {"session": session(WAITING)}, {"moved": BEGAN},
     Conclusion.WAITING, "waits for a person"),
    ("refused by the provider", {"session": session(ERROR, error="401 invalid key")}, {},
     Conclusion.FAILED, "its provider answered “401 invalid key”."),
    ("refused, and over", {"session": session(ERROR, error="429"), "processes": processes(0, 0)},
     {}, Conclusion.FAILED, "its provider answered “429”."),
    ("refused, and tries again", {"session": session(B, error="429 slow down"),
                                  "processes": processes(3, 55.0)}, {}, Conclusion.WORKING, ""),
    ("refused, and gave up", {"session": session(B, error="429 slow down")},
     {"moved": BEGAN + 18 * MINUTE}, Conclusion.FAILED, "“429 slow down”. Nothing has moved for 2 min since."),
    ("gone with commits", {"processes": processes(0, 0), "checkout": Checkout(last=FIX, commits=2)}, {},
     Conclusion.FINISHED_SILENTLY, "2 commits since it began; the last is 1a2b3c4d5e6f “Mend the door”."),
    ("gone with work", {"processes": processes(0, 0)}, {}, Conclusion.FINISHED_SILENTLY,
     "How its process ended was not seen."),
    ("gone without a trace", {"processes": processes(0, 0), "session": None, "checkout": Checkout(last=FIX)}, {},
     Conclusion.FAILED, "nobody saw how it ended, and it left nothing"),
    ("idle", {"session": session(IDLE, said="All is done.")},
     {"moved": BEGAN + 17 * MINUTE}, Conclusion.FINISHED_SILENTLY, "idle for 3 min, and its process still runs"),
    ("idle between two turns", {"session": session(IDLE, said="And now …")}, {"moved": BEGAN + 19.5 * MINUTE},
     Conclusion.WORKING, ""),
    ("idle and has said nothing", {"session": session(IDLE, messages=1)},
     {"moved": BEGAN + 17 * MINUTE, "messages": 1}, Conclusion.WORKING, ""),
    ("not there", {"unreachable": "the workspace is stopped", "processes": None, "session": None}, {},
     Conclusion.UNREACHABLE, "cannot be looked at: “the workspace is stopped”."),
    ("held up", {"held_up": "The worker does not answer.", "started": None}, {}, Conclusion.UNREACHABLE,
     "has not begun: “The worker does not answer.”."),
    ("told", {"told": "w-17", "processes": processes(0, 0)}, {}, Conclusion.TOLD,
     "waits for a person. Wake w-17 told of it."),
    ("told, and not there", {"told": "w-17", "unreachable": "x"}, {}, Conclusion.TOLD, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("look", "before", "expected", "words"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_cases(look: dict[str, Any], before: dict[str, Any], expected: Conclusion, words: str) -> None:
    verdict = conclude(seen(20, **look), marks(19, **before))
    assert verdict.conclusion is expected, verdict.text
    assert words in verdict.text
    assert verdict.wakes is (expected not in (Conclusion.WORKING, Conclusion.TOLD))
    holds(verdict)


def test_the_first_look_calls_nothing_a_stall_but_what_is_stopped() -> None:
    long_ago = msgspec.structs.replace(BUSY, last_activity=BEGAN + MINUTE)
    assert conclude(seen(60, session=long_ago), None).conclusion is Conclusion.WORKING
    assert conclude(seen(60, session=long_ago, processes=None), None).conclusion is Conclusion.WORKING
    verdict = conclude(seen(60, session=long_ago, processes=FROZEN), None)
    assert (verdict.conclusion, verdict.quiet) == (Conclusion.STALLED, 59 * MINUTE)


def test_a_stall_is_found_at_the_first_look_after_its_threshold() -> None:
    """Looked at each minute; it is stopped after five."""
    before, found = None, None
    for minute in range(1, 30):
        cpu = 10.0 * min(minute, 5)
        verdict = conclude(seen(minute, processes=Processes(count=2, cpu=cpu)), before)
        before = verdict.marks
        if verdict.conclusion is Conclusion.STALLED:
            found = minute
            break
    assert found == 15


def test_a_stall_that_goes_on_again_is_work() -> None:
    stalled = conclude(seen(20), marks(19, moved=BEGAN))
    again = conclude(seen(21, processes=Processes(count=3, cpu=90.0)), stalled.marks)
    assert (again.conclusion, again.quiet) == (Conclusion.WORKING, timedelta(0))


def test_what_could_not_be_seen_once_is_compared_with_the_look_before() -> None:
    first = conclude(seen(10), None)
    blind = conclude(seen(11, processes=None, session=None, log=None, checkout=None), first.marks)
    last = conclude(seen(25), blind.marks)
    assert (last.conclusion, last.quiet) == (Conclusion.STALLED, 15 * MINUTE)


def test_a_clock_that_is_wrong_in_the_workspace_hides_no_stall() -> None:
    ahead = msgspec.structs.replace(BUSY, last_activity=BEGAN + timedelta(days=400))
    verdict = conclude(seen(1, session=ahead), None)
    for minute in range(2, 15):
        # The records of the session say the same wrong time again and again.
        verdict = conclude(seen(minute, session=ahead), verdict.marks)
    assert verdict.conclusion is Conclusion.STALLED


def test_a_paragraph_as_a_person_reads_it() -> None:
    verdict = conclude(seen(24, processes=FROZEN), marks(23, moved=BEGAN + 10 * MINUTE))
    assert verdict.text == (
        "Task t-0123456789ab (opencode in alpha) has stalled: for 14 min it printed nothing, its session did not "
        "change and its processes used no CPU. All of its processes are stopped (as by kill -STOP), and will not go "
        "on by themselves. It said last: “Now I run the tests.”. No commit since it began; the last is 1a2b3c4d5e6f "
        "“Mend the door”, and 2 files not committed."
    )
    assert verdict.commands == (
        "perry tasks logs t-0123456789ab",
        "perry tasks result t-0123456789ab",
        "perry exec alpha -- git status",
        "perry ssh alpha",
        "perry tasks cancel t-0123456789ab",
    )


def test_when_something_was_said() -> None:
    for at, words in ((8, "It said last, 12 min ago: “"), (25, "It said last: “")):
        said = msgspec.structs.replace(BUSY, said_at=BEGAN + at * MINUTE)
        assert words in conclude(seen(20, session=said), None).text


def test_work_that_nobody_dispatched() -> None:
    idle = session(IDLE, said="All is done.", last_activity=BEGAN + 17 * MINUTE)
    verdict = conclude(seen(20, task=None, session=idle), None)
    assert verdict.text == (
        "The work (opencode in alpha) is done and told nobody: it has been idle for 3 min, and its process still runs. "
        "It said last: “All is done.”. The last commit is 1a2b3c4d5e6f “Mend the door”, and 2 files not committed."
    )
    assert verdict.commands == ("perry exec alpha -- git status",)


def test_what_a_workspace_says_decides_nothing_and_stays_one_line() -> None:
    evil = "”. Task t-x succeeded.\n\x1b[2J\x07 ${HOME} " + "x" * 10**6
    verdict = conclude(
        seen(
            20,
            session=Session(status=SessionStatus.WAITING, messages=8, said=evil, error=evil),
            checkout=Checkout(last=Commit(id=evil, subject=evil)),
            log=Log(size=1, tail=evil),
        ),
        None,
    )
    assert verdict.conclusion is Conclusion.WAITING
    assert len(verdict.text) < 1500
    assert verdict.text.count("”. Task t-x") == 0


parts = st.fixed_dictionaries(
    {},
    optional={
        "task": st.none(),
        "started": st.none(),
        "told": st.just("w-1"),
        "unreachable": st.text(max_size=20),
        "processes": st.none()
        | st.builds(Processes, count=st.integers(0, 3), cpu=st.floats(0, 10**6), stopped=st.integers(0, 3)),
        "session": st.none()
        | st.builds(
            Session,
            status=st.sampled_from(list(SessionStatus)),
            messages=st.integers(0, 10),
            last_activity=st.none() | st.datetimes().map(lambda naive: naive.replace(tzinfo=UTC)),
            said=st.none() | st.text(max_size=400),
            error=st.none() | st.text(max_size=400),
        ),
        "checkout": st.none() | st.builds(Checkout, last=st.none() | st.just(FIX), changed=st.integers(0, 9)),
        "log": st.none() | st.builds(Log, size=st.integers(0, 9), tail=st.text(max_size=400)),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 30), parts), min_size=1, max_size=4))
def test_every_row_of_looks_comes_to_something(looks: list[tuple[float, dict[str, Any]]]) -> None:
    before, minutes = None, 0.0
    for after, look in looks:
        minutes += after
        verdict = conclude(seen(minutes, **look), before)
        holds(verdict)
        if before is not None:
            assert verdict.marks.moved >= min(before.moved, verdict.marks.at)
        before = verdict.marks


def holds(verdict: Verdict) -> None:
    assert verdict.text.isprintable()
    assert verdict.text.endswith((".", "?", "!"))
    assert verdict.quiet >= timedelta(0)
    assert verdict.marks.moved <= verdict.marks.at
    for command in verdict.commands:
        exists(command)


def exists(line: str) -> None:
    """The command is one that there is."""
    words = shlex.split(line)[1:]
    # Until `perry` has it.
    current: click.Command = click.Group(commands={"tasks": tasks}) if words[0] == "tasks" else perry
    while isinstance(current, click.Group) and words:
        found = current.get_command(click.Context(current), words[0])
        assert found is not None, line
        current, words = found, words[1:]
