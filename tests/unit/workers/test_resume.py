"""Whatever happens in whatever order, a follower that applies what it is told ends with the worker's truth."""

import gc
import tempfile
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.adapters.worker_ws import WebSocketWorkers
from controlplane.workers.fleet import Fleet
from tests.unit.worker.shelf import SECRET, Served, Shelf
from tests.unit.workers.heard import ACCEPTED_TOO_LATE, Heard, at, nothing
from tests.waiting import until

SESSIONS = [f"s{number}" for number in range(6)]
EVENTS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(SESSIONS)),
    st.tuples(st.just("remove"), st.sampled_from(SESSIONS)),
    st.tuples(st.sampled_from(["drop", "turn", "settle", "restart", "away"]), st.just("")),
)


@pytest.mark.filterwarnings(ACCEPTED_TOO_LATE)
def test_a_follower_ends_with_the_truth() -> None:
    follow()
    gc.collect()


@settings(max_examples=60, deadline=None)
@given(events=st.lists(EVENTS, max_size=40), ring=st.integers(1, 8))
def follow(events: list[tuple[str, str]], ring: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(play, Path(folder), events, ring)


async def play(folder: Path, events: list[tuple[str, str]], ring: int) -> None:
    shelf, heard, addresses = Shelf(), Heard(), dict[str, str]()
    fleet = Fleet(
        WebSocketWorkers("1"),
        secret=lambda name: SECRET,
        address=at(addresses),
        renew_secret=nothing,
        changed=lambda name: None,
    )
    fleet.register(heard)
    marks, rest = 0, list(events)
    async with anyio.create_task_group() as tasks:
        fleet.run_in(tasks)
        while True:
            # One run of the worker: another epoch, and another port, which is the pod's address here.
            served, away = Served(folder, shelf, ring=ring), False
            async with served.running() as address:
                addresses["alpha"] = address
                fleet.follow("alpha", address)
                while rest:
                    what, session = rest.pop(0)
                    if what == "put":
                        marks += 1
                        shelf.put(session, str(marks))
                    elif what == "remove" and session in shelf.marks:
                        shelf.remove(session)
                    elif what == "drop":
                        served.drop_all()
                        fleet.dial_now("alpha")
                    elif what == "turn":
                        await anyio.lowlevel.checkpoint()
                    elif what == "settle":
                        await until(lambda: heard.marks.get("alpha") == shelf.marks)
                    elif what in ("restart", "away"):
                        away = what == "away"
                        break
                else:
                    await until(lambda: heard.marks.get("alpha") == shelf.marks)
                    assert heard.log.count("attached alpha") - heard.log.count("detached alpha") in (0, 1)
                    tasks.cancel_scope.cancel()
                    return
            if away:
                fleet.detach("alpha")
