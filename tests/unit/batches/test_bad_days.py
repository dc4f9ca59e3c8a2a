"""Batches on machines, and over workspaces, that do not do as they should."""

import sqlite3

import pytest

from controlplane.batches.state import Item, Record
from tests.unit.batches.conftest import Plane, wanted


async def test_what_cannot_be_written_down_is_tried_again(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full for a while ends nothing, and holds up no other batch."""
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    one, two = [await plane.service.start(wanted(item)) for item in ("one", "two")]
    await plane.service.cancel(one.summary.id)
    save, full = plane.store.save_item, True

    def fails(item: Item) -> None:
        if full and item.batch == one.summary.id:
            raise sqlite3.OperationalError("database or disk is full")
        save(item)

    monkeypatch.setattr(plane.store, "save_item", fails)
    async with plane.at_work():
        assert (await plane.settled(two)).summary.counts == {"succeeded": 1}
        full = False
        assert (await plane.settled(one)).summary.counts == {"cancelled": 1}


async def test_a_state_db_that_cannot_be_read_is_asked_again(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.batches.driver.RETRY_SECONDS", 0.01)
    unsettled, failures = plane.store.unsettled, [sqlite3.OperationalError("disk I/O error")]

    def fails() -> list[Record]:
        if failures:
            raise failures.pop()
        return unsettled()

    monkeypatch.setattr(plane.store, "unsettled", fails)
    async with plane.at_work():
        await plane.settled(await plane.service.start(wanted("one")))
    assert not failures
