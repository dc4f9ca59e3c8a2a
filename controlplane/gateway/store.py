"""The gateway's place on the tailnet, in state.db."""

import msgspec

from controlplane.db import Database


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Its node, and the key that it may not have used yet."""

    node_id: str | None = None
    key_id: str | None = None


class Store:
    """The table ``gateway``: a place on ``tailnet``, and those on tailnets that were configured before."""

    def __init__(self, database: Database, tailnet: str) -> None:
        self._db = database
        self._tailnet = tailnet

    def place(self) -> Place:
        rows = self._db.rows("SELECT node_id, key_id FROM gateway WHERE tailnet = ?", (self._tailnet,))
        return Place(node_id=rows[0]["node_id"], key_id=rows[0]["key_id"]) if rows else Place()

    def set(self, place: Place) -> None:
        values = (self._tailnet, place.node_id, place.key_id)
        self._db.run("INSERT OR REPLACE INTO gateway (tailnet, node_id, key_id) VALUES (?, ?, ?)", values)
