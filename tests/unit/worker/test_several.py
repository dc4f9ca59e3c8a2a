"""Pages of several sessions in one answer: no more than fit, one in any case, refusals in their place."""

from pathlib import Path

import pytest

from protocol.sessions import MessageRole, SessionStatus
from protocol.worker import Page, Refused, SessionFacts
from tests.fakes.worker import message
from worker.sessions import several
from worker.sessions.agent import CodingAgent, Found, NotPossible


class Stores:
    """An agent's: each session is one message of so many characters, or what is raised."""

    name = "claude"

    def __init__(self, **sessions: int | Exception) -> None:
        self._sessions = sessions
        self.read_: list[str] = []

    def read(self, found: Found, cursor: str | None, limit: int) -> Page:
        self.read_.append(found.session_id)
        there = self._sessions[found.session_id]
        if isinstance(there, Exception):
            raise there
        told = message(0, "x" * min(there, limit), MessageRole.USER)
        return Page(messages=[told], facts=SessionFacts(), cursor="c", mark="m", more=there > limit)


def wanted(stores: Stores, *ids: str) -> list[several.Wanted]:
    agent: CodingAgent = stores  # type: ignore[assignment]
    found = [Found(f"/{id_}", id_, "m", SessionStatus.IDLE, 0.0) for id_ in ids]
    return [several.Wanted(agent, "claude", each.session_id, each, None) for each in found]


def test_as_many_as_fit() -> None:
    stores = Stores(a=40_000, b=40_000, c=10_000, d=10_000)
    pages = several.read(wanted(stores, "a", "b", "c", "d"), 100_000, _nobody)
    # After two there is too little room for a third that is as large.
    assert len(pages) == 2 and stores.read_ == ["a", "b"]


def test_one_in_any_case_and_large_ones_leave_no_room() -> None:
    stores = Stores(a=5_000_000, b=1)
    [page] = several.read(wanted(stores, "a", "b"), 100_000, _nobody)
    assert isinstance(page, Page) and page.more


def test_the_last_has_the_room_that_is_left() -> None:
    stores = Stores(a=60_000, b=5_000_000)
    first, last = several.read(wanted(stores, "a", "b"), 100_000, _nobody)
    assert isinstance(first, Page) and isinstance(last, Page) and last.more
    assert len(last.messages[0].blocks[0].text) <= 40_000  # type: ignore[union-attr]


def test_refusals_in_their_place(tmp_path: Path) -> None:
    stores = Stores(a=NotPossible("It is open."), b=FileNotFoundError(2, "gone"), c=PermissionError(13, "no"), d=1)
    gone: list[str] = []
    several_wanted = [several.Wanted(None, "nobody", "x", None, None), *wanted(stores, "a", "b", "c", "d")]
    pages = several.read(several_wanted, 100_000, lambda agent, found: gone.append(found.session_id))
    assert [each.code if isinstance(each, Refused) else "page" for each in pages] == [
        "missing", "failed", "missing", "failed", "page"
    ]  # fmt: skip
    assert gone == ["b"]


def test_others_wait_no_longer_than_for_one_that_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(several, "SECONDS", -1.0)
    stores = Stores(a=1, b=1)
    assert len(several.read(wanted(stores, "a", "b"), 100_000, _nobody)) == 1


def _nobody(agent: str, found: Found) -> None:
    raise AssertionError("all of them are there")
