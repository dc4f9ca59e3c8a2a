"""Workspaces in state.db."""

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from controlplane.db import Database
from controlplane.errors import Conflict
from controlplane.workspaces import spec
from controlplane.workspaces.spec import Claim, Request, Reservation
from controlplane.workspaces.state import Desired
from protocol.workspaces import Startup, StartupState


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What state.db knows of a workspace. ``key_id`` and ``node_id`` are of the tailnet ``tailnet``."""

    reservation: Reservation
    request: Request
    desired: Desired
    tailnet: str
    startup: Startup | None = None
    key_id: str | None = None
    node_id: str | None = None
    host_keys: tuple[str, ...] = ()
    error: str | None = None

    @property
    def name(self) -> str:
        return self.reservation.name

    @property
    def starting(self) -> bool:
        """Whether a start is under way, or was when the control plane ended."""
        return self.startup is not None and self.startup.state is StartupState.RUNNING


class Store:
    """The tables ``workspaces`` and ``tailnet_leftovers``. ``tailnet`` is the identity of the configured one."""

    def __init__(self, database: Database, tailnet: str) -> None:
        self._db = database
        self.tailnet = tailnet

    def all(self) -> list[Record]:
        """Every workspace, by name."""
        return [_record(row) for row in self._db.rows("SELECT * FROM workspaces ORDER BY name")]

    def get(self, name: str) -> Record | None:
        rows = self._db.rows("SELECT * FROM workspaces WHERE name = ?", (name,))
        return _record(rows[0]) if rows else None

    def name_of_node(self, node_id: str) -> str | None:
        """The workspace whose node this is on the tailnet that is configured."""
        where = "node_id = ? AND tailnet = ? AND desired != ?"
        rows = self._db.rows(f"SELECT name FROM workspaces WHERE {where}", (node_id, self.tailnet, Desired.DELETED))
        return str(rows[0]["name"]) if rows else None

    def reserve(
        self,
        name: str,
        request: Request,
        startup: Startup,
        *,
        ports: Iterable[int],
        pool: str,
        subnets_in_use: Iterable[str],
    ) -> Record:
        """A new workspace, with the first of ``ports`` and the first /28 of ``pool`` that no other has.

        Conflict where it exists, or where nothing is free.
        """
        created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        with self._db.transaction():
            if self.get(name) is not None:
                raise Conflict(f"A workspace named {name!r} exists already; `perry start {name}` starts it.")
            rows = self._db.rows("SELECT ssh_port, subnet FROM workspaces")
            taken_ports = {row["ssh_port"] for row in rows}
            port = next((port for port in ports if port not in taken_ports), None)
            if port is None:
                raise Conflict("No port for ssh is free on this machine; set ssh.firstPort to a range with free ports.")
            subnet = spec.free_subnet(pool, [*subnets_in_use, *(row["subnet"] for row in rows)])
            reservation = Reservation(name=name, created=created, ssh_port=port, subnet=subnet)
            return self._insert(
                Record(
                    reservation=reservation,
                    request=request,
                    desired=Desired.RUNNING,
                    startup=startup,
                    tailnet=self.tailnet,
                )
            )

    def adopt(self, claim: Claim, desired: Desired) -> Record | None:
        """Take over a workspace that Docker knows and we do not. None where its port or addresses are another's."""
        record = Record(reservation=claim.reservation, request=claim.request, desired=desired, tailnet=self.tailnet)
        try:
            with self._db.transaction():
                return self._insert(record)
        except sqlite3.IntegrityError:
            return None

    def _insert(self, record: Record) -> Record:
        values = {
            "name": record.name,
            "created": record.reservation.created,
            "desired": record.desired,
            "tailnet": record.tailnet,
            "ssh_port": record.reservation.ssh_port,
            "subnet": record.reservation.subnet,
            "request": _json(record.request),
            "startup": _json(record.startup) if record.startup else None,
        }
        self._db.run(
            f"INSERT INTO workspaces ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            tuple(values.values()),
        )
        return record

    def move(self, name: str, *, ssh_port: int | None = None, subnet: str | None = None) -> None:
        """Another port or subnet, where the old one turned out to be somebody else's."""
        with self._db.transaction():
            if ssh_port is not None:
                self._set(name, ssh_port=ssh_port)
            if subnet is not None:
                self._set(name, subnet=subnet)

    def ask(self, name: str, desired: Desired) -> None:
        self._set(name, desired=desired)

    def set_request(self, name: str, request: Request) -> None:
        self._set(name, request=_json(request))

    def set_startup(self, name: str, startup: Startup, error: str | None) -> None:
        self._set(name, startup=_json(startup), error=error)

    def set_key(self, name: str, key_id: str | None) -> None:
        self._set(name, key_id=key_id)

    def set_node(self, name: str, node_id: str | None) -> None:
        self._set(name, node_id=node_id)

    def enter_tailnet(self, name: str) -> Record | None:
        """Have it be of the tailnet that is configured. What another one still has of it is left over there."""
        with self._db.transaction():
            record = self.get(name)
            if record is None or record.tailnet == self.tailnet:
                return record
            self._leave(record.tailnet, nodes=_ids(record.node_id), keys=_ids(record.key_id))
            self._set(name, tailnet=self.tailnet, node_id=None, key_id=None)
            return self.get(name)

    def set_host_keys(self, name: str, host_keys: tuple[str, ...]) -> None:
        self._set(name, host_keys=_json(host_keys))

    def _set(self, name: str, **values: Any) -> None:
        columns = ", ".join(f"{column} = ?" for column in values)
        self._db.run(f"UPDATE workspaces SET {columns} WHERE name = ?", (*values.values(), name))

    def forget(self, name: str, *, nodes: Iterable[str], keys: Iterable[str]) -> None:
        """Remove the row; what its tailnet still has of it is noted for later, in the same transaction."""
        with self._db.transaction():
            record = self.get(name)
            self._leave(record.tailnet if record else self.tailnet, nodes=nodes, keys=keys)
            self._db.run("DELETE FROM workspaces WHERE name = ?", (name,))

    def _leave(self, tailnet: str, *, nodes: Iterable[str], keys: Iterable[str]) -> None:
        for kind, ids in (("node", nodes), ("key", keys)):
            for leftover in ids:
                self._db.run("INSERT OR IGNORE INTO tailnet_leftovers VALUES (?, ?, ?)", (tailnet, kind, leftover))

    def leftovers(self) -> list[tuple[str, str]]:
        """Pairs of (``node`` or ``key``, id) on the tailnet that is configured; those on others wait for their own."""
        rows = self._db.rows("SELECT kind, id FROM tailnet_leftovers WHERE tailnet = ?", (self.tailnet,))
        return [(row["kind"], row["id"]) for row in rows]

    def clear_leftover(self, kind: str, leftover: str) -> None:
        where = "tailnet = ? AND kind = ? AND id = ?"
        self._db.run(f"DELETE FROM tailnet_leftovers WHERE {where}", (self.tailnet, kind, leftover))


def _ids(maybe: str | None) -> list[str]:
    return [] if maybe is None else [maybe]


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _record(row: sqlite3.Row) -> Record:
    return Record(
        reservation=Reservation(
            name=row["name"], created=row["created"], ssh_port=row["ssh_port"], subnet=row["subnet"]
        ),
        request=msgspec.json.decode(row["request"], type=Request),
        desired=Desired(row["desired"]),
        tailnet=row["tailnet"],
        startup=msgspec.json.decode(row["startup"], type=Startup) if row["startup"] else None,
        key_id=row["key_id"],
        node_id=row["node_id"],
        host_keys=tuple(msgspec.json.decode(row["host_keys"], type=list[str])),
        error=row["error"],
    )
