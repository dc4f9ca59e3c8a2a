"""Batches in state.db."""

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from controlplane.batches.plan import Planned
from controlplane.batches.state import TEXT_SHOWN, Item, Kept, Record, Wishes
from controlplane.db import Database
from controlplane.workspaces.repository import upload_ids
from protocol.tasks import DispatchTask


class Store:
    """The tables ``batches`` and ``batch_items``."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(
        self, id_: str, wishes: Wishes, text: str, key: str | None, plan: Sequence[Planned], there: set[str]
    ) -> Record:
        """A new batch with its items. ``there`` are the workspaces that exist already."""
        with self._db.transaction():
            self._db.run(
                "INSERT INTO batches (id, key, wishes, text, created) VALUES (?, ?, ?, ?, ?)",
                (id_, key, _json(wishes), text[:TEXT_SHOWN], _time(datetime.now(UTC))),
            )
            for number, each in enumerate(plan, 1):
                name = each.task.workspace
                self._db.run(
                    "INSERT INTO batch_items (batch, number, item, workspace, wanted, was_there) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (id_, number, each.item, name, _json(each.task), int(name in there)),
                )
        return self._batches("id = ?", (id_,))[0]

    def get(self, id_: str) -> Record | None:
        return next(iter(self._batches("id = ?", (id_,))), None)

    def of_key(self, key: str) -> Record | None:
        """The batch that this key has made before."""
        return next(iter(self._batches("key = ?", (key,))), None)

    def page(self, *, before: int | None, limit: int) -> list[Record]:
        """The newest first."""
        where, values = ("1", ()) if before is None else ("number < ?", (before,))
        return self._batches(where, values, f"ORDER BY number DESC LIMIT {limit:d}")

    def unsettled(self) -> list[Record]:
        """What is not done with, in order."""
        return self._batches("settled = 0", (), "ORDER BY number")

    def ids_before_the_newest(self, count: int) -> list[str]:
        """The ids of those that are done with, but for the newest so many."""
        rows = self._db.rows(
            "SELECT id FROM batches WHERE settled = 1 ORDER BY number DESC LIMIT -1 OFFSET ?", (count,)
        )
        return [str(row["id"]) for row in rows]

    def items(self, batch: str) -> list[Item]:
        """A batch's items, in their order."""
        return self._items("batch = ? ORDER BY number", (batch,))

    def item(self, batch: str, number: int) -> Item | None:
        return next(iter(self._items("batch = ? AND number = ?", (batch, number))), None)

    def counts(self, batch: str) -> dict[str, int]:
        """How many of the items came to which end, of a batch that is done with."""
        rows = self._db.rows(
            "SELECT CASE WHEN task IS NOT NULL THEN json_extract(kept, '$.state') "
            "WHEN refused IS NOT NULL THEN 'failed' ELSE 'cancelled' END AS state, count(*) AS count "
            "FROM batch_items WHERE batch = ? GROUP BY 1 ORDER BY min(number)",
            (batch,),
        )
        return {str(row["state"]): row["count"] for row in rows}

    def at_work_in(self, workspaces: Iterable[str]) -> list[Item]:
        """Items that are not settled and have one of these workspaces."""
        wanted = set(workspaces)
        return [each for each in self._items("settled = 0", ()) if each.workspace in wanted]

    def has_task(self, task: str) -> bool:
        """Whether an item has this task."""
        return bool(self._db.rows("SELECT 1 FROM batch_items WHERE task = ?", (task,)))

    def ended_before(self, before: datetime, most: int) -> list[str]:
        """The ids of batches that ended before and are done with; so many at most."""
        ended = "SELECT id FROM batches WHERE settled = 1 AND ended < ? ORDER BY ended LIMIT ?"
        return [str(row["id"]) for row in self._db.rows(ended, (_time(before), most))]

    def forget(self, ids: Sequence[str]) -> None:
        """Remove batches, with their items."""
        with self._db.transaction():
            for id_ in ids:
                self._db.run("DELETE FROM batch_items WHERE batch = ?", (id_,))
                self._db.run("DELETE FROM batches WHERE id = ?", (id_,))

    def uploads(self) -> set[str]:
        """The uploads that items clone which are not done with, by their ids."""
        rows = self._db.rows(
            "SELECT DISTINCT json_extract(wanted, '$.clone') AS clone FROM batch_items WHERE settled = 0"
        )
        return upload_ids(row["clone"] for row in rows)

    def save(self, record: Record) -> None:
        """Write down all that changes in the life of a batch, but that it is cancelled."""
        self._db.run(
            "UPDATE batches SET ended = ?, wake_id = ?, settled = ? WHERE id = ?",
            (_time(record.ended) if record.ended else None, record.wake_id, int(record.settled), record.id),
        )

    def cancel(self, id_: str) -> None:
        """What is not over is to end."""
        self._db.run("UPDATE batches SET cancelled = 1 WHERE id = ? AND ended IS NULL", (id_,))

    def save_item(self, item: Item) -> None:
        """Write down all that changes in the life of an item."""
        kept = _json(item.kept) if item.kept else None
        self._db.run(
            "UPDATE batch_items SET task = ?, refused = ?, kept = ?, removal = ?, settled = ? "
            "WHERE batch = ? AND number = ?",
            (
                item.task,
                item.refused,
                kept,
                item.removal,
                int(item.settled),
                item.batch,
                item.number,
            ),
        )

    def _batches(self, where: str, values: Sequence[object], rest: str = "") -> list[Record]:
        return [_record(row) for row in self._db.rows(f"SELECT * FROM batches WHERE {where} {rest}", values)]

    def _items(self, where: str, values: Sequence[object]) -> list[Item]:
        return [_item(row) for row in self._db.rows(f"SELECT * FROM batch_items WHERE {where}", values)]


def _record(row: sqlite3.Row) -> Record:
    return Record(
        number=row["number"],
        id=row["id"],
        wishes=msgspec.json.decode(row["wishes"], type=Wishes),
        text=row["text"],
        created=datetime.fromisoformat(row["created"]),
        ended=datetime.fromisoformat(row["ended"]) if row["ended"] else None,
        cancelled=bool(row["cancelled"]),
        wake_id=row["wake_id"],
        settled=bool(row["settled"]),
    )


def _item(row: sqlite3.Row) -> Item:
    return Item(
        batch=row["batch"],
        number=row["number"],
        item=row["item"],
        wanted=msgspec.json.decode(row["wanted"], type=DispatchTask),
        was_there=bool(row["was_there"]),
        task=row["task"],
        refused=row["refused"],
        kept=msgspec.json.decode(row["kept"], type=Kept) if row["kept"] else None,
        removal=row["removal"],
        settled=bool(row["settled"]),
    )


def _json(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()


def _time(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds")
