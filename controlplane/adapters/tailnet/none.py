"""No tailnet: workspaces are reached by their published ssh port."""

from controlplane.errors import NotReady
from controlplane.ports import AuthKey, Node, TailnetInfo

NOTHING_TO_JOIN = "There is no tailnet here (tailnet.provider is none); set it to embedded to have one."


class NoTailnet:
    """Says so, and does nothing."""

    provider = "none"
    identity = "none"
    joins = False
    manages = False
    control_url: str | None = None

    async def ensure(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def remove(self) -> None:
        pass

    async def info(self) -> TailnetInfo:
        return TailnetInfo(provider=self.provider, ready=False, control_url=None, domain=None, owners=())

    async def mint_workspace_key(self, *, seconds: int = 600) -> AuthKey:
        raise NotReady(NOTHING_TO_JOIN)

    async def mint_gateway_key(self, *, seconds: int = 600) -> AuthKey:
        raise NotReady(NOTHING_TO_JOIN)

    async def mint_device_key(self, *, seconds: int = 3600) -> AuthKey:
        raise NotReady(NOTHING_TO_JOIN)

    async def revoke_key(self, key_id: str) -> None:
        pass

    async def users(self) -> list[str] | None:
        return None

    async def unused_keys(self) -> list[str] | None:
        return []

    async def nodes(self) -> list[Node]:
        return []

    async def node(self, node_id: str) -> Node | None:
        return None

    async def delete_node(self, node_id: str) -> None:
        pass
