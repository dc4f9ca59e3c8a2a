"""Sessions that a person works in by hand wake too, where that is wished."""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import anyio
import pytest

from controlplane.tasks.signals import Signals
from protocol.sessions import SessionStatus
from protocol.worker import AgentSignal, SessionSeen, TakeSignals
from tests.unit.tasks.conftest import FakeLink, FakeWaker, Scene

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def signal(id_: str = "1", what: str = "done", text: str = "All\x1b done.", session: str = "s1") -> AgentSignal:
    return AgentSignal(seq=1, id=id_, agent="claude", session_id=session, what=what, text=text, at=NOW)


def seen(status: SessionStatus, mark: str = "m", agent: str = "opencode") -> SessionSeen:
    return SessionSeen(seq=1, agent=agent, session_id="o1", mark=mark, status=status)


class Wired:
    def __init__(self, scene: Scene, *, wanted: bool = True) -> None:
        self.waker = FakeWaker()
        self.signals = Signals(self.waker, wanted=wanted, of_task=lambda workspace, session: session == "of-a-task")
        self.link: FakeLink = scene.running("alpha")
        self.signals.attached("alpha", self.link)

    @property
    def taken(self) -> list[str]:
        return [id_ for request in self.link.asked if isinstance(request, TakeSignals) for id_ in request.ids]

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            self.signals.run_in(tasks)
            yield


async def test_what_an_agent_says_wakes_and_is_taken(scene: Scene) -> None:
    wired = Wired(scene)
    async with wired.at_work():
        wired.signals.told("alpha", signal())
    (text,) = wired.waker.wakes.values()
    assert text.startswith("claude in alpha has done what it was asked.\nIt said: “All done.”\n")
    assert "perry sessions messages s1" in text
    assert wired.taken == ["1"]


async def test_the_same_signal_is_the_same_wake(scene: Scene) -> None:
    wired = Wired(scene)
    async with wired.at_work():
        for each in (signal(), signal(), signal("2")):
            wired.signals.told("alpha", each)
    assert len(wired.waker.wakes) == 2


@pytest.mark.parametrize("wanted", [True, False])
async def test_what_wakes_nobody_is_taken_all_the_same(scene: Scene, wanted: bool) -> None:
    wired = Wired(scene, wanted=wanted)
    async with wired.at_work():
        wired.signals.told("alpha", signal("1", session="of-a-task") if wanted else signal("1"))
        wired.signals.told("alpha", signal("2", what="unheard of"))
    assert wired.waker.wakes == {}
    assert sorted(wired.taken) == ["1", "2"]


async def test_a_signal_that_woke_nobody_stays(scene: Scene) -> None:
    wired = Wired(scene)
    wired.waker.fails = 1
    async with wired.at_work():
        wired.signals.told("alpha", signal())
    assert wired.taken == []
    async with wired.at_work():
        wired.signals.told("alpha", signal())
    assert wired.taken == ["1"] and len(wired.waker.wakes) == 1


async def test_opencode_is_seen_to_rest(scene: Scene) -> None:
    wired = Wired(scene)
    busy, idle, waiting = SessionStatus.BUSY, SessionStatus.IDLE, SessionStatus.WAITING
    async with wired.at_work():
        for each in (seen(idle), seen(busy), seen(busy, "n"), seen(idle, "o"), seen(idle, "p")):
            wired.signals.told("alpha", each)
        for each in (seen(busy, "q"), seen(waiting, "r"), seen(busy, agent="claude"), seen(idle, "s", agent="claude")):
            wired.signals.told("alpha", each)
    assert [text.splitlines()[0] for text in wired.waker.wakes.values()] == [
        "opencode in alpha has done what it was asked.",
        "opencode in alpha waits for a person.",
    ]
