"""A coordinator in memory, typed against the port and held to the real ones by tests/contract/tailnet."""

import itertools
from datetime import UTC, datetime, timedelta

from controlplane.errors import TailnetError, TailnetUnavailable
from controlplane.ports import GATEWAY_TAG, WORKSPACE_TAG, AuthKey, Node, Tailnet, TailnetInfo


class FakeTailnet:
    """``away`` makes every call fail as if the coordinator did not answer; :meth:`joined` is what a node does."""

    provider = "fake"
    joins = True
    manages = True
    control_url: str | None = "http://192.0.2.1:7390"

    def __init__(self, identity: str = "fake") -> None:
        self.identity = identity
        self.away = False
        self.own_owners: tuple[str, ...] = ("owner",)
        self.people: list[str] | None = ["owner"]
        self._keys: dict[str, AuthKey] = {}
        self._tags: dict[str, tuple[str, ...]] = {}
        self._nodes: dict[str, Node] = {}
        self._ids = itertools.count(1)

    def forget_everything(self) -> None:
        """The coordinator has lost its memory, and counts from 1 again."""
        self._keys.clear()
        self._nodes.clear()

    def joined(self, name: str, secret: str, node_id: str | None = None) -> Node | None:
        """A node of that name comes with a key, or again without one; None where it is refused."""
        if not secret:
            return next((node for node in self._nodes.values() if node.name == name), None)
        key = next((key for key in self._keys.values() if key.secret == secret), None)
        if key is None:
            return None
        del self._keys[key.id]
        number = next(self._ids)
        taken = {node.name for node in self._nodes.values()}
        node = Node(
            id=node_id or str(number),
            name=name if name not in taken else f"{name}-1",
            ips=(f"100.64.0.{number}",),
            online=True,
            tags=self._tags[key.id],
            user=None if self._tags[key.id] else "owner",
        )
        self._nodes[node.id] = node
        return node

    async def ensure(self) -> None:
        self._check()

    async def close(self) -> None:
        pass

    async def remove(self) -> None:
        self._keys.clear()
        self._nodes.clear()

    async def info(self) -> TailnetInfo:
        error = "The coordinator does not answer." if self.away else None
        return TailnetInfo(
            provider=self.provider,
            ready=not self.away,
            control_url=self.control_url,
            domain="perry.internal",
            owners=self.own_owners,
            error=error,
        )

    async def mint_workspace_key(self, *, seconds: int = 600) -> AuthKey:
        return self._mint(seconds, WORKSPACE_TAG)

    async def mint_gateway_key(self, *, seconds: int = 600) -> AuthKey:
        return self._mint(seconds, GATEWAY_TAG)

    async def mint_device_key(self, *, seconds: int = 3600) -> AuthKey:
        return self._mint(seconds)

    def _mint(self, seconds: int, *tags: str) -> AuthKey:
        self._check()
        number = str(next(self._ids))
        key = AuthKey(id=number, secret=f"secret-{number}", expires=datetime.now(UTC) + timedelta(seconds=seconds))
        self._keys[key.id] = key
        self._tags[key.id] = tags
        return key

    async def revoke_key(self, key_id: str) -> None:
        self._check()
        self._keys.pop(key_id, None)

    async def unused_keys(self) -> list[str] | None:
        self._check()
        return [key for key in self._keys if WORKSPACE_TAG in self._tags[key]]

    async def users(self) -> list[str] | None:
        self._check()
        return self.people

    async def nodes(self) -> list[Node]:
        self._check()
        return list(self._nodes.values()) if self.manages else []

    async def node(self, node_id: str) -> Node | None:
        self._check()
        if not self.manages:
            raise TailnetError("This credential cannot look at devices.")
        return self._nodes.get(node_id)

    async def delete_node(self, node_id: str) -> None:
        self._check()
        self._nodes.pop(node_id, None)

    def _check(self) -> None:
        if self.away:
            raise TailnetUnavailable("The coordinator does not answer; `perry tailnet status` shows how it stands.")


_typed: type[Tailnet] = FakeTailnet
